"""Seconds, CPU seconds, peak memory and latency of scoring a batch, without and with explanations for the top of its queue.

Each row is a process of its own that loads the models, loads the batch, builds features, scores, explains and writes the tables. Without --batch-dir, a day of
50,000 alerts is simulated; without --models-dir, models of 300 trees are made from two small days. The last line is the law behind the tables: the largest
difference of scores between the batch whole and the batch in ten parts, the features of the whole batch held fixed.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def simulate(folder, days, alerts, flows):
    "Batches of `alerts` a day."
    options = {"--output": folder, "--days": days, "--alerts-per-day": alerts, "--flows-per-day": flows, "--seed": 5}
    command = ["aml_miner.simulation.simulator", *(str(x) for option in options.items() for x in option)]
    subprocess.run([sys.executable, "-m", *command], check=True, stderr=subprocess.DEVNULL)
    return sorted(Path(folder).iterdir())


def go(batch_dir, models_dir, explain_top, threads):
    "Score a batch in this process; print what it cost as JSON."
    from loguru import logger
    logger.remove()
    from aml_miner.scoring.score_batch import score_batch
    from aml_miner.utils.progress import peak_memory_mb
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        scores, _ = score_batch(batch_dir, models_dir, Path(folder)/"out", explain_top, num_threads=threads, no_history=True)
        facts = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak": peak_memory_mb(),
                 "alerts": len(scores.queue), "steps": scores.timings}
    print(json.dumps(facts))


def largest_difference(batch_dir, models_dir):
    "Scores of a batch whole against the same in ten parts."
    from loguru import logger
    logger.remove()
    import numpy as np
    from aml_miner.batches.loader import read_batch
    from aml_miner.scoring.model_set import load_models
    batch, model = read_batch(batch_dir), load_models(models_dir)["alert_scorer"]
    whole, alerts, worst = model.prepare_features(batch), batch.tables["alerts"].to_pandas(), 0.
    expected = model.predict(whole).set_index(list(whole.index.names)).raw_score
    for rows in np.array_split(np.random.default_rng(0).permutation(len(alerts)), 10):
        X = model.builder.build_all_features(alerts.iloc[rows], *(batch.tables.get(n) for n in ("features", "clusters", "money_flows")))
        X[model.batch_features] = whole.loc[X.index, model.batch_features]
        scores = model.predict(X).set_index(list(X.index.names)).raw_score
        worst = max(worst, float((scores - expected.loc[scores.index]).abs().max()))
    print(f"largest difference of raw scores, whole against ten parts: {worst:g} (held fixed: {', '.join(model.batch_features)})")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-dir", help="a batch; default: simulate one")
    parser.add_argument("--models-dir", help="default: make small models of 300 trees")
    parser.add_argument("--alerts", type=int, default=50_000)
    parser.add_argument("--flows", type=int, default=500_000)
    parser.add_argument("--explain-top", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--run", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run is not None: return go(args.batch_dir, args.models_dir, args.run, args.threads)
    with tempfile.TemporaryDirectory() as folder:
        batch = args.batch_dir or simulate(Path(folder)/"batch", 1, args.alerts, args.flows)[0]
        models = args.models_dir
        if not models:
            from aml_miner.batches.loader import read_batch
            from aml_miner.testing.small_models import small_models
            models = small_models(Path(folder)/"models", [read_batch(b) for b in simulate(Path(folder)/"small", 2, 1500, 15_000)], trees=300)
        print(f"{'explained':>9}{'alerts':>9}{'seconds':>9}{'CPU s':>8}{'peak MB':>9}{'ms/alert':>10}  seconds by step")
        for n in (0, args.explain_top):
            command = [sys.executable, Path(__file__), "--run", str(n), "--batch-dir", batch, "--models-dir", models, "--threads", str(args.threads)]
            facts = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in facts["steps"].items())
            alerts, seconds, cpu, peak = (facts[name] for name in ("alerts", "seconds", "cpu", "peak"))
            print(f"{n:>9}{alerts:>9,}{seconds:>9.1f}{cpu:>8.1f}{peak:>9.0f}{1000 * seconds / alerts:>10.3f}  {steps}", flush=True)
        largest_difference(batch, models)


if __name__ == "__main__": main()
