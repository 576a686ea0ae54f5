"""What the tests of the processor compare: numbers of the functions that figures are made of, batches, models, reports, cards and scores.

Features lie in the cache. One process, one folder."""
from pathlib import Path
import sys

import numpy as np
import pandas as pd
from scipy import sparse

QUICK = """training: {bootstrap_samples: 20, early_stopping_rounds: 20, cv_folds: 2, num_threads: 1}
alert_scorer: {boosting: {n_estimators: 30, min_child_samples: 5}}
alert_ranker: {boosting: {n_estimators: 30, min_child_samples: 5}}
cluster_scorer: {boosting: {n_estimators: 30, min_child_samples: 5}}
"""


def numpy_numbers():
    "What numpy itself makes of many numbers: where it differs, the two machines do. No figure is made of it."
    x = np.random.default_rng(0).normal(size=100_000) * 5
    return {"exp": np.exp(x), "log": np.log(np.abs(x)), "order": np.argsort(np.rint(x))}


def arithmetic(x):
    "What the package relies on: sums, means, quantiles, straight lines between points, products of sparse matrices, in an order that no processor changes."
    tables, cuts = [x[:n * k].reshape(n, k) for n, k in ((50_000, 2), (999, 100), (3, 30_000))], np.arange(0, len(x), 7)
    matrix = sparse.csr_array((x[:9000], (np.arange(9000) * 7 % 101, np.arange(9000) % 89)), shape=(101, 89))
    results = [[f(x[:n]) for n in range(1, 999)] for f in (np.sum, np.mean, np.std, np.median)]
    results += [f(t, axis=axis) for t in tables for axis in (0, 1) for f in (np.sum, np.mean, np.std)]
    results += [np.add.reduceat(x, cuts), np.cumsum(x), np.bincount(cuts % 97, x[cuts]), x ** 2, np.round(x, 4)]
    results += [np.quantile(x, np.linspace(0, 1, 77)), np.interp(x[::9], np.sort(x[:999]), x[:999])]
    frame = pd.DataFrame({"key": cuts % 13, "value": x[cuts]})
    results += [getattr(frame.groupby("key").value, name)() for name in ("sum", "mean", "std", "median")] + [frame.value.rank(), frame.mean()]
    return np.concatenate([*results, matrix @ x[:89], (matrix.T @ matrix).data, matrix.sum(axis=1)])


def around(rng, n=3000, m=20_000):
    "Circles and smurfing of many addresses: groups that are off by default."
    from aml_miner.config.model_config import load_config
    from aml_miner.features.community_features import community_values
    from aml_miner.features.flow_graph import DAY, FlowGraph
    from aml_miner.features.smurfing_features import smurfing_values
    source, dest = (n * rng.random((2, m)) ** 2).astype(np.int32)
    kept, ids = source != dest, np.arange(n, dtype=np.int32)
    micro, at_ms = rng.integers(0, 10**12, m), np.sort(rng.integers(0, 7 * DAY, m))
    graph = FlowGraph(n, source[kept], dest[kept], micro[kept], at_ms[kept], 0, 7 * DAY, ids, ids, ids, ids[::50], ids[7::50])
    config = load_config().feature_engineering
    return np.concatenate([v.astype(np.float64) for v in (community_values(graph, config) | smurfing_values(graph, config)).values()])


def numbers():
    "Functions of many numbers, for which no luck is needed: a last bit that depends on the processor shows."
    from aml_miner.batches.address_profiles import _unusual
    from aml_miner.simulation.schemes import waking_hours
    from aml_miner.simulation.world import draw_amounts
    from aml_miner.evaluation.agreement import rank_correlation
    from aml_miner.evaluation.calibration import psi
    from aml_miner.evaluation.metrics import NDCGEvaluator
    from aml_miner.features.position_features import distance_in
    from aml_miner.models.classification import log_loss
    from aml_miner.models.probability import fit_isotonic, fit_sigmoid, log_odds, sigmoid
    from aml_miner.utils import portable_math
    rng = np.random.default_rng(1)
    x = rng.uniform(-30, 30, 100_000)
    y, few = (rng.random(3000) < .2).astype(int), x[:3000]
    positive = np.abs(x) + 1e-9
    return {
        "arithmetic": arithmetic(x),
        **{name: getattr(portable_math, name)(positive) for name in ("exp", "log", "log1p", "log2", "log10")},
        "evenness": portable_math.evenness(rng.integers(0, 9, (9999, 7))),
        "sigmoid": sigmoid(x), "log_odds": log_odds(rng.random(100_000)),
        "log_loss": np.array([log_loss(y, sigmoid(few * k)) for k in np.linspace(.1, 1, 50)]),
        "fit_sigmoid": np.array([v for k in range(1, 20) for v in list(fit_sigmoid(y, few * k / 9 + y).values())[1:]]),
        "fit_isotonic": np.array(fit_isotonic(y, few + 9*y)["y"]),
        "psi": np.array([psi(few[::2], few[1::2] * k) for k in np.linspace(.5, 2, 50)]),
        "ndcg": NDCGEvaluator(y, [300] * 10, range(1, 101))(few + 9*y).ravel(),
        "rank_correlation": np.array([rank_correlation(few[i::10], few[i+1::10]) for i in range(9)]),
        "distance_in": distance_in(x, np.sort(x[:99])),
        "unusual": _unusual(positive, positive[::-1]),
        "amounts": draw_amounts(rng, 50_000, 45, 1.1, 5),
        "waking_hours": waking_hours(positive, 3.),
        "around": around(rng),
    }


def make_files(folder):
    "Everything, into a folder."
    from aml_miner.conversion.simulate import simulate_batches
    from aml_miner.scoring.score_batch import main as score
    from aml_miner.training.train_cluster_scorer import main as train_clusters
    from aml_miner.training.train_ranker import main as train_ranker
    from aml_miner.training.train_scorer import main as train_scorer
    batches, config = folder / "batches", folder / "quick.yaml"
    config.write_text(QUICK)
    simulate_batches(batches, days=8, alerts_per_day=100, flows_per_day=2500, window_days=5, illicit_share=0.3, stealth=0.4, seed=3)
    for name, train in (("alert_scorer", train_scorer), ("alert_ranker", train_ranker), ("cluster_scorer", train_clusters)):
        assert not train(["--data-dir", str(batches), "--output", str(folder / "models" / f"{name}.txt"), "--config", str(config)]), name
    day, models, scores = batches / "2025-09-06", folder / "models", folder / "scores"
    assert not score(["--batch-dir", str(day), "--models-dir", str(models), "--output-dir", str(scores), "--no-latency"])


def main(folder, *parts):
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
    folder = Path(folder)
    for part, made in (("numpy", numpy_numbers()), ("numbers", numbers())):
        (folder / part).mkdir(parents=True)
        for name, values in made.items(): np.save(folder / part / f"{name}.npy", values)
    (folder / "numpy" / "variants.txt").write_text(" ".join(name for name in __cpu_dispatch__ if __cpu_features__[name]))
    if "all" in parts: make_files(folder)


if __name__ == "__main__": main(*sys.argv[1:])
