"""Which order of the queue finds most: the alert ranker and its rivals on many sets of several makers, the same features, hold-out and later days for all.

    python benchmarks/order.py [--sets choose|show|NAME ...] [--learn-days 5 10 20] [--jobs 2] [--keep FOLDER]

Small sets (10 to 30 days of 100 to 150 alerts) and large ones come from the simulator, from the public AMLworld cut and AMLSim sample through the monitoring
rules, and from published batches; those below AML_MINER_DATA are left out, with a word, where they are absent. Settings were chosen on the sets of `choose`;
`show` (the default) holds other seeds. A figure is the mean over sets; a difference is paired by day within a set, its interval from resampling sets and,
within them, days. CatBoost takes part where it is installed.

With --learn-days only so many of the last training days are learnt from: a learning curve, of the same later days.

Two candidates go on from a start, with as many rounds as the alert ranker has: LambdaRank from the log of the expected gain, which folds by address gave
for its own training alerts; and the ranker's trees from those of another network, the first set of `choose`, learnt from the numbers that both have.
"""
import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import repeat
import multiprocessing
import os
from pathlib import Path
import subprocess
import sys
import tempfile
import time

import lightgbm as lgb
from loguru import logger
import numpy as np
import pandas as pd

from aml_miner.config.model_config import load_config
from aml_miner.evaluation.metrics import NDCGEvaluator, average_precision, roc_auc
from aml_miner.evaluation.splits import Holdout
from aml_miner.evaluation.summary import severity_gain, severity_order, severity_rank
from aml_miner.models.boosting import boosting_params, make_dataset, members, run_lengths, train_final
from aml_miner.models.classification import default_lightgbm
from aml_miner.models.expected_gain import Gain
from aml_miner.models.probability import sigmoid
from aml_miner.training.train_ranker import prepare_ranking_data, train_alert_ranker
from aml_miner.training.train_scorer import train_alert_scorer
from aml_miner.training.training_data import TrainingData, make_folds

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AML_MINER_DATA", ROOT.parent/"shared"/"data"))
CUT, SAMPLE, TORUS = "amlworld/amlworld_hi_small_cut15k.parquet", "amlsim/amlsim_ibm_20K_cycle200_transactions.parquet", "torus_weekly_batches"
BASE, METRICS = "alert ranker", ("NDCG@10", "NDCG@20", "AP", "AUC", "first 20")


def simulated(seed: int, days: int, alerts: int, *more: str) -> tuple:
    "A set of the simulator: published file, command, days until an outcome is known."
    return None, ["aml_miner.simulation.simulator", "--days", str(days), "--alerts-per-day", str(alerts), "--seed", str(seed), *more], 14


SETS = {
    "choose": {f"simulated_{seed}": simulated(seed, days, n) for seed, days, n in (
        (301, 21, 150), (302, 21, 150), (303, 21, 150), (304, 21, 150), (305, 21, 150), (306, 21, 150), (307, 10, 100), (308, 10, 100),
        (309, 30, 100), (310, 30, 100))},
    "show": {f"simulated_{seed}": simulated(seed, days, n) for seed, days, n in (
        (401, 21, 150), (402, 21, 150), (403, 21, 150), (404, 21, 150), (405, 21, 150), (406, 21, 150), (407, 10, 100), (408, 10, 100), (409, 10, 100),
        (410, 30, 100), (411, 30, 100), (412, 30, 100), (413, 15, 120), (414, 15, 120), (415, 15, 120))}
    | {f"simulated_{seed}_large": simulated(seed, 60, 300, "--flows-per-day", "4000") for seed in (421, 422, 423)}
    | {"amlworld": (CUT, ["aml_miner.conversion.convert", "--source", "amlworld", "--rules", "sensitive"], 2),
       "amlsim": (SAMPLE, ["aml_miner.conversion.convert", "--source", "amlsim", "--rules", "small_amounts", "--every-days", "7"], 14),
       "torus": (TORUS, None, 14)},
}
OTHERS = list(SETS["choose"])[:2]  # another network to begin with, and one for the first of them


def prepared(name: str, folder: Path) -> TrainingData | None:
    "The ranker's data of a set, its batches made once; None where the published file is absent."
    file, command, delay = (SETS["choose"] | SETS["show"])[name]
    if file and not (DATA/file).exists():
        print(f"{name}: no {file} in {DATA}; set AML_MINER_DATA to the folder that holds it")
        return None
    batches = folder/name if command else DATA/file
    if command and not batches.is_dir():
        source = ["--input", str(DATA/file)] if file else []
        done = subprocess.run([sys.executable, "-m", *command, "--output", str(batches), *source], cwd=ROOT, capture_output=True, text=True)
        if done.returncode: raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return prepare_ranking_data(batches, load_config(overrides={
        "feature_engineering": {"label_delay_days": delay}, "alert_ranker": {"rivals": []},
        "training": {"num_threads": 1, "bootstrap_samples": 0, "learning_curve": []}}))


def last_days(data: TrainingData, days: int) -> TrainingData:
    "The same data, learnt from its last training days alone; 0 for all."
    if not days: return data
    dates, train = pd.to_datetime(data.context.processing_date), data.holdout.train
    kept = train[dates.iloc[train].isin(np.sort(dates.iloc[train].unique())[-days:])]
    return replace(data, holdout=Holdout(kept, data.holdout.test, data.holdout.method, data.holdout.boundary, data.holdout.reason))


def catboost_scores(X, y, later):
    "Probabilities by CatBoost as it comes."
    from catboost import CatBoostClassifier

    texts = [c for c in X if isinstance(X[c].dtype, pd.CategoricalDtype)]
    plain = lambda table: table.assign(**{c: table[c].astype(object).where(table[c].notna(), "missing").astype(str) for c in texts})
    model = CatBoostClassifier(verbose=0, thread_count=1, random_seed=1, allow_writing_files=False)
    return model.fit(plain(X), y, cat_features=texts).predict_proba(plain(later))[:, 1]


def continued(X, y, start, params: dict, rounds: int, later, later_start, group=None) -> np.ndarray:
    "Raw scores of the later alerts by trees that go on from a start."
    grown = lambda own: lgb.train(own, lgb.Dataset(X, y, group=group, init_score=start, params=own), rounds)
    return later_start + np.mean([grown(own).predict(later, raw_score=True) for own in members(params)], axis=0)


def lambdarank_from_gain(data: TrainingData, later, rounds: int, more: int = 10) -> np.ndarray:
    "LambdaRank that starts from the log of the expected gain."
    train, ranker = data.holdout.train, data.config.alert_ranker
    X, illicit, gain = data.X.iloc[train], data.illicit[train].astype(np.float64), Gain.from_config(ranker, data.X.iloc[train])
    params = boosting_params(ranker.boosting, data.config.training, X.shape, objective="binary")
    binned, odds = make_dataset(X, params), np.zeros(len(X))
    fitted = lambda rows: train_final(binned.subset(rows.tolist()).construct(), illicit[rows], params, rounds)[0]
    for learnt, held in make_folds(replace(data, model_type="alert_scorer", y=data.illicit), data.config.training)[0].pairs:
        odds[held] = fitted(learnt).predict(X.iloc[held], raw_score=True)
    of_later = fitted(np.arange(len(X))).predict(later, raw_score=True)
    ranking = params | {"objective": "lambdarank", "label_gain": list(ranker.label_gain), "lambdarank_truncation_level": ranker.lambdarank_truncation_level}
    queries = run_lengths(data.query[train])
    return continued(X, data.y[train], gain.log_expected(odds, X), ranking, more, later, gain.log_expected(of_later, later), queries)


def from_another_network(data: TrainingData, other: TrainingData, later, rounds: int) -> np.ndarray:
    "Log-odds by trees that go on from those of another network."
    train, section, training = data.holdout.train, data.config.alert_ranker.boosting, data.config.training
    both = [c for c in other.X if c in data.X and not any(isinstance(d.X[c].dtype, pd.CategoricalDtype) for d in (data, other))]
    X, params = data.X.iloc[train], lambda table: boosting_params(section, training, table.shape, objective="binary")
    prior = train_final(make_dataset(other.X[both], params(other.X[both])), other.illicit.astype(np.float64), params(other.X[both]), rounds)[0]
    start, later_start = (prior.predict(table[both], raw_score=True) for table in (X, later))
    return continued(X, data.illicit[train], start, params(X), rounds, later, later_start)


def orders(data: TrainingData, other: TrainingData) -> dict[str, tuple[np.ndarray, float]]:
    "Name of each order: scores of the later alerts, CPU seconds of its training."
    train, test, context = data.holdout.train, data.holdout.test, data.context
    X, illicit, later = data.X.iloc[train], data.illicit[train], data.X.iloc[test]
    gain, scores = severity_gain(context.severity.iloc[test], data.config.alert_ranker.label_gain), {}

    def timed(name: str, train_and_score: Callable[[], np.ndarray]) -> np.ndarray:
        start = time.process_time()
        scores[name] = train_and_score(), time.process_time() - start
        return scores[name][0]

    def ranker(**own): return train_alert_ranker(data, config=load_config(data.config, {"alert_ranker": own}))

    of_alerts = replace(data, model_type="alert_scorer", y=data.illicit.astype(np.int64))
    start, model = time.process_time(), ranker()
    rounds, scores[BASE] = model.report["best_iteration"], (model.raw_scores(later), time.process_time() - start)
    timed("alert ranker, one learner", lambda: ranker(boosting={"extra_trees": False}).raw_scores(later))
    timed("LambdaRank", lambda: ranker(objective="lambdarank").raw_scores(later))
    timed("LambdaRank from expected gain", lambda: lambdarank_from_gain(data, later, rounds))
    timed("from another network, times gain", lambda: sigmoid(from_another_network(data, other, later, rounds)) * gain)
    p = timed("alert scorer", lambda: train_alert_scorer(of_alerts).predict_proba(later)[:, 1])
    plain = timed("LightGBM as it comes", lambda: np.asarray(default_lightgbm(X, illicit, data.config.training).predict_proba(later))[:, 1])
    scores |= {f"{name}, times gain": (s * gain, scores[name][1]) for name, s in (("alert scorer", p), ("LightGBM as it comes", plain))}
    try: timed("CatBoost, times gain", lambda: catboost_scores(X, illicit, later) * gain)
    except ImportError: pass
    known = context.iloc[test]
    scores["severity, then confidence"] = severity_order(severity_rank(known.severity), known.alert_confidence_score), 0.
    return scores


def judged(data: TrainingData, scores: np.ndarray) -> tuple[dict[str, float], pd.DataFrame]:
    "Figures of the later days, and the two NDCG of each day."
    test = data.holdout.test
    day, illicit = data.context.batch.to_numpy()[test], data.illicit[test]
    by_day = NDCGEvaluator(data.y[test], run_lengths(day), (10, 20), data.config.alert_ranker.label_gain)(scores)
    first = pd.DataFrame({"day": day, "illicit": illicit, "score": -scores}).sort_values(["day", "score"], kind="stable").groupby("day").head(20)
    mean = np.nanmean(by_day, axis=0)
    return dict(zip(METRICS, (*mean, average_precision(illicit, scores), roc_auc(illicit, scores), first.illicit.sum() / illicit.sum()))), by_day


def compared(name: str, folder: Path, learn_days: Sequence[int]) -> dict[int, dict[str, tuple]]:
    "Days that were learnt from: figures, NDCG by day and CPU seconds of each order of a set."
    logger.remove()
    results: dict[int, dict[str, tuple]] = {}
    try: whole, other = prepared(name, folder), prepared(next(o for o in OTHERS if o != name), folder)
    except ValueError as e:  # a class is missing: the other sets go on
        print(f"{name}: {e}", flush=True)
        return {}
    for days in learn_days if whole and other else ():
        data = last_days(whole, days)
        try: found = results[days] = {order: (*judged(data, scores), cpu) for order, (scores, cpu) in orders(data, other).items()}
        except ValueError as e:
            print(f"{name}, {days or 'all'} days: {e}", flush=True)
            continue
        sizes = [f"{len(rows):,} alerts, {int(data.illicit[rows].sum()):,} illicit" for rows in (data.holdout.train, data.holdout.test)]
        print(f"{name}{f', {days} days' if days else ''}: learnt from {sizes[0]}; judged on {sizes[1]}; NDCG@20 "
              + ", ".join(f"{order} {f[0]['NDCG@20']:.3f}" for order, f in found.items()), flush=True)
    return results


def interval(differences: list[np.ndarray], draws: int = 2000) -> tuple[float, float, float]:
    "Mean over sets of the mean over days, and 95 % of it over resampled sets and, within them, days."
    rng, known = np.random.default_rng(7), [d[~np.isnan(d)] for d in differences]
    known = [d for d in known if len(d)]
    means = [np.mean([rng.choice(known[i], len(known[i])).mean() for i in rng.integers(0, len(known), len(known))]) for _ in range(draws)]
    return float(np.mean([d.mean() for d in known])), *np.quantile(means, [.025, .975])


def tables(results: dict[str, dict[str, tuple]]) -> None:
    "Print figures, differences to the alert ranker, and all pairs."
    names = [name for name in next(iter(results.values())) if all(name in orders for orders in results.values())]
    figures = pd.DataFrame({name: pd.DataFrame([orders[name][0] for orders in results.values()]).mean() for name in names}).T
    gap = lambda a, b, k: [orders[a][1][:, k] - orders[b][1][:, k] for orders in results.values()]
    print(f"\n{len(results)} sets, means over sets; ahead: NDCG@20 less the alert ranker's, sets won and lost\n")
    print(f"| order | {' | '.join(METRICS)} | CPU s | ahead | won, lost |\n|{'---|' * (len(METRICS) + 4)}")
    for name in figures.sort_values("NDCG@20", ascending=False).index:
        cpu = np.mean([orders[name][2] for orders in results.values()])
        by_set = np.array([np.nanmean(d) for d in gap(name, BASE, 1)])
        value, low, high = interval(gap(name, BASE, 1)) if name != BASE else (0., 0., 0.)
        ahead = "" if name == BASE else f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
        won = "" if name == BASE else f"{(by_set > 5e-4).sum()}, {(by_set < -5e-4).sum()}"
        print(f"| {name} | {' | '.join(f'{figures.loc[name, m]:.3f}' for m in METRICS)} | {cpu:.1f} | {ahead} | {won} |")
    print("\nNDCG@20, row less column; * where the 95 % interval leaves 0 out\n")
    print(f"| | {' | '.join(map(str, range(1, len(names) + 1)))} |\n|{'---|' * (len(names) + 1)}")
    for i, a in enumerate(names, 1):
        cells = []
        for b in names:
            value, low, high = interval(gap(a, b, 1), 500) if a != b else (0., 0., 0.)
            cells.append("" if a == b else f"{value:+.3f}{'*' if low > 0 or high < 0 else ''}")
        print(f"| {i} {a} | {' | '.join(cells)} |")


def main(argv: list[str] | None = None) -> None:
    "Command line."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["show"], help="choose, show, or names of sets (default: show)")
    parser.add_argument("--learn-days", nargs="+", type=int, default=[0], metavar="N", help="last training days that are learnt from (default: 0, all)")
    parser.add_argument("--keep", type=Path, help="folder for the batches, which stay and are used again; default: a temporary one")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="sets at a time, each on one thread (default: 1)")
    args = parser.parse_args(argv)
    names, known = [name for group in args.sets for name in SETS.get(group, {group: None})], SETS["choose"] | SETS["show"]
    if unknown := [name for name in names if name not in known]: parser.error(f"no set {unknown[0]!r}; there are {', '.join(known)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        results: dict[int, dict] = {days: {} for days in args.learn_days}
        for example in OTHERS: prepared(example, folder)
        with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
            for name, found in zip(names, pool.map(compared, names, repeat(folder), repeat(args.learn_days))):
                for days, figures in found.items(): results[days][name] = figures
        for days, of_days in results.items():
            if days: print(f"\nLearnt from the last {days} training days:")
            if of_days: tables(of_days)


if __name__ == "__main__": main()
