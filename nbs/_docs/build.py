"""The site: notebooks executed, pages laid out, reference written from the code, Sphinx with warnings as errors, every link followed.

    python nbs/_docs/build.py            builds build/docs/html; what has not changed since the last build is not run again
    python nbs/_docs/build.py --serve    builds, then serves it at http://127.0.0.1:8000
"""
import argparse
from base64 import b64decode
from functools import partial
import gc
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
import json
import os
from pathlib import Path
import re
import shutil
import sys
import time

from execute import ROOT, execute_all, read_notebook, source_of
import links
import pages
import reference

HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "docs"
SOURCE, HTML = BUILD / "source", BUILD / "html"


def read_notebooks():
    "Every notebook of the project: name (path below nbs/, no suffix) -> notebook."
    files = {p.relative_to(ROOT / "nbs"): p for p in sorted((ROOT / "nbs").rglob("*.ipynb"))}
    return {name.with_suffix("").as_posix(): read_notebook(p) for name, p in files.items() if not any(part.startswith(("_", ".")) for part in name.parts)}


def read_pages():
    "The pages in Markdown, and those that are written from the code: name -> notebook."
    texts = {p.relative_to(HERE / "pages").with_suffix("").as_posix(): p.read_text(encoding="utf-8") for p in sorted((HERE / "pages").rglob("*.md"))}
    return {name: pages.notebook_of(text) for name, text in (texts | reference.written_pages()).items()}


def tree_page(title, intro, names, blurbs):
    "A page that lists others, each with its line."
    lines = "\n".join(f"- {{doc}}`{n.rpartition('/')[2]}`: {blurbs[n]}" for n in names)
    return pages.notebook_of(f"# {title}\n\n{intro}\n\n{lines}\n\n```{{toctree}}\n:hidden:\n\n" + "\n".join(n.rpartition("/")[2] for n in names) + "\n```\n")


def contents_pages(notebooks):
    "The lists of notebooks to run and of modules by package."
    blurbs = {n: pages.blurb_of(nb) for n, nb in notebooks.items()}
    run = [n for n in notebooks if "/" not in n]
    intro = "Each runs from top to bottom on `data/sample`, in JupyterLab or by papermill; what is shown here was run for this page."
    lists = {"notebooks": tree_page("Notebooks", intro, run, blurbs)}
    for package in reference.PACKAGES:
        names = {f"{package}/index": "The names that the package offers."}
        inside = [n for n in notebooks if n.startswith(f"{package}/") and n not in names]
        lists[f"{package}/contents"] = tree_page(f"aml_miner.{package}", reference.package_words(package), [*inside, *names], blurbs | names)
    return lists


def write_if_new(path, text):
    "Sphinx reads again what has a new time: a page that is the same keeps its own."
    if path.is_file() and path.read_text(encoding="utf-8") == text: return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def lay_out(texts, notebooks):
    "Write Sphinx's source folder, and the notebooks that the pages offer; remove what is no page any more."
    wanted = set()
    for name, nb in (texts | notebooks).items():
        page = pages.text_page(nb) if name in texts else pages.page_of(nb, name)
        for path, content in ((SOURCE / f"{name}.ipynb", page), (SOURCE / "_notebooks" / f"{name}.ipynb", pages.with_outputs(nb))):
            write_if_new(path, json.dumps(content, ensure_ascii=False) + "\n")
            wanted.add(path)
    for path in SOURCE.rglob("*.ipynb"):
        if path in wanted: continue
        path.unlink()
        (HTML / path.relative_to(SOURCE)).with_suffix(".html").unlink(missing_ok=True)


def page_of_notebook(page, link):
    "What a notebook shows links to its neighbours in JupyterLab; on the site their pages are meant."
    name = link.group(1).removeprefix("../nbs/")
    target = (HTML if link.group(1) != name else page.parent) / f"{name}.html"
    there = (page.parent / f"{link.group(1)}.ipynb").exists() or not target.is_file()
    return link.group(0) if there else f'href="{os.path.relpath(target, page.parent)}"'


def picture_file(page, coded):
    "A picture that lies in a page becomes a file."
    picture = b64decode(coded.group(1))
    file = HTML / "_images" / f"{sha256(picture).hexdigest()[:20]}.png"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(picture)
    return os.path.relpath(file, page.parent)


def parameter_list(found):
    "Parameters of a signature below each other are a list; Sphinx writes definitions without terms."
    return f'<ul class="sig-params">{found[1].replace("<dd>", "<li>").replace("</dd>", "</li>")}</ul>'


def finish_pages():
    "What Sphinx and its theme leave open: links between notebooks, pictures as files, names for what folds, lists that are lists."
    for page in HTML.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        done = re.sub(r'href="([\w./-]+)\.ipynb"', partial(page_of_notebook, page), text)
        done = re.sub(r"data:image/png;base64,([A-Za-z0-9+/=]+)", partial(picture_file, page), done)
        done = re.sub(r'(>([^<>]*)(?:</code>|</span>)*</a><details[^>]*><summary)>', r'\1 aria-label="Pages of \2">', done)
        done = re.sub(r"<dl>\s*(<dd><em class=\"sig-param\">.*?)</dl>", parameter_list, done, flags=re.S)
        if done != text: page.write_text(done, encoding="utf-8")


def sphinx():
    "Build the pages; a warning is a failure. Returns Sphinx's exit code."
    import plotly
    from sphinx.cmd.build import main
    gc.disable()  # half a gigabyte at most, and a fifth of the time less
    options = ["-W", "--keep-going", "-q", "-j", str(os.cpu_count() or 1), "-c", str(HERE), "-d", str(BUILD / "doctrees")]
    code = main(["-b", "html", *options, str(SOURCE), str(HTML)])
    gc.enable()
    if code: return code
    shutil.copy(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", HTML / "_static" / "plotly.min.js")
    shutil.rmtree(HTML / "_notebooks", ignore_errors=True)
    shutil.copytree(SOURCE / "_notebooks", HTML / "_notebooks")
    finish_pages()
    (HTML / ".nojekyll").touch()
    return 0


def build():
    "Everything. Returns the number of faults."
    start = time.perf_counter()
    raw, texts = read_notebooks(), read_pages()
    texts |= contents_pages(raw)
    with_code = {n: nb for n, nb in texts.items() if any(c["cell_type"] == "code" for c in nb["cells"])}
    filled, ran = execute_all(raw | with_code)
    print(f"executed {len(ran)} of {len(filled)} notebooks, {time.perf_counter() - start:.0f} s", flush=True)
    lay_out(texts | {n: filled[n] for n in with_code}, {n: filled[n] for n in raw})
    words = {n: [source_of(c) for c in nb["cells"] if c["cell_type"] == "markdown"] for n, nb in texts.items()}
    faults = [f"{name}: cell without a fence's end" for name, parts in words.items() if any("```{code-cell}" in text for text in parts)]
    if code := sphinx(): return code
    site = links.check_site(HTML)
    for fault in (faults := faults + site.faults): print("FAULT", fault)
    print(f"site in {HTML.relative_to(ROOT)}: {site.pages} pages, {site.links} links, {len(faults)} faults, {time.perf_counter() - start:.0f} s")
    return len(faults)


def serve(port):
    "Show the site until interrupted."
    with ThreadingHTTPServer(("127.0.0.1", port), partial(SimpleHTTPRequestHandler, directory=HTML)) as server:
        print(f"http://127.0.0.1:{server.server_port}/")
        try: server.serve_forever()
        except KeyboardInterrupt: pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", action="store_true", help="serve the site after building it")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    if faults := build(): return min(faults, 1)
    if args.serve: serve(args.port)
    return 0


if __name__ == "__main__": sys.exit(main())
