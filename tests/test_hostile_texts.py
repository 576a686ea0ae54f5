"""What others wrote stays text: a hostile batch goes through all that writes HTML, Markdown, figures and logs; what comes out is read as a browser does."""
import ast
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser
import io
import json
import re
from xml.etree import ElementTree

from conftest import ROOT
from hostile import EVIL, MARK, NETWORK, hostile_batch
from IPython.core.interactiveshell import InteractiveShell
from markdown_it import MarkdownIt
import matplotlib
from matplotlib.mathtext import MathTextParser
import matplotlib.pyplot as plt
import mistune
import pandas as pd
import pytest
import yaml

from aml_miner.batches.loader import BatchDataLoader
from aml_miner.evaluation.plots import plot_importance
from aml_miner.exploration import overview_plots
from aml_miner.exploration.cluster_graph import cluster_title, plot_clusters
from aml_miner.exploration.explore import explore
from aml_miner.models.model_card import _SECTIONS
from aml_miner.scoring import compare, queue_page
from aml_miner.scoring.score_batch import main as score_main, score_batch
from aml_miner.training.train_cluster_scorer import main as train_clusters
from aml_miner.training.train_ranker import main as train_ranker
from aml_miner.training.train_scorer import main as train_scorer
from aml_miner.utils import page as notebook_page
from aml_miner.utils.markup import short_text, visible
from aml_miner.utils.page import frame_html, styler_html
from aml_miner.utils.progress import Bar

TRAINERS = {"alert_scorer": train_scorer, "alert_ranker": train_ranker, "cluster_scorer": train_clusters}
QUICK = ("training: {cv_folds: 2, bootstrap_samples: 5, early_stopping_rounds: 3, num_threads: 1}\nfeature_engineering: {min_category_rows: 1}\n"
         + "".join(f"{name}: {{boosting: {{n_estimators: 5, min_child_samples: 2}}}}\n" for name in TRAINERS))
SCRIPTS = {re.sub("</?script>", "", module._SCRIPT) for module in (notebook_page, queue_page)}
TABLE = {"table", "caption", "thead", "tbody", "tr", "th", "td"}
OURS = {*TABLE, "div", "details", "summary", "style", "script", "input", "button", "br", "span", "progress"}  # elements of the project's HTML
CARD = {*TABLE, "h1", "h2", "h3", "p", "ul", "li", "strong", "em", "code", "pre"}  # elements of Markdown that the project writes
ATTRIBUTES = {"class", "id", "style", "title", "type", "placeholder", "aria-label", "data-v", "data-h", "value", "max", "colspan", "scope"}


class Reader(HTMLParser):
    "What a browser would make of a page."
    def __init__(self, html, elements, links=()):
        super().__init__()
        self.open, self.elements, self.links, self.tables, self.headings, self.words = [], elements, links, [], [], []
        self.feed(html)
        self.close()
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        assert tag in self.elements or tag == "a" and [*dict(attrs)] == ["href"] and dict(attrs)["href"] in self.links, f"an element from data: {tag} {attrs}"
        if tag != "a": assert {name for name, _ in attrs} <= ATTRIBUTES, f"an attribute from data: {tag} {attrs}"
        assert all(MARK not in (value or "") for name, value in attrs if name not in ("data-v", "aria-label")), attrs
        if tag == "table": self.tables.append([])
        if tag == "tr": self.tables[-1].append([])
        if tag in ("td", "th"): self.tables[-1][-1].append("")
        if tag in ("h1", "h2", "h3"): self.headings.append("")
        if tag not in ("br", "input"): self.open.append(tag)
        if tag == "br": self.handle_data("\n")

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"closed by data: {tag}"

    def handle_comment(self, data): raise AssertionError(f"a comment from data: {data}")
    handle_decl = handle_pi = unknown_decl = handle_comment

    def handle_data(self, data):
        if self.open and self.open[-1] == "script": assert data in SCRIPTS; return
        if self.open and self.open[-1] == "style": assert MARK not in data; return
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", data), repr(data)
        if {"td", "th"} & {*self.open}: self.tables[-1][-1][-1] += data
        if {"h1", "h2", "h3"} & {*self.open}: self.headings[-1] += data
        self.words.append(data)


def read(html, elements=OURS, links=()):
    "A page that holds together: every element is closed, every row of a table has as many cells as its head."
    reader = Reader(html, elements, links)
    assert not reader.open
    for table in reader.tables: assert len({*map(len, table)}) <= 1, [len(row) for row in table]
    return reader


def rendered(markdown):
    "Two readers of Markdown with all that they can make of it."
    full = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    plugins = ["table", "strikethrough", "url", "math", "footnotes", "task_lists", "def_list", "mark", "superscript"]
    return [full.render(markdown), mistune.create_markdown(escape=False, plugins=plugins)(markdown)]


def read_markdown(markdown, links=()):
    for block in re.findall(r"(?:^\|.*\|\n?)+", markdown, flags=re.M):  # the readers would fill up or cut short rows
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.strip().splitlines()}) == 1, block
    readers = [read(re.sub(r' style="text-align: ?\w+;?"', "", html), CARD, links) for html in rendered(markdown)]
    assert readers[0].headings == readers[1].headings
    return readers


def plain(text): return " ".join(re.sub(r"\\[nt]", " ", visible(text)).split())  # some readers show ends of lines as such, some as \\n


def says(reader, texts):
    "Every text stands there as it is."
    words = plain(reader.text)
    for text in texts: assert plain(text) in words, (text, words[:2000])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "The hostile batches, the models trained on them, and what was said meanwhile."
    folder, said, printed = tmp_path_factory.mktemp("hostile"), io.StringIO(), io.StringIO()
    for i in range(5): hostile_batch(folder / "days" / f"2025-09-0{i + 1}", f"2025-09-0{i + 1}", i)
    outcomes, customers = [0, 1] * len(EVIL), [f"{e}{MARK}" for e in EVIL] * 2
    pd.DataFrame({"outcome": outcomes, "customer": customers, "rule": EVIL[::-1] * 2, **{e: 1 for e in EVIL[:5]}}).to_parquet(folder / "flat.parquet")
    (folder / "columns.yaml").write_text("label: outcome\naddress: customer\ntypology: rule\n")
    (folder / "quick.yaml").write_text(QUICK)
    common = ["--data-dir", str(folder / "days"), "--config", str(folder / "quick.yaml")]
    with redirect_stderr(said), redirect_stdout(printed):
        codes = [main([*common, "--output", str(folder / "models" / f"{name}.txt")]) for name, main in TRAINERS.items()]
        codes.append(score_main(["--batch-dir", str(folder / "days"), "--models-dir", str(folder / "models"), "--output-dir", str(folder / "scores")]))
        codes.append(compare.main([*common, "--models", str(folder / "models"), "--output", str(folder / "compared.json")]))
    assert codes == [0] * 5, said.getvalue()[-2000:]
    return folder, said.getvalue(), printed.getvalue()


@pytest.fixture(scope="module")
def scores(made): return score_batch(made[0] / "days" / "2025-09-05", made[0] / "models", made[0] / "again", history_from=made[0] / "days")[0]


@pytest.fixture
def drawn(monkeypatch):
    "Formulas that matplotlib was asked to set."
    formulas, parse = [], MathTextParser.parse
    monkeypatch.setattr(MathTextParser, "parse", lambda self, s, *args, **kwargs: formulas.append(s) or parse(self, s, *args, **kwargs))
    yield formulas
    plt.close("all")
    assert not [f for f in formulas if MARK in f or "href" in f]


@pytest.mark.parametrize("name", TRAINERS)
def test_cards(made, name):
    card, report = (made[0] / "models" / f"{name}.md").read_text(), json.loads((made[0] / "models" / f"{name}.json").read_text())
    parts = [*(report["test"].get("by_typology") or {}), NETWORK, *(f["description"] for g in report["feature_groups"] for f in g["features"])]
    if name == "alert_scorer": assert sum(MARK in part for part in parts) > 60
    for reader in read_markdown(card):
        says(reader, parts)
        assert [h for h in reader.headings if h in dict(_SECTIONS)] == [*dict(_SECTIONS)] and not [h for h in reader.headings if MARK in h]
    assert yaml.safe_load(re.search(r"```yaml\n(.*?)\n```", card, re.S)[1]) == report["config"]


def test_queue(scores):
    queue = queue_page.queue_rows(scores)
    queue["reasons"] = [tuple(f"▲ {e}{MARK}" for e in EVIL[i::3]) for i in range(len(queue))]
    for rows, kind in ((queue, "typology_type"), (queue_page.cluster_rows(scores), "cluster_type")):
        reader = read(queue_page.queue_html(rows))
        (head, *lines), = reader.tables
        assert len(lines) == len(rows) > 3
        for line, row in zip(lines, rows.to_dict("records")):
            key, below = ("alert_id", "address") if "alert_id" in row else ("cluster_id", "primary_address")
            assert (line[1], line[2]) == (f"{visible(row[key])}\n{visible(row[below])}", visible(row[kind]))
            if "reasons" in row: assert line[head.index("why")] == "\n".join(map(visible, row["reasons"]))


def test_tables(made):
    columns = ["alert_id", "address", "typology_type", "description", "evidence_json", "risk_indicators", "volume_usd", "ground_truth"]
    alerts = pd.concat([b.alerts for b in BatchDataLoader(made[0] / "days")], ignore_index=True)[columns]
    texts = alerts[["alert_id", "typology_type"]]
    for html in (frame_html(texts, 1000), styler_html(texts.style.hide(axis="index"))):
        (head, *lines), = read(html).tables
        assert [[*map(plain, line)] for line in lines] == [[*map(plain, row)] for row in texts.itertuples(index=False)]
    frames = (
        alerts,
        alerts.head(0),
        alerts.set_index(["address", "typology_type"]),
        alerts.set_index("alert_id").rename_axis(EVIL[0], axis=1),
        alerts.groupby(["typology_type", "address"]).volume_usd.agg(["sum", "size"]),
        alerts.pivot_table(index="address", columns=["typology_type"], values="volume_usd", aggfunc="sum"),
        alerts.astype({"typology_type": "category"}),
        alerts[["risk_indicators"]].set_axis([EVIL[1]], axis=1),
        pd.DataFrame({"t": [(e,) for e in EVIL], "d": [{e: e} for e in EVIL], "s": [{e} for e in EVIL]}),
    )
    for frame in frames:
        styled = (frame.style.set_caption(EVIL[3]), frame.style.format(precision=1, na_rep="-").set_caption((EVIL[0], EVIL[1])))
        for html in (frame_html(frame), *map(styler_html, styled)):
            reader = read(re.sub(r"<tr>\s*<th></th>\s*(<th[^>]*>[^<]*</th>\s*)*</tr>", "", html))  # pandas' row of index names is shorter
            if len(frame) > 3: assert MARK in reader.text or frame.columns[0] == "t"


FIGURE_ELEMENTS = {
    "svg", "metadata", "RDF", "Work", "type", "date", "format", "creator", "Agent", "title", "defs", "style", "g", "path", "use", "text", "tspan",
    "clipPath", "rect", "pattern",
}


@pytest.mark.filterwarnings("ignore:Glyph")
def test_figures(made, drawn, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")
    found = explore(made[0] / "days")
    graphs = found["graphs"]
    figures = [overview_plots.plot_kinds(found["typologies"], overview_plots.kind_title(found["typologies"], "typologies")),
               overview_plots.plot_drift_bars(found["drift"]["features"].dropna(subset="psi"), .1, f"{EVIL[24]}{MARK}"),
               plot_clusters(graphs["drawn"], [cluster_title(c, *g) for c, g in zip(graphs["clusters"].to_dict("records"), graphs["drawn"])], EVIL[24])[0],
               plot_importance([f"{e}{MARK}" for e in EVIL], [.1] * len(EVIL), [.1] * len(EVIL), f"{EVIL[23]}{MARK} moves most"),
               queue_page.plot_score_shift([.1], [.2, .3], f"{EVIL[23]}{MARK}")]
    for ax in figures:
        file = io.BytesIO()
        ax.figure.savefig(file, format="svg")
        tree = ElementTree.fromstring(file.getvalue())   # fails on characters that XML does not know
        assert {e.tag.rpartition("}")[2] for e in tree.iter()} <= FIGURE_ELEMENTS
    words = " ".join(tree_text for ax in figures[:1] for tree_text in [t.get_text().replace(r"\$", "$") for t in ax.get_yticklabels()])
    assert all(short_text(name.replace("_", " ")) in words for name in found["typologies"].index[:20])


def test_logs_and_what_is_printed(made):
    _, said, printed = made
    for line in said.splitlines(): assert re.match(r"\d\d:\d\d:\d\d [A-Z]+ +|  ", line), line
    assert not [line for line in said.splitlines() if line.startswith("12:00:00 INFO    all is well")]
    for text in (said, printed): assert MARK in text and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]", text)


def run_section(notebook, parameters):
    "What a numbered notebook shows from `## Run` on, in this process: its imports and functions, the parameters, then the run."
    shell = pytest.importorskip("execnb.shell", reason="execnb runs the cells").CaptureShell(mpl_format="png")
    cells = json.loads((ROOT / "nbs" / notebook).read_text())["cells"]
    sources = ["".join(c["source"]) for c in cells]
    start = next(i for i, s in enumerate(sources) if s == "## Run" or s.startswith("## Run\n"))
    keep = lambda node, source: isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef)) or "#| export" in source and not isinstance(node, ast.If)
    kept = lambda source: "\n".join(ast.unparse(node) for node in ast.parse(source).body if keep(node, source))
    early = [kept(s) for c, s in zip(cells[:start], sources) if c["cell_type"] == "code" and "default_exp" not in s]
    injected = "\n" + "\n".join(f"{k} = {v!r}" for k, v in parameters.items())
    tagged = [s + injected if "parameters" in c["metadata"].get("tags", []) else s for c, s in zip(cells, sources)]
    late = [s for c, s in zip(cells[start:], tagged[start:]) if c["cell_type"] == "code"]
    for source in [*early, "setup_page(); known = names_before(globals())"]:
        done = shell._run(source)
        assert done.exception is None, (notebook, source, done.exception)
    for source in late:
        done = shell._run(source)
        assert done.exception is None, (notebook, source, done.exception)
        shows = [o.data for o in done.display_objects] + ([shell.display_formatter.format(done.result.result)[0]] if done.result.result is not None else [])
        yield from shows
    plt.close("all")


@pytest.fixture
def page_shell():
    backend = matplotlib.get_backend()
    yield
    InteractiveShell.clear_instance()
    InteractiveShell._instance = None
    plt.switch_backend(backend)


def pages(folder):
    days, models, config = f"{folder}/days", f"{folder}/models", f"{folder}/quick.yaml"
    flat = {"source": "alerts", "input_path": f"{folder}/flat.parquet", "columns": f"{folder}/columns.yaml"}
    return {
        "00_explore_batches.ipynb": {"data_dir": days, "out_dir": f"{folder}/explored"},
        "05_score_batch.ipynb": {"batch_dir": days, "models_dir": models, "output_dir": f"{folder}/page"},
        "06_evaluate_models.ipynb": {"models": [models], "data_dir": days, "output": f"{folder}/page.json", "config": config},
        "07_convert_transactions.ipynb": flat | {"output": f"{folder}/converted"},
        "08_follow_the_money.ipynb": {"data_dir": days, "out_dir": f"{folder}/money", "config": config, "cv_folds": 2, "label_delay_days": 1},
    }


@pytest.mark.parametrize("notebook", pages(""))
def test_notebooks(made, notebook, drawn, page_shell):
    links, kinds, marked = {p.name for p in (ROOT / "nbs").glob("*.ipynb")}, {}, 0
    for show in run_section(notebook, pages(made[0])[notebook]):
        for kind, content in show.items():
            kinds[kind] = kinds.get(kind, 0) + 1
            if kind == "text/html": marked += MARK in read(re.sub(r"<tr>\s*<th></th>\s*(<th[^>]*>[^<]*</th>\s*)*</tr>", "", content)).text
            if kind == "text/markdown": marked += any(MARK in reader.text for reader in read_markdown(content, links))
    assert kinds["text/html"] and kinds["image/png"], kinds
    assert marked or notebook == "07_convert_transactions.ipynb"   # of a flat table's typologies only words are taken


def test_progress_bar():
    for evil in EVIL: says(read(Bar(f"{evil}{MARK}", 3)._repr_html_()), [f"{evil}{MARK}"])


def test_text_becomes_html_in_one_place():
    "Whoever needs another escape has missed the place."
    for path in sorted((ROOT / "aml_miner").rglob("*.py")):
        if path.name != "markup.py": assert not re.search(r"^\s*(?:from|import) (?:html|markupsafe|xml)\b", path.read_text(), re.M), path
