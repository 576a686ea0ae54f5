"""Follow every link of the built site: pages, anchors, pictures, scripts, styles; nothing may be loaded from another host."""
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from html.parser import HTMLParser
import multiprocessing
import os
from pathlib import Path
import re
from urllib.parse import unquote, urlsplit

LOADED = {*((kind, "src") for kind in ("script", "img", "iframe", "source", "video", "audio", "embed")), ("link", "href"), ("object", "data")}
ELSEWHERE = re.compile(r"(?:@import\s+|url\()[\"']?((?:https?:)?//[^\"')]+)")  # what a style sheet loads from another host
NOT_LOADED = {"canonical", "alternate", "author", "license", "prev", "next", "search", "index"}


@dataclass
class Found:
    pages: int
    links: int
    faults: list


class Page(HTMLParser):
    "Anchors and links of a page."
    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loaded, self.twice = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if given.get("id"):
            if given["id"] in self.anchors: self.twice.append(given["id"])
            self.anchors.add(given["id"])
        if tag == "a" and given.get("name"): self.anchors.add(given["name"])
        if tag == "a" and given.get("href"): self.links.append(given["href"])
        for kind, attribute in LOADED:
            if tag == kind and given.get(attribute):
                if not (tag == "link" and set((given.get("rel") or "").split()) & NOT_LOADED): self.loaded.append(given[attribute])


def target_of(site, page, link):
    "The file that a link of a page names, None where it is not there."
    path = unquote(urlsplit(link).path)
    if not path: return page
    target = Path(os.path.normpath(site / path.lstrip("/") if path.startswith("/") else page.parent / path))
    if target.is_dir(): target /= "index.html"
    return target if target.is_file() else None


def read_page(file): return Page(file.read_text(encoding="utf-8"))


def check_site(site):
    "Count pages and links, and say which lead nowhere or to another host."
    site = site.resolve()
    files = sorted(p for p in site.rglob("*.html") if "_static" not in p.parts)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("fork")) as pool:
        parsed = dict(zip(files, pool.map(read_page, files, chunksize=8)))
    faults, count, find_target = [], 0, cache(partial(target_of, site))
    for page, seen in parsed.items():
        name = page.relative_to(site)
        for link in [*seen.links, *seen.loaded]:
            count += 1
            parts = urlsplit(link)
            if parts.scheme in ("http", "https") or parts.netloc:
                if link in seen.loaded: faults.append(f"{name} loads {link}")
                continue
            if parts.scheme in ("data", "mailto", "javascript"): continue
            target, place = find_target(page, link), unquote(parts.fragment)
            if not target: faults.append(f"{name} links to {link}, which is not there")
            elif place and target in parsed and place not in parsed[target].anchors: faults.append(f"{name} links to {link}, which has no such place")
    for style in sorted(site.rglob("*.css")):
        text = style.read_text(encoding="utf-8", errors="replace")
        faults += [f"{style.relative_to(site)} loads {other}" for other in ELSEWHERE.findall(text)]
    return Found(len(parsed), count, faults)


if __name__ == "__main__":
    import sys
    found = check_site(Path(sys.argv[1]))
    print(*found.faults, f"{found.pages} pages, {found.links} links, {len(found.faults)} faults", sep="\n")
    sys.exit(bool(found.faults))
