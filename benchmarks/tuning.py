"""Cost of tuning: the project's search beside Optuna as it is usually written around LightGBM's scikit-learn classes, in one run.

Folds, space, trials and seeds are the same.

    python benchmarks/tuning.py [--model-types scorer ranker cluster] [--trials 100] [--seeds 1 2 3] [--data-dir D]
"""
import argparse
from pathlib import Path
import tempfile
import time

import lightgbm as lgb
from loguru import logger
import numpy as np
import optuna
import pandas as pd

from aml_miner.config.model_config import load_config
from aml_miner.models.boosting import run_lengths
from aml_miner.models.probability import sigmoid
from aml_miner.models.ranking import ranking_task
from aml_miner.simulation.simulator import simulate_batches
from aml_miner.tuning.storage import count_trials
from aml_miner.tuning.tuner import PREPARE, HyperparameterTuner


def as_usual(tuner, X):
    "An objective as a user of the libraries writes it: a new model from the table for each fold, early stopping, no pruning. The value is the tuner's metric."
    task, config = tuner.task, tuner.config
    fixed = {
        "metric": "average_precision" if task.metric.startswith("ndcg") else task.metric, "bagging_freq": 1, "max_bin": task.boosting.max_bin,
        "random_state": config.training.seed, "n_jobs": 1, "verbosity": -1, **task.objective}
    stop = lambda: lgb.early_stopping(config.training.early_stopping_rounds, verbose=False)

    def fit(params, train, valid):
        watched = {"eval_X": X.iloc[valid], "eval_y": task.y[valid], "callbacks": [stop()]}
        if task.objective["objective"] == "binary": return lgb.LGBMClassifier(**params, **fixed).fit(X.iloc[train], task.y[train], **watched)
        groups = {"group": run_lengths(task.query[train]), "eval_group": [run_lengths(task.query[valid])], "eval_at": [config.alert_ranker.early_stopping_at]}
        return lgb.LGBMRanker(**params, **fixed).fit(X.iloc[train], task.y[train], **watched, **groups)

    def suggest(trial, name, d):
        draw = trial.suggest_int if isinstance(d, optuna.distributions.IntDistribution) else trial.suggest_float
        return draw(name, d.low, d.high, log=d.log)

    def objective(trial):
        params = {name: suggest(trial, name, d) for name, d in tuner.define_search_space().items()}
        raw = [fit(params, train, valid).predict(X.iloc[valid], raw_score=True) for train, valid in task.folds]
        scores = [sigmoid(s) for s in raw] if task.objective["objective"] == "binary" else raw
        return float(np.mean([next(iter(task.evaluator(valid)(s).values())) for s, (_, valid) in zip(scores, task.folds)]))

    return objective


def rows_of(tuner):
    "The training rows as a table, in the task's order."
    data, config, kind = tuner.data, tuner.config, tuner.model_type
    if kind == "ranker":
        train = data.holdout.train
        return data.X.iloc[train].iloc[ranking_task(data.X.iloc[train], data.y[train], data.query[train], config).rows]
    return data.X.drop(index=tuner.task.later.X.index)


class Trees:
    "Counts the trees that LightGBM grows: a cost that other work on the machine does not change."
    def __init__(self):
        self.grown, update = 0, lgb.Booster.update

        def counted(*args, **kwargs):
            self.grown += 1
            return update(*args, **kwargs)
        lgb.Booster.update = counted

    def since(self, before): return self.grown - before


def measure(kind, data, trials, seed, folder, trees):
    "Both ways: CPU seconds, trees, best value, spread over its folds."
    config = load_config(overrides={"training": {"num_threads": 1, "seed": seed}})
    start, before = time.process_time(), trees.grown
    tuner = HyperparameterTuner(data, kind, config, storage=Path(folder) / f"{kind}-{seed}.journal")
    study = tuner.optimize(trials)
    spread = np.std(study.best_trial.user_attrs["folds"], ddof=1)
    own = {"CPU s": time.process_time() - start, "trees": trees.since(before), "best": study.best_value, "fold spread": spread,
           "pruned": count_trials(study)["pruned"]}
    X, plain = rows_of(tuner), optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    start, before = time.process_time(), trees.grown
    plain.optimize(as_usual(tuner, X), n_trials=trials)
    usual = {"CPU s": time.process_time() - start, "trees": trees.since(before), "best": plain.best_value, "pruned": 0}
    return {"as usual": usual, "this project": own}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-types", nargs="+", default=["scorer"], choices=list(PREPARE))
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--data-dir", help="directory with batches (default: 20 simulated days of 300 alerts)")
    args = parser.parse_args()
    logger.remove()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trees = Trees()
    with tempfile.TemporaryDirectory() as folder:
        if not args.data_dir: simulate_batches(Path(folder) / "data", days=20, alerts_per_day=300, flows_per_day=4000, seed=5)
        for kind in args.model_types:
            data = PREPARE[kind](args.data_dir or Path(folder) / "data", load_config())
            rows = []
            for seed in args.seeds:
                ways = measure(kind, data, args.trials, seed, folder, trees)
                rows += [{"model": kind, "seed": seed, "way": way, **figures} for way, figures in ways.items()]
                print(pd.DataFrame(rows[-2:]).to_string(index=False, float_format="{:.4f}".format), flush=True)
            table = pd.DataFrame(rows).pivot(index="seed", columns="way", values=["CPU s", "trees", "best"])
            cpu, grown = (table[cost, "this project"] / table[cost, "as usual"] for cost in ("CPU s", "trees"))
            spread = np.mean([row["fold spread"] for row in rows if "fold spread" in row])
            gap = table["best", "this project"] - table["best", "as usual"]
            print(f"{kind}: {len(data.X):,} rows, {args.trials} trials; CPU {cpu.mean():.2f} ({cpu.min():.2f} to {cpu.max():.2f}) and trees {grown.mean():.2f} "
                  f"({grown.min():.2f} to {grown.max():.2f}) of the usual way, "
                  f"best value {gap.mean():+.4f} ({gap.min():+.4f} to {gap.max():+.4f}) against it, where folds spread by {spread:.4f}")


if __name__ == "__main__": main()
