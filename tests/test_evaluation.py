"""Laws of the evaluation that need more cases than a notebook shows."""
from itertools import permutations, product
import math
import os
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest

from aml_miner.evaluation import intervals, metrics, splits, summary


def tied_orders(scores):
    "Every order of the rows that a random break of ties can give, as distinct scores."
    n = len(scores)
    for p in permutations(range(n)): yield np.asarray(scores) + np.array(p) / (10 * n)


@pytest.mark.parametrize("seed", range(12))
def test_ties_are_expectations_over_all_orders(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 7))
    relevance, scores = rng.integers(0, 5, n), rng.integers(0, 3, n)
    y, orders = (relevance > 0).astype(int), list(tied_orders(scores))
    if not y.any(): relevance[0] = y[0] = 1
    for k in (1, 2, 3, 10):
        for gain in (None, [0, 1, 5, 6, 40]):
            expected = np.mean([metrics.ndcg_at_k(relevance, s, k, gain) for s in orders])
            assert metrics.ndcg_at_k(relevance, scores, k, gain) == pytest.approx(expected, abs=1e-12)
    for budget in (1, 2, 5, 0.3, 0.9):
        for metric in (metrics.recall_at_budget, metrics.precision_at_budget):
            expected = np.mean([metric(y, s, [n], budget) for s in orders])
            assert metric(y, scores, [n], budget) == pytest.approx(expected, abs=1e-12)
    if not y.all():
        assert metrics.roc_auc(y, scores) == pytest.approx(np.mean([metrics.roc_auc(y, s) for s in orders]), abs=1e-12)


def figures(y, relevance, scores, day):
    "Every ranking metric of rows that are grouped by day."
    groups = np.bincount(day)
    counts = metrics.threshold_counts(y, scores)
    return np.concatenate([
        metrics.ndcg_by_query(relevance, scores, groups, [1, 5, 500]).ravel(), metrics.found_at_budgets(y, scores, groups, [1, 7, 0.1]).ravel(),
        [counts.roc_auc(), counts.average_precision()], [counts.recall_at_fpr(f) for f in (0, 0.05, 0.2, 1)],
        [counts.false_positives_removed(r) for r in (0, 0.5, 0.9, 1)], *counts.gain(), *counts.precision_recall()])


@pytest.mark.parametrize("seed", range(10))
def test_metrics_depend_on_the_order_of_scores_alone(seed):
    rng = np.random.default_rng(seed)
    n = 400
    day, relevance, scores = np.sort(rng.integers(0, 4, n)), rng.integers(0, 5, n) * (rng.random(n) < .2), rng.integers(-20, 20, n)
    y = (relevance > 0).astype(int)
    base = figures(y, relevance, scores, day)
    for changed in (scores * 3 + 7, np.exp(scores / 4), np.cbrt(scores), 1 / (1 + np.exp(-scores / 8))):
        np.testing.assert_array_equal(figures(y, relevance, changed, day), base)
    order = np.lexsort((rng.random(n), day))
    np.testing.assert_array_equal(figures(y[order], relevance[order], scores[order], day[order]), base)


@pytest.mark.parametrize("seed", range(6))
def test_bounds_and_directions(seed):
    rng = np.random.default_rng(seed)
    n = 300
    y = (rng.random(n) < .2).astype(int)
    for scores in (rng.random(n), rng.integers(0, 4, n), np.zeros(n)):
        counts = metrics.threshold_counts(y, scores)
        recalls = [counts.recall_at_fpr(f) for f in np.linspace(0, 1, 41)]
        removed = [counts.false_positives_removed(r) for r in np.linspace(0, 1, 41)]
        assert recalls == sorted(recalls) and removed == sorted(removed, reverse=True)
        assert 0 <= min(recalls + removed) and max(recalls + removed) <= 1 and recalls[-1] == 1
        assert counts.roc_auc() + metrics.roc_auc(y, -scores) == pytest.approx(1, abs=1e-12)
    perfect = metrics.threshold_counts(y, y)
    assert (perfect.roc_auc(), perfect.average_precision(), perfect.recall_at_fpr(0), perfect.false_positives_removed(1)) == (1, 1, 1, 1)
    assert metrics.ndcg_at_k(y, y, 50) == 1
    assert metrics.roc_auc(y, np.zeros(n)) == .5


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    truth = 0.5 * (1 + math.erf(0.5))  # AUC of two unit normals one apart
    hits, runs = 0, 150
    for run in range(runs):
        rng = np.random.default_rng(run)
        day, y = np.repeat(np.arange(25), 30), rng.random(750) < .2
        y[:2] = (0, 1)
        found = intervals.bootstrap_by_day(y, y + rng.normal(0, 1, 750), day, n_samples=200, seed=run)
        hits += found["low"] <= truth <= found["high"]
    assert 0.88 <= hits / runs <= 0.99


def test_resampling_days_sees_what_resampling_alerts_does_not():
    hits = {"day": 0, "alert": 0}
    for run in range(60):
        rng = np.random.default_rng(run)
        day = np.repeat(np.arange(25), 30)
        truth, y = 0.2, (rng.random(750) < np.repeat(rng.beta(1, 4, 25), 30)).astype(float)  # 0.2 in the mean, other by day
        for name, unit in (("day", day), ("alert", np.arange(750))):
            draws = intervals.DayBootstrap(unit, 200, seed=run)
            found = draws.interval(y.mean(), draws.ratio_samples(draws.sums(y), draws.sums(np.ones(750))))
            hits[name] += found["low"] <= truth <= found["high"]
    assert hits["day"] / 60 > 0.82 and hits["alert"] < 0.75 * hits["day"]


def best_boundary(day, y, wanted):
    "First test date by trying them all."
    for start in range(wanted, 0, -1):
        parts = [set(y[day < start]), set(y[day >= start])]
        if parts == [{0, 1}, {0, 1}]: return start
    return None


def addresses_can_divide(codes, y):
    "Whether any set of addresses leaves both classes on both sides, by trying them all."
    n = codes.max() + 1
    return any(set(y[np.isin(codes, side)]) == set(y[~np.isin(codes, side)]) == {0, 1}
               for side in (np.flatnonzero(bits) for bits in product((0, 1), repeat=n)))


@pytest.mark.parametrize("block", range(8))
def test_holdout_against_trying_everything(block):
    for seed in range(block * 60, block * 60 + 60):
        rng = np.random.default_rng(seed)
        n, n_days, n_addresses = int(rng.integers(1, 14)), int(rng.integers(1, 6)), int(rng.integers(1, 6))
        raw_day, raw_codes = rng.integers(0, n_days, n), rng.integers(0, n_addresses, n)
        day, codes = np.unique(raw_day, return_inverse=True)[1], np.unique(raw_codes, return_inverse=True)[1]
        y, fraction = (rng.random(n) < .4).astype(int), float(rng.choice([.1, .2, .34, .5, .9]))
        dates, names = np.datetime64("2025-09-01") + day, np.array([f"a{c}" for c in codes])
        total = day.max() + 1
        start = best_boundary(day, y, min(max(total - math.ceil(fraction * total - 1e-9), 1), total - 1))
        if start is None and not addresses_can_divide(codes, y):
            with pytest.raises(ValueError, match="no test set"): splits.time_holdout(dates, y, names, fraction, seed)
            continue
        found = splits.time_holdout(dates, y, names, fraction, seed)
        np.testing.assert_array_equal(np.sort(np.concatenate([found.train, found.test])), np.arange(n))
        assert set(y[found.train]) == set(y[found.test]) == {0, 1}
        if start is None:
            assert found.method == "addresses" and found.boundary is None
            splits.check_no_overlap(found.train, found.test, addresses=names)
        else:
            assert found.method.startswith("dates") and np.datetime64(found.boundary) == np.datetime64("2025-09-01") + start
            splits.check_no_overlap(found.train, found.test, dates=dates)
        order = rng.permutation(n)
        again = splits.time_holdout(dates[order], y[order], names[order], fraction, seed)
        np.testing.assert_array_equal(np.sort(order[again.test]), found.test)
        assert (again.method, again.boundary, again.reason) == (found.method, found.boundary, found.reason)


@pytest.mark.parametrize("seed", range(25))
def test_folds_keep_their_laws(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 200))
    dates = np.datetime64("2025-09-01") + rng.integers(0, int(rng.integers(1, 12)), n)
    y, names = (rng.random(n) < .25).astype(int), np.array([f"a{i}" for i in rng.integers(0, 15, n)])
    y[:2] = (0, 1)
    order, asked = rng.permutation(n), int(rng.integers(2, 7))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for make in (lambda o: splits.grouped_folds(y[o], names[o], asked, seed), lambda o: splits.forward_folds(dates[o], y[o], asked, names[o], seed)):
            folds, again = make(np.arange(n)), make(order)
            assert 1 <= len(folds.pairs) <= asked and (folds.method, folds.reason) == (again.method, again.reason)
            for (train, valid), (train2, valid2) in zip(folds.pairs, again.pairs, strict=True):
                by = dict(addresses=names) if folds.method == "addresses" else dict(dates=dates)
                splits.check_no_overlap(train, valid, **by)
                assert set(y[train]) == {0, 1} and y[valid].any()
                np.testing.assert_array_equal(np.sort(order[train2]), train)
                np.testing.assert_array_equal(np.sort(order[valid2]), valid)


SUMMARY = """
import hashlib, numpy as np, pandas as pd
from aml_miner.config.model_config import load_config
from aml_miner.evaluation.summary import ranking_summary
from aml_miner.utils.files import to_json
rng = np.random.default_rng(0); n = 3000
order = rng.permutation(n) if SHUFFLED else np.arange(n)
rng = np.random.default_rng(1)
y = (rng.random(n) < .1).astype(int)
index = pd.DataFrame({"processing_date": pd.Timestamp("2025-09-01") + pd.to_timedelta(np.arange(n) % 9, unit="D"), "window_days": 7,
    "alert_id": np.arange(n).astype(str), "typology_type": rng.choice(["fan_in", "cycle"], n), "address": rng.integers(0, 500, n).astype(str)})
scores = {"scorer": rng.random(n), "ranker": rng.integers(0, 9, n)}
severity = rng.choice(["low", "high"], n)
training = load_config(overrides={"training": {"bootstrap_samples": 50}}).training
block = ranking_summary(index.iloc[order], y[order], y[order], {k: v[order] for k, v in scores.items()}, severity[order], training,
                        train_addresses=set(map(str, range(200))), reference="ranker", probabilities=["scorer"])
print(hashlib.sha256(to_json(block).encode()).hexdigest())
"""


def test_summary_has_the_same_bytes_in_other_processes(tmp_path):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    seen = set()
    for seed, threads, shuffled in (("0", "1", False), ("77", "2", True)):
        env = os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": root}
        program = SUMMARY.replace("SHUFFLED", str(shuffled))
        run = subprocess.run([sys.executable, "-c", program], env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
        seen.add(run.stdout)
    assert len(seen) == 1


def test_summary_of_many_small_worlds_never_breaks():
    from aml_miner.config.model_config import load_config
    from aml_miner.utils.files import to_json
    training = load_config(overrides={"training": {"bootstrap_samples": 20}}).training
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 40))
        index = pd.DataFrame({
            "processing_date": np.datetime64("2025-09-01") + rng.integers(0, 8, n),
            "window_days": rng.choice([7, 30], n),
            "alert_id": np.arange(n).astype(str),
            "typology_type": rng.choice(["fan_in", "cycle"], n),
            "address": rng.integers(0, 9, n).astype(str),
        })
        severity = rng.choice(["low", "CRITICAL", "odd"], n)
        relevance = (rng.random(n) < rng.choice([0, .3, 1])) * rng.integers(1, 5, n)
        block = summary.ranking_summary(index, (relevance > 0).astype(int), relevance, {"a": rng.random(n), "b": rng.integers(0, 2, n)}, severity, training,
                                        reference="b", probabilities=["a"])
        for name, f in block["scorings"]["a"].items():
            assert math.isnan(f["value"]) or 0 <= f["value"] <= 1, name
            assert (f["low"] is None) == ("reason" in f), name
            assert f["low"] is None or f["low"] <= f["high"], name
        assert to_json(block)
