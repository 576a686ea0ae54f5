"""The pages of the docs: commands and parameters that they show exist, links are really followed, a page's cache knows what it rests on."""
import ast
import re
import shlex
import sys

from conftest import ROOT, run_module
import pytest

sys.path.insert(0, str(ROOT / "nbs" / "_docs"))
execute, links, pages = (pytest.importorskip(name, reason="the packages of the extra `docs` are not installed") for name in ("execute", "links", "pages"))
import reference  # noqa: E402

PAGES = sorted((ROOT / "nbs" / "_docs" / "pages").rglob("*.md"))
LINES = sorted({line.strip() for p in PAGES for block in re.findall(r"```text\n(.*?)```", p.read_text(encoding="utf-8"), flags=re.S) for line in block.splitlines()})
COMMANDS = [line for line in LINES if line.startswith("python -m aml_miner")]
RUNS = [line[line.index("papermill nbs"):] for line in LINES if "papermill nbs" in line]


@pytest.fixture(scope="module")
def options():
    "The options of every command, as its parser has them."
    parsers = [reference.parser_of(m) for m in reference.command_modules()]
    return {p.prog.split()[-1]: {o for a in p._actions for o in a.option_strings} for p in parsers}


def test_pages_show_commands():
    assert len(COMMANDS) > 10 and len(RUNS) > 5


@pytest.mark.parametrize("command", COMMANDS)
def test_options_that_are_shown_exist(command, options):
    words = shlex.split(command)
    assert {w for w in words if w.startswith("--")} <= options[words[2]]


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
    named = {"index"}
    for p in PAGES:
        for block in re.findall(r"```\{toctree\}\n(.*?)```", p.read_text(encoding="utf-8"), flags=re.S):
            here = p.parent.relative_to(ROOT / "nbs" / "_docs" / "pages")
            named |= {(here / w).as_posix() for w in block.split() if not w.startswith(":")}
    assert listed <= named


def test_links_are_followed(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#there">x</a><a href="b.html#gone">x</a><a href="c.html">x</a><script src="https://cdn.example/x.js"></script><img src="p.png"><h1 id="t">')
    (tmp_path / "b.html").write_text('<h2 id="there">x</h2><a href="https://example.org">another host may be linked to, not loaded</a>')
    (tmp_path / "s.css").write_text("@import url('//fonts.example/f.css');")
    found = links.check_site(tmp_path)
    assert (found.pages, found.links) == (2, 6)
    assert sorted(f.partition(" ")[2] for f in found.faults) == [
        "links to b.html#gone, which has no such place", "links to c.html, which is not there", "links to p.png, which is not there",
        "loads //fonts.example/f.css", "loads https://cdn.example/x.js"]


def notebook(*sources):
    return {"cells": [{"cell_type": "code", "id": str(i), "metadata": {}, "source": s} for i, s in enumerate(sources)]}


def test_tests_that_show_nothing_are_left_out():
    nb = notebook("x, y = 1, 2", "#| hide\nz = x + 1\nw = 5\ntest_eq(z, 2)", "#| hide\ntest_eq(y, 2)", "test_eq(y, 2)", "print(x)\ntest_eq(x, 1)", "w")
    assert [c["source"] for c in execute.without_silent_tests(nb)["cells"]] == ["x, y = 1, 2", "#| hide\nw = 5", "print(x)\ntest_eq(x, 1)", "w"]


def test_a_function_reads_what_it_does_not_make():
    tree = ast.parse("def f(a, b=c):\n    d = a + e\n    return d")
    assert execute.needed_before(tree, {"f", "g"}) == {"c", "e", "g"}


def test_cache_key_follows_imports(monkeypatch):
    "A key changes with a module that is imported by a module that is imported, and not with a text cell."
    nb = notebook("from aml_miner.evaluation.summary import ranking_summary")
    files = execute.package_files(execute.python_of(nb))
    assert ROOT / "aml_miner" / "evaluation" / "metrics.py" in files and ROOT / "aml_miner" / "training" / "train_ranker.py" not in files
    key = execute.cache_key(nb, "data")
    assert key == execute.cache_key({"cells": [*nb["cells"], {"cell_type": "markdown", "id": "m", "metadata": {}, "source": "words"}]}, "data")
    assert key != execute.cache_key(nb, "other data") and key != execute.cache_key(notebook("from aml_miner.evaluation.metrics import ndcg_at_k"), "data")


def test_pages_become_notebooks():
    nb = pages.notebook_of("# A\n\n```{code-cell} ipython3\n:tags: [remove-input]\nx = 1\n```\n\nwords\n")
    assert [(c["cell_type"], c["source"], c["metadata"]) for c in nb["cells"]] == [("markdown", "# A\n", {}), ("code", "x = 1", {"tags": ["remove-input"]}), ("markdown", "words\n", {})]


def test_signature_says_what_the_comments_say():
    said = pages.entries('def f(\n    a: int,  # rows | columns\n    b: str = "x",\n) -> dict:  # by *name*\n    "Does it."\n', "aml_miner.m")
    assert ":::{py:function} f(a: int, b: str='x') -> dict\n:module: aml_miner.m" in said
    assert "| `a` | `int` | rows \\| columns |" in said and "| *returns* | `dict` | by \\*name\\* |" in said and "| `b` | `str` default `'x'` |  |" in said


WITH_AND_WITHOUT_TESTS = """
import sys
from pathlib import Path
sys.path.insert(0, "nbs/_docs")
import execute
def cell(source, i, **metadata): return {"cell_type": "code", "id": f"c{i}", "metadata": metadata, "source": source, "outputs": [], "execution_count": None}
nb = {"cells": [cell("x: int = 1", 0, tags=["parameters"]), cell("#| hide\\nassert x == 2", 1), cell("print(x)", 2)], "metadata": {"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}}, "nbformat": 4, "nbformat_minor": 5}
execute.preload = lambda: None
folder = Path(sys.argv[1])
for n in (1, 0):
    filled, ran = execute.execute_all({"00_x": nb}, folder)
    assert len(ran) == n and filled["00_x"]["cells"][2]["outputs"][0]["text"] in ("1\\n", ["1\\n"]), filled
try: execute.execute_all({"00_x": nb}, folder, tests=True)
except SystemExit as end: print("refused", "assert x == 2" in str(end))
"""


def test_a_notebook_to_run_is_run_with_its_tests_where_they_are_asked_for(tmp_path):
    "Its kept outputs, made without them, do not count then."
    done = run_module("-c", WITH_AND_WITHOUT_TESTS, tmp_path)
    assert done.stdout.splitlines()[-1:] == ["refused True"], done.stdout + done.stderr


BOTH_KINDS = """
import os, sys
from pathlib import Path
sys.path.insert(0, "nbs/_docs")
import execute
def cell(source, i, **metadata): return {"cell_type": "code", "id": f"c{i}", "metadata": metadata, "source": source, "outputs": [], "execution_count": None}
figure = cell("import matplotlib.pyplot as plt\\nplt.plot([1, 2])\\nplt.show()", 1)
plain = {"cells": [cell("import os\\nos.getppid()", 0), figure], "metadata": {"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}}, "nbformat": 4, "nbformat_minor": 5}
filled, ran = execute.execute_all({"00_x": plain | {"cells": [cell("x: int = 1", 2, tags=["parameters"]), *plain["cells"]]}, "plain": plain}, Path(sys.argv[1]), workers=1)
for name, nb in filled.items(): print(name, [sorted(o["data"]) for o in nb["cells"][-1]["outputs"]])
try: execute.execute_all({"00_x": plain | {"cells": [cell("x: int = 1", 2, tags=["parameters"]), cell("1 / 0", 3)]}}, Path(sys.argv[1]))
except SystemExit as end: print("refused", "ZeroDivisionError" in str(end))
kernel = execute.ForkedKernel()
kernel._start.close()
print("not needed, ends", kernel.wait())
"""


def test_figures_show_in_kernels_and_in_forked_shells(tmp_path):
    "The shell that is made before the forks must not take the formats of figures from the kernels that papermill asks for."
    done = run_module("-c", BOTH_KINDS, tmp_path)
    said = [line for line in done.stdout.splitlines() if not line.startswith("executed") and "whole notebook" not in line]
    assert said == ["00_x [['image/png', 'text/plain']]", "plain [['image/png', 'text/plain']]", "refused True", "not needed, ends 0"], done.stdout + done.stderr


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
