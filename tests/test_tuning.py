"""Tuning as its users run it: processes that are killed, interrupted or work side by side, and what the training commands make of the result."""
from importlib import import_module
import json
from multiprocessing.pool import ThreadPool
import shutil
import signal

import nbformat
from optuna.trial import TrialState
import pytest
import yaml

from aml_miner.tuning.storage import open_study
from aml_miner.tuning.tuner import main
from conftest import ROOT, run_module, run_papermill, run_warm, some

TUNER = ("-m", "aml_miner.training.hyperparameter_tuner")
QUICK = """training: {cv_folds: 2, early_stopping_rounds: 5, bootstrap_samples: 20, num_threads: 1}
alert_ranker: {rivals: []}
tuning:
  startup_trials: 4
  race_after: 3
  search_space: {n_estimators: {low: 5, high: 15}, num_leaves: {low: 4, high: 15}, reg_alpha: null}
"""
TRIALS = 14


@pytest.fixture(scope="module")
def few(sample, tmp_path_factory):
    "The first days of the sample, and settings that make a trial short."
    folder = tmp_path_factory.mktemp("tuning")
    for batch in sorted(p for p in sample.iterdir() if p.is_dir())[:8]: shutil.copytree(batch, folder / "data" / batch.name)
    (folder / "quick.yaml").write_text(QUICK)
    return folder


def arguments(few, output, *more, model_type="scorer", trials=TRIALS):
    return [*TUNER, "--data-dir", few / "data", "--config", few / "quick.yaml", "--model-type", model_type, "--trials", trials, "--output", output, *more]


STOPPED = """
import os, signal, sys, time
from aml_miner.tuning.tuner import HyperparameterTuner, main
how, n, *arguments = sys.argv[1:]
objective, trials = HyperparameterTuner.objective, []
def stops(self, trial):
    trials.append(trial)
    if how == "waits": others_begin(self.study)
    elif len(trials) == int(n): os.kill(os.getpid(), int(how))
    return objective(self, trial)
def others_begin(study):
    until = time.monotonic() + 3600
    while not any(t.user_attrs.get("worker") for t in study.get_trials(deepcopy=False)) and time.monotonic() < until: time.sleep(.05)
HyperparameterTuner.objective = stops
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background of a shell would not have
sys.exit(main(arguments))
"""


def stopped(how, n, few, output, *more, **others):
    "The command, which a signal stops at the beginning of its n-th trial; or which `waits` in each for a worker beside it."
    return run_warm("-c", STOPPED, int(how) if how != "waits" else how, n, *arguments(few, output, *more, **others)[2:])


def study_of(output, name="scorer"):
    return open_study(output.with_suffix(".journal"), name, True, {})


def finished(study):
    return [t for t in study.get_trials() if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]


@pytest.fixture(scope="module")
def tuned(few):
    "What an undisturbed search writes."
    output = few / "undisturbed" / "best_params.yaml"
    done = run_warm(*arguments(few, output))
    assert done.returncode == 0, done.stderr
    assert "14/14 trials" in done.stderr and "current settings: auc" in done.stderr
    return output


def test_what_is_written(tuned):
    result = yaml.safe_load(tuned.read_text())
    assert result["trials"]["complete"] + result["trials"]["pruned"] == TRIALS and result["trials"]["failed"] == 0
    assert set(result["best_params"]) == set(result["search_space"]) and "reg_alpha" not in result["best_params"]
    assert all(result["search_space"][k]["low"] <= v <= result["search_space"][k]["high"] for k, v in result["best_params"].items() if k != "n_estimators")
    assert result["best_params"]["n_estimators"] <= result["sampled_n_estimators"]
    assert {p.name for p in (tuned.parent / "plots").iterdir()} == {"optimization_history.html", "param_importances.html", "parallel_coordinate.html"}
    assert str(ROOT) not in tuned.read_text() and str(tuned.parent) not in tuned.read_text()


def test_killed_and_begun_again_it_ends_as_if_nothing_had_happened(few, tuned, tmp_path):
    output = tmp_path / "best_params.yaml"
    for n in (3, 5): assert stopped(signal.SIGKILL, n, few, output).returncode == -signal.SIGKILL
    before = [(t.number, t.params, t.value) for t in finished(study_of(output))]
    done = run_warm(*arguments(few, output))
    assert done.returncode == 0, done.stderr
    trials = finished(study_of(output))
    assert len(before) == 2 + 4 and len(trials) == TRIALS and [(t.number, t.params, t.value) for t in trials][:len(before)] == before
    assert [t for t in study_of(output).get_trials() if t.state == TrialState.RUNNING] == []
    assert [(t.params, t.state, t.value) for t in trials] == [(t.params, t.state, t.value) for t in finished(study_of(tuned))]
    again, straight = (yaml.safe_load(path.read_text()) for path in (output, tuned))
    assert {k: v for k, v in again.items() if k not in ("trials", "best_trial")} == {k: v for k, v in straight.items() if k not in ("trials", "best_trial")}


def test_the_same_search_writes_the_same_bytes(few, tuned, tmp_path):
    output = tmp_path / "elsewhere" / "best_params.yaml"
    done = run_module(*arguments(few, output, "--num-threads", 2), cwd=tmp_path, PYTHONHASHSEED=5)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == tuned.read_bytes()
    for page in ("optimization_history.html", "parallel_coordinate.html"):
        assert (output.parent / "plots" / page).read_bytes() == (tuned.parent / "plots" / page).read_bytes()


def test_interrupted_it_keeps_what_it_has(few, tmp_path):
    output = tmp_path / "best_params.yaml"
    done = stopped(signal.SIGINT, 5, few, output, trials=500)
    assert done.returncode == 130, done.stderr
    assert "interrupted; what was found so far is kept" in done.stderr and "Traceback" not in done.stderr
    result = yaml.safe_load(output.read_text())
    assert sum(result["trials"].values()) == len(study_of(output).get_trials()) and result["trials"]["complete"] >= 1


def test_interrupted_before_a_trial_was_complete_it_writes_nothing(few, tmp_path):
    output = tmp_path / "best_params.yaml"
    done = stopped(signal.SIGINT, 1, few, output, "--cv-folds", 5, trials=500)
    assert done.returncode == 130 and "Traceback" not in done.stderr, done.stderr
    assert not output.exists() and "nothing was written" in done.stderr


def test_two_commands_share_a_study(few, tmp_path):
    output = tmp_path / "best_params.yaml"
    search = lambda path: run_warm(*arguments(few, path, "--storage", output.with_suffix(".journal")))
    with ThreadPool(2) as pool: both = pool.map(search, [output, tmp_path / "other.yaml"])
    for done in both: assert done.returncode == 0, done.stderr
    trials = study_of(output).get_trials()
    assert len(finished(study_of(output))) == TRIALS and all(t.state != TrialState.RUNNING for t in trials)
    assert len({tuple(t.params.values()) for t in trials}) == len(trials)
    assert yaml.safe_load(output.read_text())["model_type"] == "scorer"


def test_jobs_share_a_study(few, tmp_path):
    output = tmp_path / "best_params.yaml"
    done = stopped("waits", 0, few, output, "--jobs", 2)  # until the other has a trial, however long it takes to come up
    assert done.returncode == 0, done.stderr
    trials = finished(study_of(output))
    assert len(trials) == TRIALS and len({tuple(t.params.values()) for t in trials}) == TRIALS
    assert {t.user_attrs["worker"] for t in trials} == {0, 1}


@pytest.mark.parametrize("command, kind", some([("train_ranker", "ranker"), ("train_scorer", "scorer"), ("train_cluster_scorer", "cluster")], 1))
def test_training_commands_take_the_result(command, kind, few, tuned, refused, tmp_path):
    result_file = tuned if kind == "scorer" else tmp_path / "best.yaml"
    if kind != "scorer":
        done = run_warm(*arguments(few, result_file, model_type=kind, trials=3))
        assert done.returncode == 0, done.stderr
    train, paths = import_module(f"aml_miner.training.{command}").main, ("--data-dir", str(few / "data"), "--output", str(tmp_path / "model.txt"))
    assert train([*paths, "--config", str(result_file)]) == 0
    report, result = json.loads((tmp_path / "model.json").read_text()), yaml.safe_load(result_file.read_text())
    assert report["best_iteration"] == result["best_params"]["n_estimators"]
    used = report["config"][report["model_type"]]["boosting"]
    assert {k: used[k] for k in result["best_params"] if k != "n_estimators"} == {k: v for k, v in result["best_params"].items() if k != "n_estimators"}
    assert report["config"]["training"]["cv_folds"] == 2
    result_file = tmp_path / "broken.yaml"
    result_file.write_text(yaml.safe_dump({k: v for k, v in result.items() if k != "search_space"}))
    assert "search_space: Field required" in refused(train, *paths, "--config", result_file)
    other = {"scorer": {"model_type": "cluster"}, "cluster": {"model_type": "scorer"}, "ranker": {"model_type": "scorer", "metric": "auc"}}[kind]
    result_file.write_text(yaml.safe_dump(result | other))
    assert "was tuned for the" in refused(train, *paths, "--config", result_file)
    best = tuned if kind == "scorer" else tmp_path / "best.yaml"
    assert train([*paths, "--config", str(best), "--cv-folds", "0"]) == 0  # no folds to stop early by: all trees of the search
    assert json.loads((tmp_path / "model.json").read_text())["best_iteration"] == result["best_params"]["n_estimators"]


@pytest.mark.parametrize("more, message", [
    (("--output", "best.txt"), "ending .yaml"),
    (("--config", "absent.yaml"), "absent.yaml"),
    (("--cv-folds", 0), "cv_folds is 0"),
    (("--metric", "ndcg@5"), "tuned by one of auc"),
    (("--storage", "sqlite:///best.db"), "known are the path of a journal file, and postgresql+pg8000://"),
    (("--output", "best.yaml", "--storage", "best.yaml"), "both the result and the storage"),
    (("--timeout", -1), "timeout is -1"),
    (("--trials", 0), "0 is no number from 1 on"),
    (("--data-dir", "absent"), "absent"),
])
def test_what_cannot_be_used_is_one_line(more, message, few, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(main, *arguments(few, tmp_path / "best.yaml", *more)[len(TUNER):])
    assert not list(tmp_path.glob("*.yaml"))


def test_another_data_set_is_not_taken_for_the_same_study(few, tuned, refused, tmp_path):
    shutil.copytree(few / "data", tmp_path / "data")
    shutil.rmtree(sorted((tmp_path / "data").iterdir())[0])
    other = arguments(few, tmp_path / "best.yaml", "--data-dir", tmp_path / "data", "--storage", tuned.with_suffix(".journal"))
    assert "was begun with another training rows" in refused(main, *other[len(TUNER):])


def test_papermill(few, tmp_path):
    executed = tmp_path / "out.ipynb"
    done = run_papermill(ROOT / "nbs" / "04_tune_hyperparameters.ipynb", executed, "-p", "data_dir", few / "data", "-p", "config", few / "quick.yaml",
                      "-p", "model_type", "ranker", "-p", "trials", 5, "-p", "output", tmp_path / "best.yaml")
    assert done.returncode == 0, done.stderr
    outputs = [o for c in nbformat.read(executed, 4).cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 2
    text = "".join(o.get("text", "") for o in outputs)
    assert any(word in text for word in ("Worth it: NDCG@20", "Within noise: NDCG@20", "Worse: NDCG@20", "No verdict: NDCG@20"))
    assert yaml.safe_load((tmp_path / "best.yaml").read_text())["metric"] == "ndcg@100"
    done = run_papermill(ROOT / "nbs" / "04_tune_hyperparameters.ipynb", executed, "-p", "model_type", "forest")
    assert done.returncode != 0 and "model_type" in done.stderr
