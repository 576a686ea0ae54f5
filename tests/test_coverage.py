"""What counts as reached: an exported cell that runs in its notebook is the code of its module, line by line."""
from conftest import ROOT, run_module
from counted_notebooks import exported_cells, module_of
import coverage_table
import pytest

LIBRARY = [p for p in sorted((ROOT / "nbs").rglob("*.ipynb")) if module_of(p).is_file() and "default_exp" in p.read_text()]


def test_a_cell_is_where_its_text_is_in_the_module():
    for notebook in LIBRARY:
        lines = module_of(notebook).read_text(encoding="utf-8").splitlines()
        for text, first in exported_cells(module_of(notebook)).items():
            cell = text.splitlines()
            assert lines[first - 1:first - 1 + len(cell)] == cell, notebook


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    "The lines that one notebook reaches, by nbdev_test as `make notebooks` runs it."
    folder = tmp_path_factory.mktemp("counted") / "notebooks"
    folder.mkdir()
    measured = {"COVERAGE_PROCESS_START": ROOT / ".coveragerc", "COVERAGE_FILE": folder / "lines"}
    done = run_module(ROOT / "tests" / "counted_notebooks.py", "--path", "nbs/utils/parameters.ipynb", **measured)
    assert done.returncode == 0, done.stderr
    return folder


def test_what_a_notebook_runs_is_counted_in_its_module(counted, tmp_path):
    coverage = coverage_table.combined(tmp_path / "all", [counted])
    module = ROOT / "aml_miner" / "utils" / "parameters.py"
    _, statements, _, missing, _ = coverage.analysis2(str(module))
    bodies = [n for n, line in enumerate(module.read_text().splitlines(), start=1) if n in statements and line.startswith(" ")]
    assert bodies and not set(bodies) & set(missing)


def test_the_table_adds_up(counted, monkeypatch, capsys):
    monkeypatch.setattr(coverage_table, "FOLDER", counted.parent)
    assert coverage_table.main(["--lines"]) == 0
    table = capsys.readouterr().out
    rooms = {words[0]: words[1:3] for words in map(str.split, table.split(" by notebooks\n")[1].splitlines())}
    assert {p.name for p in (ROOT / "aml_miner").iterdir() if p.is_dir() and p.name != "__pycache__"} <= {*rooms}
    total = [sum(int(counts[i]) for room, counts in rooms.items() if room != "all") for i in (0, 1)]
    assert total == [int(n) for n in rooms["all"]] and 0 < total[1] < total[0]
    assert "aml_miner/config/model_config.py: " in table and "aml_miner/utils/parameters.py: " in table
