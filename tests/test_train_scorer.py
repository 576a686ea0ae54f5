"""The scorer as its users run it: papermill, command line, other folders, other thread counts; few rows, many rows, public data."""
import json
import shutil

from conftest import ROOT, published, run_module, run_papermill, run_warm
import lightgbm as lgb
import nbformat
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, f1_score, roc_auc_score

from aml_miner.config.model_config import load_config
from aml_miner.models.probability import apply_calibration
from aml_miner.training import prepare_training_data, train_alert_scorer
from aml_miner.training.training_data import TrainingData
from aml_miner.training.train_scorer import main

NOTEBOOK = ROOT / "nbs" / "01_train_scorer.ipynb"
COMMAND = ("-m", "aml_miner.training.train_scorer")
QUICK = "training: {bootstrap_samples: 20, early_stopping_rounds: 5, learning_curve: []}\nalert_scorer: {boosting: {n_estimators: 20}}\n"


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    "Settings that make a training run short."
    path = tmp_path_factory.mktemp("config") / "quick.yaml"
    path.write_text(QUICK)
    return path


@pytest.fixture(scope="module")
def trained(twelve_days, quick, tmp_path_factory):
    "A model made by the command line on some days of the sample."
    model = tmp_path_factory.mktemp("trained") / "scorer.txt"
    done = run_warm(*COMMAND, "--data-dir", twelve_days, "--output", model, "--config", quick, "--num-threads", 1)
    assert done.returncode == 0, done.stderr
    return model


def same(model, other):
    return all(model.with_suffix(s).read_bytes() == other.with_suffix(s).read_bytes() for s in (".txt", ".json"))


def report_of(model):
    return json.loads(model.with_suffix(".json").read_text())


def test_papermill_makes_the_same_bytes_as_the_command_line(trained, twelve_days, quick, tmp_path):
    model, executed = tmp_path / "scorer.txt", tmp_path / "out.ipynb"
    made = ("-p", "data_dir", twelve_days, "-p", "output", model, "-p", "config", quick, "-p", "cv_folds", 5, "-p", "num_threads", 1)
    done = run_papermill(NOTEBOOK, executed, *made)
    assert done.returncode == 0, done.stderr
    assert same(trained, model)
    outputs = [o for c in nbformat.read(executed, 4).cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 6


def test_wrong_parameters_stop_the_run(tmp_path):
    "All of them are named, before any work is done."
    done = run_papermill(NOTEBOOK, tmp_path / "out.ipynb", "-p", "output", tmp_path / "m.txt", "-p", "eval_metrics", "auc", "-p", "cv_folds", "five")
    assert done.returncode != 0
    for message in ("eval_metrics: no such parameter; did you mean eval_metric?", "cv_folds: 'five' is no"): assert message in done.stderr, message
    assert not (tmp_path / "m.txt").exists()


def test_threads_place_and_order_of_folders_do_not_matter(trained, twelve_days, quick, tmp_path):
    moved = tmp_path / "moved it's"
    for i, batch in enumerate(sorted(twelve_days.glob("2*"), reverse=True)): shutil.copytree(batch, moved / f"{i:02}" / batch.name[::-1])
    (tmp_path / "elsewhere").mkdir()
    again = (*COMMAND, "--data-dir", moved, "--output", "again.txt", "--config", quick, "--num-threads", 2)
    done = run_module(*again, cwd=tmp_path / "elsewhere", PYTHONHASHSEED=7)
    assert done.returncode == 0, done.stderr
    assert same(trained, tmp_path / "elsewhere" / "again.txt")


def test_report_holds_what_a_reader_needs(trained):
    report = report_of(trained)
    for key in ("test_auc", "test_precision", "test_recall", "test_f1", "best_iteration", "num_features", "cv_auc_mean", "cv_auc_std", "cv_scores",
                "calibration", "calibration_brier", "threshold", "importance", "features", "seed", "versions", "model_sha256",
                "test_brier", "test_brier_uncalibrated"):
        assert report[key] is not None, key
    assert set(report["test"]["scorings"]) == {"scorer", "uncalibrated", "class weight balanced", "default LightGBM", "severity order", "expected gain"}
    assert report["test_unseen_addresses"]["scorings"]["scorer"]["auc"]["value"] > .5
    assert report["split"]["train"]["last"] < report["split"]["test"]["first"]
    assert set(report["threshold"]["test"]) == {"f1", "50", "100", "500", "1%", "5%", "0.5"}
    text = trained.with_suffix(".json").read_text()
    assert str(ROOT) not in text and str(trained.parent) not in text


def test_files_alone_give_the_reported_figures(trained, twelve_days):
    "Model text, calibration and threshold, read back from the two files, against scikit-learn."
    report, booster = report_of(trained), lgb.Booster(model_file=str(trained))
    data = prepare_training_data(twelve_days, load_config(overrides={"training": {"num_threads": 1}}))
    later = (pd.to_datetime(data.context.processing_date) >= report["split"]["test"]["first"]).to_numpy()
    p, y = apply_calibration(report["calibration"], booster.predict(data.X[later], raw_score=True)), data.y[later]
    assert report["test_auc"] == pytest.approx(roc_auc_score(y, p), abs=1e-11)
    assert report["test_brier"] == pytest.approx(brier_score_loss(y, p), abs=1e-11)
    assert report["test_f1"] == pytest.approx(f1_score(y, p >= report["threshold"]["value"]), abs=1e-11)
    assert list(data.X.columns) == report["features"] == booster.feature_name()


@pytest.mark.parametrize("args, message", [
    (("--data-dir", "absent"), "absent"),
    (("--data-dir", "data/sample", "--config", "absent.yaml"), "absent.yaml"),
    (("--data-dir", "data/sample", "--cv-folds", "1"), "cv_folds"),
    (("--data-dir", "data/sample", "--test-fraction", "2"), "test_fraction"),
    (("--data-dir", "data/sample", "--eval-metric", "f1"), "f1"),
])
def test_wrong_arguments_are_named(args, message, refused, tmp_path):
    assert message in refused(main, *args, "--output", tmp_path / "m.txt")
    assert list(tmp_path.iterdir()) == []


def relabelled(sample, target, keep, label=None):
    "A copy of the sample's first `keep` days with ten alerts each, all with one label where one is given."
    for batch in sorted(sample.glob("2*"))[:keep]:
        shutil.copytree(batch, target / batch.name)
        (target / batch.name / "META.json").unlink(missing_ok=True)
        alerts = pd.read_parquet(batch / "alerts.parquet").head(10)
        if label is not None: alerts["ground_truth"] = np.int8(label)
        alerts.to_parquet(target / batch.name / "alerts.parquet")
    return target


@pytest.mark.parametrize("label, lacking", [(0, "illicit"), (1, "licit")])
def test_one_class_says_which_is_missing(label, lacking, sample, quick, refused, tmp_path):
    said = refused(main, "--data-dir", relabelled(sample, tmp_path / "data", 3, label), "--output", tmp_path / "m.txt", "--config", quick, "--num-threads", 1)
    assert f"there is no {lacking} row" in said
    assert not (tmp_path / "m.txt").exists()


def test_a_few_dozen_alerts_end_in_a_model(sample, quick, tmp_path):
    few = relabelled(sample, tmp_path / "data", 5)
    assert main(["--data-dir", str(few), "--output", str(tmp_path / "m.txt"), "--config", str(quick), "--num-threads", "1", "--cv-folds", "0"]) == 0
    report = report_of(tmp_path / "m.txt")
    assert report["calibration"] == {"method": "none"} and report["threshold"]["value"] == .5
    assert "no out-of-fold predictions" in report["threshold"]["chosen_on"]


@pytest.mark.parametrize("name, method", [("torus_weekly_batches", "dates moved back"), ("torus_batches", "addresses"), ("schema_example", "addresses")])
def test_real_batches_train(name, method, quick, tmp_path):
    model = tmp_path / "m.txt"
    assert main(["--data-dir", str(published(name)), "--output", str(model), "--config", str(quick), "--num-threads", "1"]) == 0
    report = report_of(model)
    assert report["split"]["method"] == method
    assert report["test"]["positives"] > 0 and report["test_auc"] is not None


def test_datarobot_alerts_flat():
    "No dates, no addresses: the order of the rows stands for time. The reference is default LightGBM on the last fifth, trained on the first three."
    table = pd.read_parquet(published("datarobot_alerts") / "datarobot_aml_alerts.parquet")
    X = table.drop(columns=["ALERT", "SAR", "csrNotes"]).astype({"state": "category"})
    report = train_alert_scorer(X, table.SAR, load_config(overrides={"training": {"num_threads": 1, "bootstrap_samples": 50}}), cv_folds=5).report
    assert report["split"]["test"]["rows"] == 2000
    assert report["context"]["stand_ins"][0] == "processing_date"
    assert report["test_auc"] > .936 - .01
    assert report["test_auc"] > report["test"]["scorings"]["default LightGBM"]["auc"]["value"] - .005
    assert report["test_brier"] < report["test_brier_uncalibrated"] + .001


def test_lightgbm_binary_example():
    "Its own split, given as two dates."
    train, test = (pd.read_csv(published("lightgbm_binary") / f"binary.{part}", sep="\t", header=None).add_prefix("f") for part in ("train", "test"))
    table = pd.concat([train, test], ignore_index=True)
    dates = pd.DataFrame({"processing_date": np.repeat(pd.to_datetime(["2025-01-01", "2025-01-02"]), [len(train), len(test)])})
    config = load_config(overrides={"training": {"num_threads": 1, "test_fraction": .5}})
    report = train_alert_scorer(TrainingData.from_table("alert_scorer", table.drop(columns="f0"), table.f0, config, dates)).report
    assert report["split"]["test"]["rows"] == len(test)
    assert report["test"]["scorings"]["default LightGBM"]["auc"]["value"] == pytest.approx(.832, abs=.002)
    assert report["test_auc"] > .832 - .005
