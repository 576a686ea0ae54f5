"""The ranker on data that this project did not make; skipped where it is not there (set AML_MINER_DATA to its folder)."""
import json

from conftest import published, run_warm
import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_svmlight_file

from aml_miner.config.model_config import load_config
from aml_miner.evaluation.metrics import mean_ndcg, ndcg_by_query
from aml_miner.training import train_alert_ranker



def read_letor(path):
    "Features, grades and query sizes of a libsvm file with its .query file."
    X, y = load_svmlight_file(str(path), n_features=300)
    return pd.DataFrame(X.toarray()).add_prefix("f"), y.astype(int), np.loadtxt(f"{path}.query", dtype=int)


def test_lambdarank_example_gives_lightgbms_own_figures():
    "With LightGBM's settings instead of ours: the same trees, so the same NDCG; both above what LightGBM's own test asks."
    train, test = (read_letor(published("lightgbm_lambdarank") / f"rank.{part}") for part in ("train", "test"))
    plain = {"n_estimators": 100, "learning_rate": 0.1, "subsample": 1.0, "colsample_bytree": 1.0, "reg_lambda": 0.0, "extra_trees": False}
    config = load_config(overrides={"training": {"test_fraction": 0.199, "num_threads": 1, "cv_folds": 0},
                                    "alert_ranker": {"objective": "lambdarank", "rivals": [], "boosting": plain}})
    X, y, groups = pd.concat([train[0], test[0]]), np.r_[train[1], test[1]], np.r_[train[2], test[2]]
    report = train_alert_ranker(X, y, groups, config, ndcg_at=[1, 3, 5, 10]).report
    own = lgb.LGBMRanker(n_estimators=100, n_jobs=1, verbosity=-1).fit(train[0], train[1], group=train[2])
    expected, _ = mean_ndcg(ndcg_by_query(test[1], own.predict(test[0]), test[2], [1, 3, 5, 10]))
    assert report["split"]["test"]["dates"] == len(test[2]) and report["split"]["test"]["rows"] == len(test[1])
    assert [report[f"test_ndcg@{k}"] for k in (1, 3, 5, 10)] == pytest.approx(expected, abs=1e-12)
    assert report["test_ndcg@1"] > 0.567 and report["test_ndcg@3"] > 0.578


@pytest.mark.parametrize("name, method", [("torus_weekly_batches", "dates moved back"), ("torus_batches", "addresses"), ("schema_example", "addresses")])
def test_real_batches_train(name, method, quick_config, tmp_path):
    "26 batches whose later ones have nothing illicit, and single batches that can only be divided by address."
    model = tmp_path / "m.txt"
    done = run_warm("-m", "aml_miner.training.train_ranker", "--data-dir", published(name), "--output", model, "--config", quick_config, "--num-threads", 1)
    assert done.returncode == 0, done.stderr
    report = json.loads(model.with_suffix(".json").read_text())
    assert report["split"]["method"] == method
    assert report["test"]["positives"] > 0 and report["test_ndcg@10"] is not None
    assert report["data"]["n_unlabelled"] == 0
