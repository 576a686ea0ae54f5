"""The README's figures are those of the committed report, and the files and targets that it names exist. Its commands are run by test_commands."""
import json
import re

from conftest import ROOT
from make_models import PICTURE
import pytest

from aml_miner.training.train_ranker import compared_scorings

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```\n(.*?)```", README, flags=re.S) for line in block.splitlines() if line]


def result_rows():
    "The rows of the README's table, from the ranker's report."
    report = json.loads((ROOT / "trained_models" / "alert_ranker.json").read_text())
    test = report["test"]
    curve = test["curves"]["by_alerts"]
    at = curve["read"].index(20)
    return [f"| {words} | {f['value']:.3f} [{f['low']:.3f}, {f['high']:.3f}] | {curve['recall'][name][at]:.0%} |"
            for name, words in compared_scorings(report).items() for f in [test["scorings"][name]["ndcg@10"]]]


def test_figures_are_those_of_the_report():
    for row in result_rows(): assert row in README, f"the README lacks the row\n{row}"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#]+)\)|`((?:nbs|trained_models|tests|benchmarks)/[\w/.]+\.\w+)`", README))))
def test_named_files_exist(path):
    assert (ROOT / "".join(path)).is_file()


def test_the_first_screen_says_what_it_is_and_what_comes_of_it():
    first = "\n".join(README.splitlines()[:30])
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
