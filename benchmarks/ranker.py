"""Seconds, CPU seconds and peak memory of loading, features and training of the alert ranker.

Each row is a process of its own that goes as far as that stage; a stage's time is what it adds to the one before, the peak is the
process's. Without --data-dir, ten days of 12,000 alerts with 300,000 flows are simulated.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STAGES = ("loading", "features", "training")


def go(data_dir, stage, threads):
    "Go as far as a stage in this process; print what it cost as JSON."
    from loguru import logger
    logger.remove()
    from aml_miner.config.model_config import load_config
    from aml_miner.training.alert_data import read_batches, read_labels
    from aml_miner.training.train_ranker import prepare_ranking_data, train_alert_ranker
    from aml_miner.utils.progress import peak_memory_mb

    config = load_config(overrides={"training": {"num_threads": threads}})
    wall, cpu, facts = time.perf_counter(), time.process_time(), {}
    if stage == "loading": facts["rows"] = len(read_labels(read_batches(data_dir)))
    else:
        data = prepare_ranking_data(data_dir, config)
        facts["rows"] = f"{data.X.shape[0]} x {data.X.shape[1]}"
    if stage == "training":
        _, report = train_alert_ranker(data.X, data.y, data.groups, config, alerts=data.alerts, source=data.source)
        facts["rows"] = ", ".join(f"{name} {figures['ndcg@10']['value']:.3f}" for name, figures in report["test"]["scorings"].items())
    facts |= {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak": peak_memory_mb()}
    print(json.dumps(facts))


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
            subprocess.run([sys.executable, "-m", "aml_miner.datasets.simulator", "--output", folder, "--seed", "1", *sizes], check=True, stderr=subprocess.DEVNULL)
        print(f"{'stage':<10}{'seconds':>9}{'CPU s':>8}{'peak MB':>9}  rows, or NDCG@10 on the test days")
        before = {"seconds": 0, "cpu": 0}
        for stage in STAGES:
            command = [sys.executable, Path(__file__), "--stage", stage, "--data-dir", data_dir, "--threads", str(args.threads)]
            facts = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"{stage:<10}{facts['seconds'] - before['seconds']:>9.1f}{facts['cpu'] - before['cpu']:>8.1f}{facts['peak']:>9.0f}  {facts['rows']}", flush=True)
            before = facts


if __name__ == "__main__": main()
