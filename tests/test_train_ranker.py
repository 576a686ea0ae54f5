"""The ranker as its users run it: papermill, command line, other folders, other thread counts."""
import json
import shutil

from conftest import ROOT, run_module, run_papermill, run_warm
import pytest
import yaml

from aml_miner.training.train_ranker import main

NOTEBOOK = ROOT / "nbs" / "02_train_ranker.ipynb"
COMMAND = ("-m", "aml_miner.training.train_ranker")


@pytest.fixture(scope="module")
def trained(twelve_days, quick_config, tmp_path_factory):
    "A model made by the command line on some days of the sample."
    model = tmp_path_factory.mktemp("trained") / "ranker.txt"
    done = run_warm(*COMMAND, "--data-dir", twelve_days, "--output", model, "--config", quick_config, "--num-threads", 1)
    assert done.returncode == 0, done.stderr
    return model


def same(model, other):
    return all(model.with_suffix(s).read_bytes() == other.with_suffix(s).read_bytes() for s in (".txt", ".json"))


def test_wrong_parameters_stop_the_run(tmp_path):
    "All of them are named, before any work is done."
    wrong = ("-p", "cv_fold", "5", "-p", "cv_folds", "five", "-p", "ndcg_at", "[5, 10]")
    done = run_papermill(NOTEBOOK, tmp_path / "out.ipynb", "-p", "output", tmp_path / "m.txt", *wrong)
    assert done.returncode != 0
    for message in ("cv_fold: no such parameter; did you mean cv_folds?", "cv_folds: 'five' is no", "give it as -y"): assert message in done.stderr, message
    assert not (tmp_path / "m.txt").exists()


def test_threads_place_and_order_of_folders_do_not_matter(trained, twelve_days, quick_config, tmp_path):
    moved = tmp_path / "moved it's"
    for i, batch in enumerate(sorted(twelve_days.glob("2*"), reverse=True)): shutil.copytree(batch, moved / f"{i:02}" / batch.name[::-1])
    (tmp_path / "elsewhere").mkdir()
    done = run_module(*COMMAND, "--data-dir", moved, "--output", "again.txt", "--config", quick_config, "--num-threads", 2,
                      cwd=tmp_path / "elsewhere", PYTHONHASHSEED=7)
    assert done.returncode == 0, done.stderr
    assert same(trained, tmp_path / "elsewhere" / "again.txt")


@pytest.mark.parametrize("rivals", [[], ["binary", "regression", "lambdarank"]])
def test_the_saved_model_does_not_depend_on_rivals(rivals, trained, twelve_days, quick_config, tmp_path):
    settings = yaml.safe_load(quick_config.read_text())
    settings["alert_ranker"] = settings.get("alert_ranker", {}) | {"rivals": rivals}
    (tmp_path / "rivals.yaml").write_text(yaml.safe_dump(settings))
    assert main(["--data-dir", str(twelve_days), "--output", str(tmp_path / "m.txt"), "--config", str(tmp_path / "rivals.yaml"), "--num-threads", "1"]) == 0
    assert (tmp_path / "m.txt").read_bytes() == trained.read_bytes()
    report, before = (json.loads(m.with_suffix(".json").read_text()) for m in (tmp_path / "m.txt", trained))
    for key in ("cv_scores", "importance", "score_quantiles", "best_iteration", "model_sha256"): assert report[key] == before[key], key
    assert report["test"]["scorings"]["expected_gain"] == before["test"]["scorings"]["expected_gain"]
    for name in rivals: assert report["objectives"][name] == before["objectives"][name], name
    assert set(report["objectives"]) == {"expected_gain", *rivals}


def test_seed_matters(trained, twelve_days, quick_config, tmp_path):
    assert main(["--data-dir", str(twelve_days), "--output", str(tmp_path / "m.txt"), "--config", str(quick_config), "--seed", "1"]) == 0
    assert not same(trained, tmp_path / "m.txt")


def test_report_holds_what_a_reader_needs(trained):
    report = json.loads(trained.with_suffix(".json").read_text())
    for key in ("test_ndcg@5", "test_ndcg@10", "test_ndcg@20", "best_iteration", "num_features", "cv_scores", "features", "seed", "versions", "model_sha256"):
        assert report[key], key
    plain = {"binary", "severity order", "default LightGBM, times gain", "calibrated probability, times gain"}  # judged however they stand
    assert plain | {"expected_gain"} <= set(report["test"]["scorings"]) <= plain | {"expected_gain", "lambdarank", "regression"}
    assert report["split"]["train"]["last"] < report["split"]["test"]["first"]
    text = trained.with_suffix(".json").read_text()
    assert str(ROOT) not in text and str(trained.parent) not in text


@pytest.mark.parametrize("args, message", [
    (("--data-dir", "absent"), "absent"),
    (("--data-dir", "data/sample", "--config", "absent.yaml"), "absent.yaml"),
    (("--data-dir", "data/sample", "--ndcg-at", "0"), "ndcg_at"),
    (("--data-dir", "data/sample", "--test-fraction", "2"), "test_fraction"),
    (("--data-dir", "data/sample", "--gain", "alert_amount"), "alert_ranker.gain is 'alert_amount', which is no feature with numbers"),
])
def test_wrong_arguments_are_named(args, message, refused, tmp_path):
    assert message in refused(main, *args, "--output", tmp_path / "m.txt")
    assert list(tmp_path.iterdir()) == []
