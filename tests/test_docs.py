"""The pages of the docs: commands and parameters that they show exist, links are really followed, a page's cache knows what it rests on."""
from base64 import b64decode
import re
import shlex
import struct
import sys

from conftest import ROOT, run_module
import matplotlib.pyplot as plt
import pytest

sys.path.insert(0, str(ROOT / "nbs" / "_docs"))
execute, links, pages = (pytest.importorskip(name, reason="the packages of the extra `docs` are not installed") for name in ("execute", "links", "pages"))
import about  # noqa: E402
import dictionary  # noqa: E402
import phone  # noqa: E402
import reference  # noqa: E402

PAGES = sorted((ROOT / "nbs" / "_docs" / "pages").rglob("*.md"))
BLOCKS = [block for p in PAGES for block in re.findall(r"```text\n(.*?)```", p.read_text(encoding="utf-8"), flags=re.S)]
LINES = sorted({line.strip() for block in BLOCKS for line in block.splitlines()})
IN_LINE = {found for p in PAGES for found in re.findall(r"`(aml-miner [^`\n]+)`", p.read_text(encoding="utf-8"))}
COMMANDS = [*(line for line in LINES if line.startswith(("python -m aml_miner", "aml-miner"))), *sorted(IN_LINE - {*LINES})]
RUNS = [line[line.index("papermill nbs"):] for line in LINES if "papermill nbs" in line]


@pytest.fixture(scope="module")
def options():
    "The options of every command, as it is typed."
    typed = {**reference.tree_commands(), **{name: function for function, name in reference.module_commands().items()}}
    return {name: reference.option_names(function) for name, function in typed.items()}


def test_pages_show_commands():
    assert len(COMMANDS) > 10 and len(RUNS) > 5


@pytest.mark.parametrize("command", COMMANDS)
def test_options_that_are_shown_exist(command, options):
    words = shlex.split(command)
    typed = max((name for name in options if words[:len(name.split())] == name.split()), key=len)
    assert {w for w in words if w.startswith("--")} <= options[typed]


@pytest.mark.parametrize("command", RUNS)
def test_parameters_that_are_shown_exist(command):
    papermill = pytest.importorskip("papermill")
    words = shlex.split(command.replace('"$(date', "'$(date"[1:]) if command.count('"') % 2 else command)
    known = set(papermill.inspect_notebook(str(ROOT / words[1])))
    given = {words[i + 1] for i, w in enumerate(words) if w == "-p"} | {words[i + 1].split(":")[0] for i, w in enumerate(words) if w == "-y"}
    assert given <= known


def test_every_page_is_reachable():
    "A page that no list names would be built and never found."
    listed = {p.relative_to(ROOT / "nbs" / "_docs" / "pages").with_suffix("").as_posix() for p in PAGES}
    listed |= {*dictionary.written_pages(), *about.written_pages()}
    named = {"index"}
    for p in PAGES:
        for block in re.findall(r"```\{toctree\}\n(.*?)```", p.read_text(encoding="utf-8"), flags=re.S):
            here = p.parent.relative_to(ROOT / "nbs" / "_docs" / "pages")
            named |= {(here / w).as_posix() for w in block.split() if not w.startswith(":")}
    assert listed <= named


def test_links_are_followed(tmp_path):
    links_of_page = "".join(f'<a href="{to}">x</a>' for to in ("b.html#there", "b.html#gone", "c.html"))
    (tmp_path / "a.html").write_text(f'{links_of_page}<script src="https://cdn.example/x.js"></script><img src="p.png"><h1 id="t">')
    (tmp_path / "b.html").write_text('<h2 id="there">x</h2><a href="https://example.org">another host may be linked to, not loaded</a>')
    (tmp_path / "s.css").write_text("@import url('//fonts.example/f.css');")
    found = links.check_site(tmp_path)
    assert (found.pages, found.links) == (2, 6)
    assert sorted(f.partition(" ")[2] for f in found.faults) == [
        "links to b.html#gone, which has no such place", "links to c.html, which is not there", "links to p.png, which is not there",
        "loads //fonts.example/f.css", "loads https://cdn.example/x.js"]


def notebook(*sources):
    return {"cells": [{"cell_type": "code", "id": str(i), "metadata": {}, "source": s} for i, s in enumerate(sources)]}


def test_cache_key_follows_imports(monkeypatch):
    "A key changes with a module that is imported by a module that is imported, and not with a text cell."
    nb = notebook("from aml_miner.evaluation.summary import ranking_summary")
    files = execute.package_files("".join(c["source"] for c in nb["cells"]))
    assert ROOT / "aml_miner" / "evaluation" / "metrics.py" in files and ROOT / "aml_miner" / "training" / "train_ranker.py" not in files
    file, words = execute.cache_file(nb), {"cell_type": "markdown", "id": "m", "metadata": {}, "source": "words"}
    assert file == execute.cache_file(nb | {"cells": [*nb["cells"], words]})
    others = [execute.cache_file(nb, {"trials": 5}), execute.cache_file(notebook("from aml_miner.evaluation.metrics import ndcg_at_k"))]
    monkeypatch.setattr(execute, "data_digest", lambda: "other data")
    assert len({file, execute.cache_file(nb), *others}) == 4


KEPT = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
import counted_notebooks
counted_notebooks.execute.cache_file.__defaults__ = (None, Path(sys.argv.pop()))
counted_notebooks.test.CaptureShell = counted_notebooks.CountedShell
counted_notebooks.test.nbdev_test()
"""


def test_what_nbdev_test_ran_is_kept_for_the_site(tmp_path):
    "Under the name by which the site looks for it."
    script, folder = tmp_path / "kept.py", tmp_path / "cache"
    script.write_text(KEPT)  # nbdev's commands read arguments only in a file of their own
    done = run_module(script, "--path", "nbs/utils/words.ipynb", folder)
    assert done.returncode == 0, done.stderr
    filled, ran = execute.execute_all({"utils/words": execute.read_notebook(ROOT / "nbs" / "utils" / "words.ipynb")}, folder)
    assert ran == [] and any(c.get("outputs") for c in filled["utils/words"]["cells"])


def test_pages_become_notebooks():
    nb = pages.notebook_of("# A\n\n```{code-cell} ipython3\n:tags: [remove-input]\nx = 1\n```\n\nwords\n")
    cells = [(c["cell_type"], c["source"], c["metadata"]) for c in nb["cells"]]
    assert cells == [("markdown", "# A\n", {}), ("code", "x = 1", {"tags": ["remove-input"]}), ("markdown", "words\n", {})]


def test_signature_says_what_the_comments_say():
    said = pages.entries('def f(\n    a: int,  # rows | columns\n    b: str = "x",\n) -> dict:  # by *name*\n    "Does it."\n', "aml_miner.m")
    assert ":::{py:function} f(a: int, b: str='x') -> dict\n:module: aml_miner.m" in said
    assert "| `a` | `int` | rows \\| columns |" in said and "| *returns* | `dict` | by \\*name\\* |" in said and "| `b` | `str` default `'x'` |  |" in said


RUN_BOTH_WAYS = """
import sys
from pathlib import Path
sys.path.insert(0, "nbs/_docs")
import execute
folder, kernel = Path(sys.argv[1]), {"name": "python3", "display_name": "p", "language": "python"}
def cell(source, i, **metadata): return {"cell_type": "code", "id": f"c{i}", "metadata": metadata, "source": source, "outputs": [], "execution_count": None}
def notebook(*cells): return {"cells": list(cells), "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
draw = "import matplotlib.pyplot as plt\\nplt.plot([1, 2])\\nplt.title('Rises')\\nplt.show()"
parameters, figure = cell("x: int = 1", 0, tags=["parameters"]), cell("from aml_miner.utils.page import setup_page\\nsetup_page()\\n" + draw, 1)
notebooks = {"00_x": notebook(parameters, figure), "rooms/plain": notebook(figure, cell("#| eval: false\\n1 / 0", 2))}
execute.PARAMETERS["00_x"] = {"x": 7}
notebooks["00_x"]["cells"].append(cell("print(x)", 3))
for n in (2, 0):
    filled, ran = execute.execute_all(notebooks, folder, workers=1)
    print("ran", len(ran), [[sorted(o["data"]) if "data" in o else "".join(o["text"]) for o in c["outputs"]] for nb in filled.values() for c in nb["cells"]])
texts = [o["metadata"]["image/png"]["alt"] for nb in filled.values() for c in nb["cells"] for o in c["outputs"] if "image/png" in o.get("data", {})]
print("told", len(texts), {text[:14] for text in texts})
for name in ("00_x", "rooms/plain"):
    try: execute.execute_all({name: notebook(parameters, cell("1 / 0", 3))}, folder, workers=1)
    except SystemExit as end: print("refused", name in str(end) and "ZeroDivisionError" in str(end))
"""


def test_notebooks_are_run_once_in_kernels_and_in_shells(tmp_path):
    "Figures and parameters arrive in both; what is kept is not run again; what fails is named."
    done = run_module("-c", RUN_BOTH_WAYS, tmp_path)
    figure = "[['image/png', 'image/png;width=phone', 'text/plain']]"
    outputs = f"[[], {figure}, ['7\\n'], {figure}, []]"
    lines = [line for line in done.stdout.splitlines() if not line.startswith("executed")]
    assert lines == [f"ran 2 {outputs}", f"ran 0 {outputs}", "told 2 {'Rises. Across:'}", "refused True", "refused True"], done.stdout + done.stderr


def test_a_phone_has_a_figure_of_its_own():
    "Panels below each other, legends below the axes, long names on several lines; the figure itself stays as it is."
    figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
    for ax in axes: ax.plot([0, 1], label="one"); ax.set_title("A title that is longer than a line of a phone by far, and still has to be read", loc="left")
    axes[0].legend(loc="center left", bbox_to_anchor=(1, .5))
    axes[0].set_yticks([0, 1], ["a_name_that_is_much_too_long_for_a_phone", "b"])
    drawn = []
    keep = phone.Figure.savefig
    try:
        phone.Figure.savefig = lambda figure, *args, **how: (drawn.append(figure), keep(figure, *args, **how))
        width, height = struct.unpack(">II", b64decode(phone.draw_for_phone(figure))[16:24])
    finally: phone.Figure.savefig = keep
    assert height > 1.5 * width and width < 1.15 * phone.WIDTH * phone.DPI
    narrow, = drawn
    tops = [ax.get_position().y1 for ax in narrow.axes]
    assert tops == sorted(tops, reverse=True) and tops[1] < narrow.axes[0].get_position().y0  # one below the other
    assert len(narrow.legends) == 1 and narrow.axes[0].get_legend() is None
    assert "a_name_that_is_much_\ntoo_long_for_a_phone" in [tick.get_text() for tick in narrow.axes[0].get_yticklabels()]
    assert max(len(line) for ax in narrow.axes for line in ax.get_title(loc="left").splitlines()) <= phone.TITLE
    assert (figure.get_figwidth(), len(figure.legends), axes[0].get_legend() is None) == (9, 0, False)
    assert plt.get_fignums() == [figure.number]
    plt.close()
    assert phone.draw_for_phone(phone.Figure(figsize=(3, 2))) is None


def test_report_keys_are_all_explained_and_all_there(monkeypatch):
    "A key that no report has is refused, unless it is marked as one that only some settings give."
    lines = reference.report_lines()
    assert "cv_scores" in reference.reports_page()
    def with_row(*row): monkeypatch.setattr(reference, "report_lines", lambda: [*lines, ("More", [row])])
    with_row("no_such_key", "nothing", True)
    assert "`no_such_key`" in reference.reports_page()
    with_row("no_such_key", "nothing", False)
    with pytest.raises(SystemExit, match="explains no_such_key, which no report has"): reference.reports_page()
    monkeypatch.setattr(reference, "report_lines", lambda: lines[1:])
    with pytest.raises(SystemExit, match="does not explain: "): reference.reports_page()


def test_builder_has_help():
    done = run_module("nbs/_docs/build.py", "--help")
    assert done.returncode == 0 and "--serve" in done.stdout


def rows_of(page):
    "The names in the first column of the tables of a page."
    return re.findall(r"^\| `([^`]+)` \|", page, flags=re.M)


@pytest.mark.parametrize("model", dictionary.MODELS.values())
def test_every_feature_of_a_model_has_one_row(model):
    "With unit and meaning, and the letter of the model."
    page = dictionary.cluster_features_page() if model == "cluster_scorer" else dictionary.features_page()
    letter = next(x for x, name in dictionary.MODELS.items() if name == model)
    rows = {row.split("`")[1]: row for row in re.findall(r"^\| `.*$", page, flags=re.M)}
    names, used = rows_of(page), [f["name"] for group in dictionary.report_of(model)["feature_groups"] for f in group["features"]]
    assert len({*names}) == len(names) and used
    assert {*used} == {name for name, row in rows.items() if re.search(rf" \| (\w )*{letter}( \w)* \|$", row)}


def test_dictionary_holds_every_group_and_says_what_it_is(monkeypatch):
    definitions = dictionary.alert_definitions()
    assert {f.group for f in definitions} == {*dictionary.GROUPS} and all(f.unit and f.description for f in (*definitions, *dictionary.cluster_definitions()))
    page = dictionary.features_page()
    assert re.findall(r"^## (\w+)$", page, flags=re.M) == [*dictionary.GROUPS]
    assert "\n| `walk_hops_illicit` | steps | earlier batches | Known cases near it | " in page
    monkeypatch.delitem(dictionary.FAMILIES, "walk")
    with pytest.raises(SystemExit, match="says nothing of the groups walk"): dictionary.features_page()


def test_every_column_of_a_batch_and_of_scores_is_explained(monkeypatch):
    from aml_miner.batches.schema import TABLES
    from aml_miner.scoring.batch_scores import SCHEMAS
    from aml_miner.batches.outcome_events import EVENT_COLUMNS
    from aml_miner.scoring.queue_file import QUEUE_COLUMNS
    columns = {t.name: t.names() for t in TABLES.values()} | {name: schema.names for name, schema in SCHEMAS.items()}
    columns |= {"queue": [*QUEUE_COLUMNS], "outcomes": EVENT_COLUMNS}
    assert {*dictionary.column_lines()} == {*columns}
    for name, names in columns.items(): assert all(dictionary.column_meanings(name, names).values())
    with pytest.raises(SystemExit, match="does not explain: alerts.mood"): dictionary.column_meanings("alerts", [*columns["alerts"], "mood"])
    with pytest.raises(SystemExit, match="no column: alerts.ground_truth"): dictionary.column_meanings("alerts", columns["alerts"][:-1])


def test_costs_are_those_that_the_benchmarks_printed(monkeypatch):
    page = about.cost_page()
    lines = (("features", r"^\| 10,000,000 flows.*$", -1), ("convert", r"^convert.*$", 1), ("monitoring", r"^ +400,000.*$", 1), ("scoring", r"^ +500.*$", 2))
    for text, at, number in lines:
        line = re.search(at, about.kept(text), flags=re.M)[0]
        assert f"| {re.findall(r'[0-9][0-9.,]*', line)[number]} |" in page, line
    monkeypatch.setattr(about, "kept", lambda name: "another table")
    with pytest.raises(SystemExit, match="finds no line like"): about.cost_page()


def test_licenses_are_told_of_all_that_is_needed(monkeypatch):
    needed = {name.lower() for name in about.needed()}
    assert {"lightgbm", "pandas", "threadpoolctl"} <= needed and not needed & {"pytest", "sphinx"}  # the last one of three is what another one needs
    monkeypatch.setattr(about, "license_of", lambda distribution: "GPL-3.0")
    with pytest.raises(SystemExit, match="the license of .* is GPL-3.0"): about.license_page()


def test_changelog_tells_of_this_version(monkeypatch):
    assert about.versions_listed()[0] == about.settings()["version"]
    kinds = re.findall(r"^### (.*)$", about.changelog(), flags=re.M)
    assert {*kinds} <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    monkeypatch.setattr(about, "changelog", lambda: "## [0.0.9] - 2025-01-01")
    with pytest.raises(SystemExit, match="says nothing of version"): about.changelog_page()


def test_symptoms_are_what_the_code_says():
    said = re.findall(r'^\*\*"([^"]+)"\.\*\*', (ROOT / "nbs" / "_docs" / "pages" / "howto" / "faq.md").read_text(encoding="utf-8"), flags=re.M)
    code = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "aml_miner").rglob("*.py"))
    assert len(said) > 20 and not [text for text in said if text not in code]


@pytest.mark.parametrize("word, page", [
    ("CSV", "tutorials/which_start"), ("deploy", "howto/deploy"), ("docker", "howto/deploy"), ("API", "howto/service"),
    ("cost", "explanations/cost"), ("license", "explanations/license")])
def test_what_is_searched_for_first_has_an_entry(word, page):
    file = ROOT / "nbs" / "_docs" / "pages" / f"{page}.md"
    text = file.read_text(encoding="utf-8") if file.is_file() else about.written_pages()[page]
    assert f"! {word}" in re.search(r"^```\{index\} (.*)$", text, flags=re.M)[1].split(", ")
