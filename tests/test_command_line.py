"""One command and all below it: help that fits and comes at once, the same bytes through every door, exit codes, spellings."""
import importlib
import json
import shutil
import sys

from conftest import ROOT, files, run_module
from cyclopts import App
import pytest

from aml_miner.cli.tree import COMMANDS, EXIT_CODES, aml_miner_app, main
from aml_miner.testing.tiny_batch import tiny_batch
from aml_miner.utils.command_line import OLD_SPELLINGS, command_app

DOORS = {  # a command: the module that Python runs for it
    "explore": "exploration.explore", "check": "batches.contract", "convert": "conversion.convert", "propose": "conversion.propose",
    "simulate": "simulation.simulator", "train scorer": "training.train_scorer", "train ranker": "training.train_ranker",
    "train clusters": "training.train_cluster_scorer", "tune": "training.hyperparameter_tuner", "compare": "scoring.compare", "score": "scoring.score_batch",
}
HEAVY = ("numpy", "pandas", "pyarrow", "lightgbm", "duckdb", "sklearn", "scipy", "optuna", "matplotlib", "plotly")
HELP_OF_ALL = f"""
import sys
from aml_miner.cli.tree import COMMANDS, main
for words in ["", "train", "config", *COMMANDS]: assert main([*words.split(), "--help"]) == 0
print(sorted({{*{HEAVY}}} & {{*sys.modules}}))
"""
SMALL = ("--days", "3", "--alerts-per-day", "30", "--flows-per-day", "400", "--seed", "3")


def door(typed):
    "The main of a command's module."
    return importlib.import_module(f"aml_miner.{DOORS[typed]}").main


def functions():
    return {typed: getattr(importlib.import_module(place.partition(":")[0]), place.partition(":")[2]) for typed, place in COMMANDS.items()}


def both(typed, options, folder):
    "A command through both doors, each writing into its own folder: exit codes, and the files by name."
    codes, written = [], []
    for name, run in (("tree", lambda words: main([*typed.split(), *words])), ("module", door(typed))):
        out = folder / name
        out.mkdir(parents=True)
        codes.append(run([str(word).replace("OUT", str(out)) for word in options]))
        written.append(files(out))
    return codes, written


def same(typed, options, folder):
    (one, two), (ours, theirs) = both(typed, options, folder)
    assert one == two == 0 and ours == theirs and ours
    return ours


@pytest.fixture(scope="module")
def days(sample, tmp_path_factory):
    "The first days of the sample."
    folder = tmp_path_factory.mktemp("days") / "data"
    for day in sorted(p for p in sample.iterdir() if p.is_dir())[:5]: shutil.copytree(day, folder / day.name)
    return folder


# Help

@pytest.mark.parametrize("typed", ["", "train", "config", *COMMANDS])
def test_help_fits_a_terminal(typed, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*typed.split(), "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: aml-miner {typed}".rstrip()) and max(map(len, said.splitlines())) <= 80
    if not typed:
        assert " ".join(EXIT_CODES.split()) in " ".join(said.split())
        for name in {words.split()[0] for words in COMMANDS}: assert f"│ {name} " in said


@pytest.mark.parametrize("typed", DOORS)
def test_a_module_says_the_same_of_its_options(typed, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said = []
    for run, words in ((main, typed.split()), (door(typed), [])):
        assert run([*words, "--help"]) == 0
        said.append(capsys.readouterr().out)
    assert max(map(len, said[1].splitlines())) <= 80 and f"python -m aml_miner.{DOORS[typed]} " in said[1]
    assert said[0].partition("╭")[2] == said[1].partition("╭")[2]


def test_help_loads_nothing_large():
    done = run_module("-c", HELP_OF_ALL)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("typed", COMMANDS)
def test_every_option_is_explained_once(typed):
    "By the comment beside the parameter: whatever has no comment has no help."
    function = functions()[typed]
    arguments = command_app("x", function).assemble_argument_collection(parse_docstring=True)
    assert len(arguments) > 0
    for argument in arguments:
        assert argument.parameter.help, f"{typed}: {argument.name} has no comment"
    assert len({a.name for a in arguments} & {*OLD_SPELLINGS}) == 0


def test_what_is_proposed_next_is_a_command():
    from aml_miner.exploration.commands import COMMANDS as PROPOSED
    assert {typed.removeprefix("aml-miner ") for typed in PROPOSED.values()} <= {*COMMANDS}
    assert {*PROPOSED} <= {path.stem for path in (ROOT / "nbs").glob("0*.ipynb")}


def test_one_thing_has_one_spelling():
    "An option means the same in all commands: no command has the old spelling of another."
    names = {typed: {a.name for a in command_app("x", f).assemble_argument_collection()} for typed, f in functions().items()}
    assert all("--data-dir" in names[t] for t in ("explore", "check", "train all", "tune", "compare", "score", "history"))
    assert all("--output" in names[t] for t in ("convert", "propose", "simulate", "train scorer", "tune", "compare", "score"))
    assert all("--json" in names[t] for t in ("explore", "check", "compare", "version", "config show", "history", "queue"))


def test_shells_are_told_of_all_commands(capsys):
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert all(word in script for typed in COMMANDS for word in typed.split()) and "no-history" in script
    assert isinstance(aml_miner_app(), App)


# Both doors

def test_python_m_aml_miner_is_the_command():
    done = run_module("-m", "aml_miner", "version", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["python"] == ".".join(map(str, sys.version_info[:3]))
    assert run_module("-m", "aml_miner").returncode == 2


def test_simulated_batches(tmp_path):
    assert len(same("simulate", ["--output", "OUT/data", *SMALL], tmp_path)) > 12


def test_checks_and_figures(days, tmp_path, capsys):
    assert same("check", ["--data-dir", days, "--output", "OUT/c.json", "--fail-on", "error"], tmp_path / "check")
    assert same("explore", ["--data-dir", days, "--output", "OUT/e.json"], tmp_path / "explore")
    capsys.readouterr()
    for typed, file in (("check", "check/tree/c.json"), ("explore", "explore/tree/e.json")):
        main([typed, "--data-dir", str(days), "--json"])
        assert capsys.readouterr().out == (tmp_path / file).read_text()


def test_maps_and_conversions(tmp_path):
    (tmp_path / "some.csv").write_text("when,from,to,amount\n" + "".join(f"2025-09-{d:02} 10:00:00,a{d % 3},b{d % 5},{d}00.50\n" for d in range(1, 29)))
    assert set(same("propose", ["--input", tmp_path / "some.csv", "--output", "OUT/map.yaml"], tmp_path / "propose")) == {"map.yaml"}
    codes, _ = both("convert", ["--source", "transactions", "--input", tmp_path / "none.csv", "--output", "OUT/b"], tmp_path / "convert")
    assert codes == [2, 2]


@pytest.fixture(scope="module")
def trained(days, tmp_path_factory):
    "Three models by one command."
    folder = tmp_path_factory.mktemp("trained")
    (folder / "quick.yaml").write_text("training: {bootstrap_samples: 5, early_stopping_rounds: 3, cv_folds: 0, num_threads: 1}\n" + "".join(
        f"{m}: {{boosting: {{n_estimators: 5}}{more}}}\n" for m, more in (("alert_scorer", ""), ("alert_ranker", ", rivals: []"), ("cluster_scorer", ""))))
    assert main(["train", "all", "--data-dir", str(days), "--output", str(folder / "models"), "--config", str(folder / "quick.yaml")]) == 0
    return folder


def test_all_models_are_those_of_their_own_commands(days, trained, tmp_path, capsys):
    for typed, name in (("train scorer", "alert_scorer"), ("train ranker", "alert_ranker"), ("train clusters", "cluster_scorer")):
        made = same(typed, ["--data-dir", days, "--output", f"OUT/{name}.txt", "--config", trained / "quick.yaml"], tmp_path / name)
        assert made == {p.name: p.read_bytes() for p in (trained / "models").glob(f"{name}.*")} and len(made) == 3
        for line in capsys.readouterr().out.splitlines():
            if not line.startswith("wrote"): assert len(line) <= 160


def test_scores_and_their_queue(days, trained, tmp_path, capsys):
    made = same("score", ["--data-dir", days, "--models", trained / "models", "--output", "OUT/s", "--no-latency", "--num-threads", "1"], tmp_path)
    assert {name.partition("/")[2] for name in made} >= {"alert_rankings.parquet", "scores.json"}
    capsys.readouterr()
    assert main(["queue", "--scores", str(tmp_path / "tree" / "s"), "--first", "3", "--json"]) == 0
    assert [row["rank"] for row in json.loads(capsys.readouterr().out)] == [1, 2, 3]


def test_old_spellings_still_work(days, trained, tmp_path):
    new, old = [["--data-dir", days, "--models", trained / "models", "--output", f"{tmp_path}/{i}", "--no-latency"] for i in range(2)]
    turned = {"--data-dir": "--batch-dir", "--models": "--models-dir", "--output": "--output-dir"}
    assert {now: before for before, now in OLD_SPELLINGS.items()} == turned
    assert [main(["score", *map(str, words)]) for words in (new, [turned.get(w, w) for w in old])] == [0, 0]
    assert files(tmp_path / "0") == files(tmp_path / "1")
    assert door("check")(["--data-dir", str(days), "--json", str(tmp_path / "c.json"), "--fail-on", "error"]) == 0  # a file, as it was once written
    assert json.loads((tmp_path / "c.json").read_text())


def test_tables_fit(days, trained, tmp_path, capsys, monkeypatch):
    for width in (60, 80):
        monkeypatch.setenv("COLUMNS", str(width))
        assert main(["score", "--data-dir", str(days), "--models", str(trained / "models"), "--output", str(tmp_path / "s")]) == 0
        assert main(["queue", "--scores", str(tmp_path / "s")]) == 0
        assert main(["explore", "--data-dir", str(days)]) == 0
        long = [line for line in capsys.readouterr().out.splitlines() if len(line) > width and not line.startswith(("wrote", "the first"))]
        assert not long, long


def test_a_history_is_built_and_told(days, tmp_path, capsys):
    words = ["history", "--history", str(tmp_path / "h.duckdb")]
    assert main([*words, "--data-dir", str(days)]) == 0
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    network, = json.loads(capsys.readouterr().out)["networks"]
    assert (network["network"], network["days"], network["windows"], network["first_day"]) == ("torus", 5, [7], "2025-09-01")
    assert network["alerts"] >= network["illicit"] + network["licit"] > 0


# How it ends

def test_exit_codes(tmp_path, capsys):
    tiny_batch(tmp_path / "warned" / "2025-09-01", "2025-09-01")
    shutil.copytree(tmp_path / "warned", tmp_path / "broken")
    (tmp_path / "broken" / "2025-09-01" / "alerts.parquet").write_bytes(b"PAR1")
    codes = [main(["check", "--data-dir", str(tmp_path / name)]) for name in ("warned", "broken", "nowhere")]
    assert codes == [3, 2, 2]


@pytest.mark.parametrize("words, said", [
    (["score", "--data-dir", "x", "--output", "y", "--model", "z"], "Unknown option: --model. Did you mean --models?"),
    (["score", "--data-dirs", "x", "--output", "y"], "Did you mean --data-dir instead of --data-dirs?"),
    (["score", "--data-dir", "x"], "--output requires an argument"),
    (["scores"], 'Unknown command "scores". Did you mean "score"?'),
    (["train", "scorer", "--data-dir", "x", "--output", "y", "--eval-metric", "f1"], 'Invalid value "f1" for --eval-metric. Choose from: "auc"'),
    (["tune", "--data-dir", "x", "--output", "y.yaml", "--model-type", "scorer", "--trials", "0"], "--trials: 0 is no number from 1 on"),
    (["train", "all", "--data-dir", "none", "--output", f"{__file__}/m"], "cannot be written"),
    (["explore", "--data-dir", "none", "--output", f"{__file__}/e.json"], "cannot be written"),
    (["check", "--data-dir", "none", "--output", f"{__file__}/c.json"], "cannot be written"),
    (["simulate", "--output", f"{__file__}/d"], "cannot be written"),
    (["propose", "--input", "none.csv", "--output", f"{__file__}/m.yaml"], "cannot be written"),
    (["convert", "--source", "paysim", "--input", "none.csv", "--output", f"{__file__}/d"], "cannot be written"),
    (["history", "--history", f"{__file__}/h", "--data-dir", "none"], "cannot be written"),
    (["config", "show", "--config", "none.yaml"], "none.yaml: cannot be read"),
])
def test_what_cannot_be_used_is_one_line(words, said, refused):
    lines = refused(main, *words).splitlines()
    assert len(lines) == 1 and said in lines[0] and "ERROR" in lines[0]


def test_interrupted(monkeypatch, capsys):
    def stop(*args, **more): raise KeyboardInterrupt
    monkeypatch.setattr(importlib.import_module("aml_miner.batches.contract"), "check_batches", stop)
    assert main(["check", "--data-dir", str(ROOT / "data" / "sample")]) == 130
