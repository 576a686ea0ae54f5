"""The cluster scorer as its users run it: papermill, command line, other folders, other thread counts, small data."""
from dataclasses import replace
import json
import shutil

from conftest import ROOT, published, run_module, run_papermill, run_warm
import nbformat
import numpy as np
import pandas as pd
import pytest

from aml_miner.batches.loader import read_batch
from aml_miner.config.model_config import load_config
from aml_miner.testing.tiny_batch import tiny_batch
from aml_miner.training.cluster_data import label_clusters
from aml_miner.training.cluster_folds import check_apart, cluster_folds
from aml_miner.training.train_cluster_scorer import main, prepare_cluster_data, train_cluster_scorer

NOTEBOOK = ROOT / "nbs" / "03_train_cluster_scorer.ipynb"
COMMAND = ("-m", "aml_miner.training.train_cluster_scorer")
QUICK = "training: {bootstrap_samples: 20, early_stopping_rounds: 5, learning_curve: []}\ncluster_scorer: {boosting: {n_estimators: 40}}\n"


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "quick.yaml"
    path.write_text(QUICK)
    return path


@pytest.fixture(scope="module")
def trained(twelve_days, quick, tmp_path_factory):
    "A model made by the command line on some days of the sample."
    model = tmp_path_factory.mktemp("trained") / "clusters.txt"
    done = run_warm(*COMMAND, "--data-dir", twelve_days, "--output", model, "--config", quick, "--num-threads", 1)
    assert done.returncode == 0, done.stderr
    return model


@pytest.fixture(scope="module")
def data(sample):
    return prepare_cluster_data(sample, load_config(overrides={"training": {"num_threads": 1}}))


def same(model, other):
    return all(model.with_suffix(s).read_bytes() == other.with_suffix(s).read_bytes() for s in (".txt", ".json"))


def test_papermill_makes_the_same_bytes_as_the_command_line(trained, twelve_days, quick, tmp_path):
    model, executed = tmp_path / "clusters.txt", tmp_path / "out.ipynb"
    done = run_papermill(NOTEBOOK, executed, "-p", "data_dir", twelve_days, "-p", "output", model, "-p", "config", quick, "-p", "cv_folds", 5)
    assert done.returncode == 0, done.stderr
    assert same(trained, model)
    outputs = [o for c in nbformat.read(executed, 4).cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 6


def test_a_parameter_that_the_settings_refuse_stops_the_run(tmp_path):
    "All of them are named, before any work is done."
    done = run_papermill(NOTEBOOK, tmp_path / "out.ipynb", "-p", "output", tmp_path / "m.txt", "-p", "eval_metric", "gini")
    assert done.returncode != 0
    for message in ("cluster_scorer.eval_metric", "gini"): assert message in done.stderr, message
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
    text = trained.with_suffix(".json").read_text()
    report = json.loads(text)
    for key in ("test_auc", "test_precision", "test_recall", "test_f1", "best_iteration", "num_features", "cv_auc_mean", "cv_auc_std", "cv_scores",
                "features", "seed", "versions", "model_sha256", "calibration", "threshold", "importance"):
        assert report[key], key
    assert report["model_type"] == "cluster_scorer" and report["data"]["vocabulary"]
    assert set(report["test"]["scorings"]) == {"scorer", "uncalibrated", "class weight balanced", "default LightGBM", "severity order", "expected gain"}
    assert report["split"]["train"]["last"] < report["split"]["test"]["first"]
    seen = report["test"]["by_address"]
    assert seen["seen"]["rows"] + seen["unseen"]["rows"] == report["test"]["rows"] and report["test_unseen_addresses"]["rows"] == seen["unseen"]["rows"]
    assert report["data"]["n_labelled"] + report["data"]["n_unlabelled"] == report["data"]["n_clusters"]
    assert str(ROOT) not in text and str(trained.parent) not in text


def test_one_row_per_cluster(data, sample):
    clusters = pd.concat(pd.read_parquet(f / "clusters.parquet") for f in sorted(sample.glob("2*")))
    assert len(clusters) == data.source["n_clusters"] and data.X.index.is_unique
    assert data.X.index.get_level_values("cluster_id").isin(clusters.cluster_id).all()


def test_labels_by_hand(data, sample, tmp_path):
    "What the sample says of its clusters; and without that, at least half of the labelled alerts of each, counted once more with plain pandas."
    expected, own, derived = {}, {}, {}
    for folder in sorted(sample.glob("2*")):
        alerts, clusters = (pd.read_parquet(folder / f"{n}.parquet") for n in ("alerts", "clusters"))
        truth = alerts.groupby("alert_id").ground_truth.agg(["count", "sum"])
        for c in clusters.itertuples():
            n, illicit = truth.loc[list(c.related_alert_ids)].sum()
            if n: expected[c.cluster_id] = int(2 * illicit >= n)
            if not pd.isna(c.ground_truth): own[c.cluster_id] = int(c.ground_truth)
        shutil.copytree(folder, tmp_path / folder.name)
        (tmp_path / folder.name / "META.json").unlink()
        clusters.drop(columns="ground_truth").to_parquet(tmp_path / folder.name / "clusters.parquet")
        labels = label_clusters(read_batch(tmp_path / folder.name), 0.5)
        derived |= labels[labels.ground_truth.notna()].set_index("cluster_id").ground_truth.astype(int).to_dict()
    assert own == dict(zip(data.X.index.get_level_values("cluster_id"), data.y))
    assert derived == expected


def test_no_address_on_both_sides_of_a_fold(data):
    train = data.holdout.train
    addresses = [data.addresses[i] for i in train]
    for seed in range(3):
        for learnt, judged in cluster_folds(data.y[train], addresses, 5, seed).pairs: check_apart(learnt, judged, addresses)


def test_what_comes_later_changes_no_model(data):
    "Other labels on the test days: the same model, calibration and threshold."
    short = {"cv_folds": 2, "early_stopping_rounds": 5, "bootstrap_samples": 0}
    config = load_config(data.config, {"training": short, "cluster_scorer": {"boosting": {"n_estimators": 30}}})
    test = data.holdout.test
    other = data.y.copy()
    other[test] = 1 - other[test]
    one, two = (train_cluster_scorer(replace(data, y=y), config=config) for y in (data.y, other))
    assert one.booster.model_to_string() == two.booster.model_to_string()
    assert (one.report["calibration"], one.threshold) == (two.report["calibration"], two.threshold)
    assert one.report["test_auc"] == pytest.approx(1 - two.report["test_auc"])


def test_better_than_severity_order(data):
    report = train_cluster_scorer(data, config=load_config(data.config, {"training": {"bootstrap_samples": 0}})).report
    scorings = report["test"]["scorings"]
    assert report["test_auc"] > .85 and scorings["scorer"]["auc"]["value"] > scorings["severity order"]["auc"]["value"] + .1


@pytest.mark.parametrize("args, message", [
    (("--data-dir", "absent"), "absent"),
    (("--data-dir", "data/sample", "--config", "absent.yaml"), "absent.yaml"),
    (("--data-dir", "data/sample", "--eval-metric", "gini"), "gini"),
    (("--data-dir", "data/sample", "--test-fraction", "2"), "test_fraction"),
])
def test_wrong_arguments_are_named(args, message, refused, tmp_path):
    assert message in refused(main, *args, "--output", tmp_path / "m.txt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change, message", [
    ({"clusters": lambda c: c.head(0)}, "none of the 0 clusters in 2 batches has a label"),
    ({"alerts": lambda a: a.assign(ground_truth=None)}, "none of the 8 clusters in 2 batches has a label"),
    ({"alerts": lambda a: a.assign(ground_truth=0)}, "there is no illicit row"),
    ({"clusters": lambda c: c.assign(ground_truth=1)}, "there is no licit row"),
])
def test_too_little_data_says_what_is_missing(change, message, refused, tmp_path):
    for day in ("2025-09-01", "2025-09-02"): tiny_batch(tmp_path / "data" / day, day, **change)
    assert message in refused(main, "--data-dir", tmp_path / "data", "--output", tmp_path / "m.txt")
    assert not (tmp_path / "m.txt").exists()


@pytest.mark.parametrize("name", ["torus_batches", "schema_example"])
def test_published_batches(name, quick, tmp_path):
    done = run_warm(*COMMAND, "--data-dir", published(name), "--output", tmp_path / "m.txt", "--config", quick, "--num-threads", 1)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "m.json").read_text())
    assert 0 <= report["test_auc"] <= 1 and np.isfinite(report["threshold"]["value"])
