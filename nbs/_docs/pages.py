"""Notebooks with outputs, as Sphinx is to show them: no test plumbing, signatures for sources, local plotly, logs folded."""
import ast
import copy
import html
import json
import re

from markdown_it import MarkdownIt

from api import entries
from execute import PARAMETERS, directives, source_of
import phone

from aml_miner.utils.words import plural

RAW = {"text/html", "text/markdown", "text/latex", "image/png", "image/svg+xml", "text/plain"}
DRAWN = re.compile(r"<(Axes|Figure|matplotlib)|\[<matplotlib|Text\(")  # what a cell that draws gives back beside its picture
TABLES = MarkdownIt("commonmark").enable("table")
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
HERE_ONLY = re.compile(r"(?<![\w.])/(?:[\w.-]+/)+(?=[\w.-])")  # folders of the machine that built the site
LOGGED = re.compile(r"\d\d:\d\d:\d\d (?:DEBUG|INFO|WARNING|ERROR) ")
NUMBER = re.compile(r"\s*[-+−]?[\d.,]*\d(?:e[-+]?\d+)?\s*%?\s*")
UNKNOWN = {"", "NaN", "nan", "None", "–", "&lt;NA&gt;"}
TABLE, ROW, CELLS = re.compile(r"<table\b.*?</table>", flags=re.S), re.compile(r"<tr\b.*?</tr>", flags=re.S), re.compile(r"<td\b[^>]*>(.*?)</td>", flags=re.S)
INTERVAL = re.compile(r"\[[-+−\d.]+, [-+−\d.]+\]")
LONG, TEXT = re.compile(r"(<td\b)([^>]*>[^<\s]{25,}</td>)"), re.compile(r"(<td\b)([^>]*>[^<]{60,}</td>)")
COLUMNS = re.compile(r"^\S.* {2,}\S+.* {2,}\S", flags=re.M)
NAMELESS = re.compile(r"<th\b[^>]*>(?:\s|&nbsp;)*</th>")  # a heading of nothing
SHORT = re.compile(r"(<td\b)([^>]*>[^<\s]{1,24}</td>)")


def markdown_cell(text, key):
    return {"cell_type": "markdown", "id": key, "metadata": {}, "source": text}


def code_cell(text, key, tags, outputs):
    return {"cell_type": "code", "id": key, "execution_count": None, "metadata": {"tags": tags}, "source": text, "outputs": outputs}


def module_of(nb):
    "The module that a notebook exports, None for a page."
    words = [w for c in nb["cells"] if c["cell_type"] == "code" for w in directives(c) if w.startswith("default_exp ")]
    return f"aml_miner.{words[0].split()[1]}".removesuffix(".__init__") if words else None


def blurb_of(nb):
    "The line below the title."
    found = re.search(r"^> *(.+)$", source_of(nb["cells"][0]), flags=re.M)
    return found[1].strip() if found else ""


def title_of(nb):
    return re.search(r"^# +(.+)$", source_of(nb["cells"][0]), flags=re.M)[1].strip()


def log_html(text):
    "Lines of a log, folded."
    lines = [HERE_ONLY.sub("…/", line) for line in ANSI.sub("", text).replace("\r", "\n").splitlines() if line.strip()]
    return f'<details class="log"><summary>log, {plural(len(lines), "line")}</summary><pre>{html.escape(chr(10).join(lines))}</pre></details>' if lines else ""


def plotly_text(layout):
    "What an interactive figure shows: its title and its axes."
    parts = [layout, *(layout[k] for k in sorted(layout) if re.fullmatch(r"[xy]axis\d*", k) and isinstance(layout[k], dict))]
    titles = [t if isinstance(t := part.get("title") or "", str) else t.get("text") or "" for part in parts]
    return ". ".join([re.sub(r"<[^>]*>", " ", titles[0]) or "Interactive figure", *(re.sub(r"<[^>]*>", " ", t) for t in titles[1:] if t)])


def plotly_html(figure, key):
    "A figure that plotly.js draws when the page has loaded; the data lie in the page."
    data = json.dumps({"data": figure["data"], "layout": figure["layout"]}).replace("</", "<\\/")
    said = html.escape(plotly_text(figure["layout"]))
    kept = f'<script type="application/json" data-figure="figure-{key}">{data}</script>'
    return f'<div class="plotly-figure" id="figure-{key}" role="figure" aria-label="{said}"></div>{kept}'


def picture_html(data, beside):
    "A figure with its text, and for a narrow screen the one drawn for it. `build.keep_pictures` makes files of both."
    beside, coded = beside.get("image/png", {}), {kind: "".join("".join(data[kind]).split()) for kind in ("image/png", phone.KIND) if kind in data}
    size = f' width="{beside["width"]}" height="{beside["height"]}"' if "width" in beside else ""
    narrow = f'<source media="(max-width: 600px)" srcset="data:image/png;base64,{coded[phone.KIND]} 2x">' if phone.KIND in coded else ""
    return f'<picture class="figure">{narrow}<img src="data:image/png;base64,{coded["image/png"]}" alt="{html.escape(beside.get("alt", ""))}"{size}></picture>'


def shown_html(text):
    "HTML as an output."
    return {"output_type": "display_data", "metadata": {}, "data": {"text/html": text}}


def shown_output(output, key):
    "One output in a form that Sphinx shows."
    text = "".join(output["text"]) if output["output_type"] == "stream" else ""
    if text and output["name"] == "stderr": return shown_html(log) if (log := log_html(text)) else None
    if len(COLUMNS.findall(text)) > 1: return shown_html(f'<div class="scrolls"><pre class="columns">{html.escape(text)}</pre></div>')
    if "data" not in output: return output
    data = output["data"]
    if "application/vnd.plotly.v1+json" in data: return shown_html(plotly_html(data["application/vnd.plotly.v1+json"], key))
    if "image/png" in data: return shown_html(picture_html(data, output["metadata"]))
    data = {k: v for k, v in data.items() if k in RAW}
    if not data or set(data) == {"text/plain"} and DRAWN.match("".join(data["text/plain"])): return None
    if "text/html" in data: data = {"text/html": wrapped_table("".join(data["text/html"]))}
    return output | {"data": data}


def wrapped_table(text):
    "A table may be wider than a phone: it scrolls by itself, not the page. Numbers stand below each other, dates and names stay whole."
    if "<table" not in text: return text
    if "aml-queue" not in text: text = TABLE.sub(marked_table, text)
    return f'<div class="scrolls">{text}</div>'


def marked_table(found):
    "A table of pandas whose cells say what they hold: columns of numbers, and by cell a word, a long word, a text."
    text = INTERVAL.sub(r'<span class="interval">\g<0></span>', found[0])
    for kind, words in (("short", SHORT), ("long", LONG), ("text", TEXT)): text = words.sub(rf'\1 data-{kind}=""\2', text)
    rows = [CELLS.findall(row) for row in ROW.findall(text)]
    rows = [row for row in rows if row]
    columns = [[row[i] for row in rows if i < len(row) and row[i].strip() not in UNKNOWN] for i in range(max(map(len, rows), default=0))]
    numeric = {i for i, cells in enumerate(columns) if cells and all(map(NUMBER.fullmatch, cells))}

    def mark(row):
        at = iter(range(row[0].count("<td")))
        return re.sub(r"<td\b", lambda _: '<td data-number=""' if next(at) in numeric else "<td", row[0])

    text = ROW.sub(mark, text)
    for i in numeric: text = re.sub(rf'<th (?=[^>]*col_heading level0 col{i}")', '<th data-number="" ', text)
    return NAMELESS.sub("<td></td>", text)


def with_tables(output):
    "Markdown that a cell shows, in pieces: its tables as HTML, which Sphinx takes for plain text there."
    if not output or "text/markdown" not in output.get("data", {}): return [output]
    pieces = re.split(r"^((?:\|.*(?:\n|$))+)", "".join(output["data"]["text/markdown"]), flags=re.M)
    shown = [{"text/html": wrapped_table(TABLES.render(piece))} if piece.startswith("|") else {"text/markdown": piece} for piece in pieces if piece.strip()]
    return [{"output_type": "display_data", "metadata": {}, "data": data} for data in shown]


def shown_outputs(cell):
    outputs = [shown_output(o, f"{cell['id']}-{i}") for i, o in enumerate(joined_streams([piece for o in cell["outputs"] for piece in without_log(o)]))]
    return [piece for o in outputs for piece in with_tables(o) if piece]


def without_log(output):
    "What a cell printed, in pieces: its log goes to stderr, where it is folded."
    if output["output_type"] != "stream" or output["name"] != "stdout": return [output]
    lines = ANSI.sub("", "".join(output["text"])).splitlines(keepends=True)
    logged, said = [line for line in lines if LOGGED.match(line)], [line for line in lines if not LOGGED.match(line)]
    return [output | {"name": name, "text": "".join(x)} for name, x in (("stderr", logged), ("stdout", said)) if "".join(x).strip()]


def joined_streams(outputs):
    "Neighbouring pieces of one stream are one."
    joined = []
    for o in outputs:
        o = copy.deepcopy(o)
        if o["output_type"] == "stream": o["text"] = "".join(o["text"])
        last = joined[-1] if joined else None
        if o["output_type"] == "stream" and last and last["output_type"] == "stream" and last["name"] == o["name"]: last["text"] += o["text"]
        else: joined.append(o)
    return joined


def only_imports(text):
    "Whether a cell holds imports and nothing else."
    return all(isinstance(s, (ast.Import, ast.ImportFrom)) for s in ast.parse(text).body)


def heading_level(text):
    "How deep the heading is that some Markdown begins with, 0 without one."
    return len(re.match(r"#*", text)[0])


def without_loose_ends(cells, gaps):
    "Where a hidden cell lay between two texts (gaps: the places of the second), nothing follows a colon, and a heading may stand over nothing."
    kept = []
    for i, cell in enumerate(cells):
        after = cells[i + 1] if i + 1 < len(cells) else markdown_cell("# end", "")
        if i + 1 in gaps and cell["cell_type"] == after["cell_type"] == "markdown":
            text = cell["source"].rstrip()
            if heading_level(text) and "\n" not in text and 0 < heading_level(after["source"]) <= heading_level(text): continue
            cell = cell | {"source": re.sub(r":$", ".", text)}
        kept.append(cell)
    return kept


def page_of(nb, file):
    "The notebook as a page: exported cells become signatures with their source folded, hidden ones go."
    module, cells, gaps = module_of(nb), [], set()
    for i, cell in enumerate(nb["cells"]):
        words = directives(cell) if cell["cell_type"] == "code" else []
        text = "\n".join(line for line in source_of(cell).splitlines() if not line.startswith("#|")).strip("\n")
        if "hide" in words or any(w.startswith("default_exp") for w in words):
            gaps.add(len(cells))
            continue
        if cell["cell_type"] == "markdown":
            cells.append(markdown_cell(opening(text, module) if i == 0 else text, cell["id"]))
            continue
        tags = []
        if "export" in words:
            said = entries(text, module)
            if only_imports(text): continue
            if said: cells.append(markdown_cell(said, f"{cell['id']}-api"))
            tags = ["hide-input", "exported"]
        if "echo: false" in words: tags = ["remove-input"]
        if "parameters" in cell["metadata"].get("tags", []) and file in PARAMETERS:
            given = ", ".join(f"`-p {k} {v}`" for k, v in PARAMETERS[file].items())
            cells.append(markdown_cell(f"For this page it was run with {given}.", f"{cell['id']}-given"))
        cells.append(code_cell(text, cell["id"], tags, shown_outputs(cell)))
    return {"cells": without_loose_ends(cells, gaps), "metadata": nb["metadata"], "nbformat": 4, "nbformat_minor": 5}


def opening(text, module):
    "Title, what the page is about, and the module with its place in the index."
    title, blurb = re.search(r"^# +(.+)$", text, flags=re.M)[1], re.search(r"^> *(.+)$", text, flags=re.M)
    named = f"\n\n```{{py:module}} {module}\n```\n\n`{module}`" if module else ""
    return f"# {title}\n\n{blurb[1] if blurb else ''}{named}\n"


def with_outputs(nb):
    "The notebook for whoever opens it in JupyterLab: as it is in the project, with the outputs of this build."
    nb = copy.deepcopy(nb)
    for cell in nb["cells"]:
        if cell["cell_type"] == "code":
            for o in cell["outputs"]:
                if "data" in o: o["data"] = {k: v for k, v in o["data"].items() if k in RAW | {"application/vnd.plotly.v1+json"}}
    return nb


CELL = re.compile(r"^```\{code-cell\}(?: ipython3| python)?[ \t]*\n((?::[\w-]+:[^\n]*\n)*)(.*?)^```[ \t]*$", flags=re.M | re.S)


def notebook_of(text):
    "A page in Markdown as a notebook: its `{code-cell}` blocks are the code; `:tags: [a, b]` below the opening line."
    cells, at = [], 0
    for found in CELL.finditer(text):
        if text[at:found.start()].strip(): cells.append(markdown_cell(text[at:found.start()].strip() + "\n", f"t{len(cells):04d}"))
        tags = re.findall(r"[\w-]+", (re.search(r":tags:([^\n]*)", found[1]) or ["", ""])[1])
        cells.append(code_cell(found[2].strip("\n"), f"c{len(cells):04d}", tags, []))
        at = found.end()
    if text[at:].strip(): cells.append(markdown_cell(text[at:].strip() + "\n", f"t{len(cells):04d}"))
    kernel = {"display_name": "python3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def text_page(nb):
    "A page from Markdown, with its outputs; cells keep their tags."
    cells = [c if c["cell_type"] == "markdown" else c | {"outputs": shown_outputs(c)} for c in nb["cells"]]
    return nb | {"cells": cells}
