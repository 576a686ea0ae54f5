"""The README's figures are those of the committed report, and the files and targets that it names exist. Its commands are run by test_commands."""
import json
import re

from conftest import ROOT
from make_models import PICTURE
import pytest

from aml_miner.training.train_ranker import compared_scorings

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```\n(.*?)```", README, flags=re.S) for line in block.splitlines() if line]


BY_SCORER = {"expected gain": "alert scorer's probability, times gain", "scorer": "alert scorer's probability"}


def result_rows():
    "The rows of the README's table, from the reports of ranker and scorer on the same test days."
    ranker, scorer = (json.loads((ROOT / "trained_models" / f"alert_{name}.json").read_text()) for name in ("ranker", "scorer"))
    assert all(ranker["test"][key] == scorer["test"][key] for key in ("rows", "positives", "first_day", "last_day"))
    return [*_rows(ranker["test"], compared_scorings(ranker)), *_rows(scorer["test"], BY_SCORER)]


def _rows(test, words):
    curve = test["curves"]["by_alerts"]
    at = curve["read"].index(20)
    return [f"| {label} | {f['value']:.3f} [{f['low']:.3f}, {f['high']:.3f}] | {curve['recall'][name][at]:.0%} |"
            for name, label in words.items() for f in [test["scorings"][name]["ndcg@10"]]]


def test_figures_are_those_of_the_report():
    for row in result_rows(): assert row in README, f"the README lacks the row\n{row}"


def test_figures_on_many_sets_are_those_of_the_kept_table():
    text = (ROOT / "nbs" / "_docs" / "benchmarks" / "order.txt").read_text().split("\n$ ")[0]  # of the first command
    rows = {cells[0]: cells[1:] for line in text.splitlines() if line.startswith("| ") and len(cells := line.strip("| ").split(" | ")) > 6}
    sentence = next(line for line in README.split("\n\n") if line.startswith(f"On {text.partition(' sets, means over sets')[0].split()[-1]} sets"))
    assert f"NDCG@20 is {rows['alert ranker'][1]}:" in sentence
    for name in ("LightGBM as it comes, times gain", "LambdaRank", "alert scorer, times gain"):
        value, low, high = (-float(v) + 0 for v in re.findall(r"[-+]\d\.\d+", rows[name][6]))
        assert f"{value:.3f} [{high:.3f}, {low:.3f}]" in sentence, (name, rows[name][6])


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#]+)\)|`((?:nbs|trained_models|tests|benchmarks)/[\w/.]+\.\w+)`", README))))
def test_named_files_exist(path):
    assert (ROOT / "".join(path)).is_file()


def test_the_first_screen_says_what_it_is_and_what_comes_of_it():
    first = "\n".join(README.splitlines()[:33])
    assert "make train" in first and all(row in first for row in result_rows()) and f"](trained_models/{PICTURE})" in first


def test_every_notebook_to_run_is_on_the_map():
    for path in (ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"): assert f"](nbs/{path.name})" in README


TARGETS = sorted({line.split()[1] for line in COMMANDS if line.startswith("make")} | {*re.findall(r"`make ([\w-]+)`", README)})


@pytest.mark.parametrize("target", TARGETS)
def test_named_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M)


def test_make_train_runs_the_notebook_as_the_commands_do():
    recipe = re.search(r"^train:.*\n\t(.*)", (ROOT / "Makefile").read_text(), flags=re.M)[1]
    assert recipe.removeprefix("$(RUN) ") in COMMANDS
