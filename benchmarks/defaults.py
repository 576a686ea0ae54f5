"""Boosting settings of the scorers beside others, on later days: window after window, with the same number of trees.

A window is some days to learn from and the days after them. Each table is of one number of trees; a difference is the mean over the windows with its
standard error (windows share days, so it is a little too small). Without --data-dir, 60 days of 300 alerts are simulated for each --seeds.

    python benchmarks/defaults.py --other '{colsample_bytree: 0.73, max_bin: 255}'
"""
import argparse
from collections import defaultdict
from pathlib import Path
import subprocess
import sys
import tempfile
import time

from loguru import logger
import numpy as np
import pandas as pd
import yaml

from aml_miner.config.model_config import load_config
from aml_miner.evaluation.metrics import average_precision, roc_auc
from aml_miner.models.boosting import boosting_params, make_dataset, train_final
from aml_miner.training.train_cluster_scorer import prepare_cluster_data
from aml_miner.training.train_scorer import prepare_training_data


def read(model, data_dir, config):
    "X, y, number of the day of each row."
    data = (prepare_training_data if model == "alert_scorer" else prepare_cluster_data)(data_dir, config)
    return data.X, np.asarray(data.y), pd.to_datetime(data.context.processing_date).rank(method="dense").astype(int).to_numpy()


def windows(day, learn, judge, step):
    "(rows to learn from, rows to judge by), one after the other."
    for start in range(1, day.max() - learn - judge + 2, step):
        yield np.flatnonzero((day >= start) & (day < start + learn)), np.flatnonzero((day >= start + learn) & (day < start + learn + judge))


def figures(X, y, train, test, boosting, training, trees):
    "trees -> (AUC, average precision) of the later rows; and milliseconds a tree."
    params = boosting_params(boosting, training, (len(train), X.shape[1]), objective="binary")
    dataset, start = make_dataset(X.iloc[train], params), time.process_time()
    model = train_final(dataset, y[train].astype(float), params, max(trees))[0]
    cost = (time.process_time() - start) / max(trees) * 1000
    scores = {n: model.predict(X.iloc[test], num_iteration=n, raw_score=True) for n in trees}
    return {n: (roc_auc(y[test], s), average_precision(y[test], s)) for n, s in scores.items()}, cost


def compare(model, folders, others, args):
    "Print the tables of a model."
    config, worth, cost = load_config(overrides={"training": {"num_threads": 1}}), defaultdict(list), defaultdict(list)
    settings = {"as configured": getattr(config, model).boosting}
    for other in others: settings[str(other).strip("{}")] = getattr(load_config(overrides={model: {"boosting": other}}), model).boosting
    for folder in folders:
        X, y, day = read(model, folder, config)
        for train, test in windows(day, args.learn, args.judge, args.step):
            for name, boosting in settings.items():
                seeded = [config.training.model_copy(update={"seed": seed}) for seed in range(args.repeats)]
                runs = [figures(X, y, train, test, boosting, training, args.trees) for training in seeded]
                cost[name] += [c for _, c in runs]
                for n in args.trees: worth[name, n].append(np.mean([r[n] for r, _ in runs], axis=0))
    for n in args.trees:
        print(f"\n{model}, {n} trees, {len(worth['as configured', n])} windows of {args.learn} and {args.judge} days, {args.repeats} seeds each")
        print(f"| settings | ms a tree | AUC | AP | AUC beside as configured | AP |\n|{'---|' * 6}")
        for name in settings:
            values = np.array(worth[name, n])
            gap = values - np.array(worth["as configured", n])
            error = gap.std(axis=0, ddof=1) / len(gap) ** .5
            beside = ["", ""] if name == "as configured" else [f"{g:+.4f} ± {e:.4f}" for g, e in zip(gap.mean(axis=0), error)]
            print(f"| {name} | {np.mean(cost[name]):.2f} | {values[:, 0].mean():.4f} | {values[:, 1].mean():.4f} | {' | '.join(beside)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", nargs="+", help="directories with batches; default: simulate")
    parser.add_argument("--seeds", nargs="+", type=int, default=[51, 52], help="of the simulated sets")
    parser.add_argument("--other", nargs="+", type=yaml.safe_load, default=[{"colsample_bytree": .73, "max_bin": 255}],
                        help="boosting settings that differ, as YAML")
    parser.add_argument("--models", nargs="+", choices=["alert_scorer", "cluster_scorer"], default=["alert_scorer", "cluster_scorer"])
    parser.add_argument("--trees", nargs="+", type=int, default=[80, 200])
    parser.add_argument("--learn", type=int, default=15, help="days to learn from")
    parser.add_argument("--judge", type=int, default=5, help="days after them")
    parser.add_argument("--step", type=int, default=7, help="days from window to window")
    parser.add_argument("--repeats", type=int, default=3, help="seeds of the trees")
    args = parser.parse_args()
    logger.remove()
    with tempfile.TemporaryDirectory() as temporary:
        folders = args.data_dir or [str(Path(temporary) / str(seed)) for seed in args.seeds]
        for folder, seed in zip([] if args.data_dir else folders, args.seeds):
            command = ["aml_miner.simulation.simulator", "--output", folder, "--days", "60", "--alerts-per-day", "300", "--seed", str(seed)]
            subprocess.run([sys.executable, "-m", *command], check=True, stderr=subprocess.DEVNULL)
        for model in args.models: compare(model, folders, args.other, args)


if __name__ == "__main__": main()
