"""Seconds, CPU seconds and peak memory of loading, features and training of the alert ranker; and what training costs without its savings.

Each row of the first table is a process of its own that goes as far as that stage; a stage's time is what it adds to the one before, the peak is the
process's. The second table is one process that trains twice on the same features: plainly, as every objective would be trained for its own sake
(`race_folds: 0`, histograms laid out by columns), and as the defaults do. Without --data-dir, ten days of 12,000 alerts with 300,000 flows are simulated.
"""
import argparse
from collections import defaultdict
from contextlib import ExitStack
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

STAGES = ("loading", "features", "training")


def timed(function, seconds, key):
    "The function, with the CPU seconds of each call noted under a key made of its arguments."
    def run(*args, **kwargs):
        start = time.process_time()
        result = function(*args, **kwargs)
        seconds[key(*args)].append(time.process_time() - start)
        return result
    return run


def train(data, config, columns):
    "CPU seconds of the folds and of the final training of each objective, and in all; hash of the saved model; NDCG@10 of each scoring."
    from aml_miner.models import ranking
    from aml_miner.models.boosting import boosting_params, cross_validate
    from aml_miner.models.ranking import train_candidate
    from aml_miner.training import objective_race
    from aml_miner.training.train_ranker import train_alert_ranker

    seconds, plain = defaultdict(list), {"force_col_wise": True, "force_row_wise": False}
    with ExitStack() as patches:
        def of_folds(dataset, y, folds, params, rounds, patience, evaluator, name, *_): return name
        def of_all(task, objective, *_): return f"{objective}, all rows"
        patches.enter_context(patch.object(ranking, "cross_validate", timed(cross_validate, seconds, of_folds)))
        for module in (ranking, objective_race): patches.enter_context(patch.object(module, "train_candidate", timed(train_candidate, seconds, of_all)))
        if columns: patches.enter_context(patch.object(ranking, "boosting_params", lambda *args, **own: boosting_params(*args, **own) | plain))
        start = time.process_time()
        model = train_alert_ranker(data, config=config)
        total = time.process_time() - start
    return {"seconds": seconds, "total": total, "sha256": model.report["model_sha256"],
            "ndcg": {name: figures["ndcg@10"]["value"] for name, figures in model.report["test"]["scorings"].items()}}


def go(data_dir, stage, threads):
    "Go as far as a stage in this process; print what it cost as JSON."
    from loguru import logger
    logger.remove()
    from aml_miner.config.model_config import load_config
    from aml_miner.batches.loader import read_batches
    from aml_miner.training.alert_data import read_labels
    from aml_miner.training.train_ranker import prepare_ranking_data
    from aml_miner.utils.progress import peak_memory_mb

    config = load_config(overrides={"training": {"num_threads": threads}})
    wall, cpu, facts = time.perf_counter(), time.process_time(), {}
    if stage == "loading": facts["rows"] = len(read_labels(read_batches(data_dir)))
    else:
        data = prepare_ranking_data(data_dir, config)
        facts["rows"] = f"{data.X.shape[0]} x {data.X.shape[1]}"
    if stage == "training":
        facts["race"] = train(data, config, columns=False)
        facts["rows"] = ", ".join(f"{name} {value:.3f}" for name, value in facts["race"]["ndcg"].items())
    facts |= {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak": peak_memory_mb()}
    if stage == "training":
        plain = load_config(overrides={"training": {"num_threads": threads}, "alert_ranker": {"race_folds": 0}})
        facts["plain"] = train(data, plain, columns=True)
    print(json.dumps(facts))


def print_savings(plain, race):
    "The two trainings side by side."
    print("\nCPU seconds of training     " + "plainly".rjust(42) + "as by default".rjust(42) + "   NDCG@10 plainly, by default")
    objectives = [name for name in plain["seconds"] if "," not in name]
    figure = lambda value: "not judged" if value is None else f"{value:.3f}"
    for name in objectives:
        seconds = [side["seconds"][name] + side["seconds"].get(f"{name}, all rows", []) for side in (plain, race)]
        sums = "".join(f"{' + '.join(f'{x:.1f}' for x in s) + f' = {sum(s):.1f}':>42}" for s in seconds)
        print(f"{name:<28}{sums}   {figure(plain['ndcg'].get(name))}, {figure(race['ndcg'].get(name))}")
    rest = [side["total"] - sum(map(sum, side["seconds"].values())) for side in (plain, race)]
    print(f"{'bins, splits and report':<28}{rest[0]:>42.1f}{rest[1]:>42.1f}")
    print(f"{'in all':<28}{plain['total']:>42.1f}{race['total']:>42.1f}   {race['total'] / plain['total']:.0%}; the saved model is "
          + ("the same, byte for byte" if plain["sha256"] == race["sha256"] else "ANOTHER ONE"))
    print("An objective's last number is the training on all rows; a rival that was not judged has none by default.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="a directory with batches; default: simulate one")
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--alerts-per-day", type=int, default=12_000)
    parser.add_argument("--flows-per-day", type=int, default=300_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage: return go(args.data_dir, args.stage, args.threads)
    with tempfile.TemporaryDirectory() as folder:
        data_dir = args.data_dir or folder
        if not args.data_dir:
            sizes = [f"--{n.replace('_', '-')}={getattr(args, n)}" for n in ("days", "alerts_per_day", "flows_per_day")]
            command = ["aml_miner.simulation.simulator", "--output", folder, "--seed", "1", *sizes]
            subprocess.run([sys.executable, "-m", *command], check=True, stderr=subprocess.DEVNULL)
        print(f"{'stage':<10}{'seconds':>9}{'CPU s':>8}{'peak MB':>9}  rows, or NDCG@10 on the test days")
        before = {"seconds": 0, "cpu": 0}
        for stage in STAGES:
            command = [sys.executable, Path(__file__), "--stage", stage, "--data-dir", data_dir, "--threads", str(args.threads)]
            facts = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            seconds, cpu = (facts[name] - before[name] for name in ("seconds", "cpu"))
            print(f"{stage:<10}{seconds:>9.1f}{cpu:>8.1f}{facts['peak']:>9.0f}  {facts['rows']}", flush=True)
            before = facts
        print_savings(facts["plain"], facts["race"])


if __name__ == "__main__": main()
