"""The README's figures are those of the committed report, and the commands and files that it names exist."""
import json
import re
import shlex

from conftest import ROOT, run_module
import pytest

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```\n(.*?)```", README, flags=re.S) for line in block.splitlines() if line]


def result_rows():
    "The rows of the README's table, from the ranker's report."
    report = json.loads((ROOT / "trained_models" / "alert_ranker.json").read_text())
    test = report["test"]
    curve = test["curves"]["by_alerts"]
    at = curve["read"].index(20)
    names = {report["objective"]: "alert ranker (LambdaRank)", "binary": "a plain LightGBM classifier", "severity order": "severity, then confidence"}
    return [f"| {words} | {f['value']:.3f} [{f['low']:.3f}, {f['high']:.3f}] | {curve['recall'][name][at]:.0%} |"
            for name, words in names.items() for f in [test["scorings"][name]["ndcg@10"]]]


def test_figures_are_those_of_the_report():
    for row in result_rows(): assert row in README, f"the README lacks the row\n{row}"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:nbs|trained_models|tests)/[\w/.]+\.\w+)`", README))))
def test_named_files_exist(path):
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("target", sorted({word for line in COMMANDS if line.startswith("make") for word in [line.split()[1]]} | set(re.findall(r"`make (\w+)`", README))))
def test_named_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python -m")])
def test_commands_take_the_arguments_that_are_shown(command):
    "Every option of a shown command is one that the command's help names."
    words = shlex.split(command)
    done = run_module("-m", words[2], "--help")
    assert done.returncode == 0, done.stderr
    for option in (w for w in words if w.startswith("--")): assert option in done.stdout, option


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("papermill nbs")])
def test_notebook_parameters_that_are_shown_exist(command):
    papermill = pytest.importorskip("papermill")
    words = shlex.split(command)
    known = papermill.inspect_notebook(str(ROOT / words[1]))
    given = [words[i + 1] for i, w in enumerate(words) if w == "-p"] + [words[i + 1].split(":")[0] for i, w in enumerate(words) if w == "-y"]
    assert set(given) <= set(known), given
