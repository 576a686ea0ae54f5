"""Seconds, CPU seconds and peak memory of bringing public transaction data into batches, step by step, on generated files of AMLworld's shape.

Each row is a process of its own. A step needs the files of the steps before it, so all run in their order in one folder; with --folder it stays,
and --steps runs some of them again.
"""
import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def generate(folder, rows):
    "A CSV of AMLworld's shape and its pattern file."
    from aml_miner.transactions.amlworld_example import write_amlworld_example
    trans, _ = write_amlworld_example(folder, rows=rows, name="Bench")
    return f"{trans.stat().st_size / 1e6:,.0f} MB of CSV"


def read(folder, rows):
    "CSV and pattern file to the sorted table of transactions."
    from aml_miner.transactions.amlworld import read_amlworld
    facts = read_amlworld(folder/"Bench_Trans.csv", folder/"transactions.parquet", folder/"Bench_Patterns.txt")
    assert facts["transactions"] == rows and not facts["notes"], facts
    return f"{facts['laundering']:,} laundering, {facts['attempts']:,} attempts, {(folder/'transactions.parquet').stat().st_size / 1e6:,.0f} MB of parquet"


def rules(folder, rows):
    "The table of transactions to the alerts of all rules."
    from aml_miner.config.model_config import load_config
    from aml_miner.monitoring.rules import find_alerts
    from aml_miner.transactions.table import read_transactions, working_connection
    with working_connection(folder/"rules") as (con, _):
        read_transactions(folder/"transactions.parquet", con)
        alerts = find_alerts(con, load_config().monitoring, window_days=7)
        return f"{alerts.aggregate('count(*)').fetchall()[0][0]:,} alerts"


def batches(folder, rows):
    "The table of transactions to ten batches, the rules included."
    from aml_miner.config.model_config import load_config
    from aml_miner.conversion.alert_batches import write_batches
    folders = write_batches(folder/"transactions.parquet", folder/"batches", load_config(), "amlworld", 7, last_day="2022-09-10", settle_days=(2, 2))
    counts = [json.loads((f/"META.json").read_text())["counts"] for f in folders]
    alerts, flows, profiles = ([c[name] for c in counts] for name in ("alerts", "money_flows", "features"))
    return f"{len(folders)} batches, {sum(alerts):,} alerts, at most {max(flows):,} flows and {max(profiles):,} profiles in one"


def convert(folder, rows):
    "All of it, by the command: CSV to batches."
    from aml_miner.conversion.convert import main
    paths = {"--input": "Bench_Trans.csv", "--patterns": "Bench_Patterns.txt", "--output": "converted"}
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["--source", "amlworld", *(part for option, name in paths.items() for part in (option, str(folder/name)))]) == 0
    return f"{sum(p.stat().st_size for p in (folder/'converted').rglob('*') if p.is_file()) / 1e6:,.0f} MB in all"


# in their order: name -> function(folder, rows) that returns a remark
STEPS = {"generate": generate, "read": read, "rules": rules, "batches": batches, "convert": convert}


def go(step, folder, rows):
    "Run one step in this process; print what it cost as JSON."
    from loguru import logger
    logger.remove()
    from aml_miner.utils.progress import peak_memory_mb
    wall, cpu = time.perf_counter(), time.process_time()
    remark = STEPS[step](folder, rows)
    print(json.dumps({"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak": peak_memory_mb(), "remark": remark}))


def measure(folder, rows, steps):
    print(f"{'step':<10}{'transactions':>14}{'seconds':>9}{'CPU s':>8}{'peak MB':>9}{'us/row':>8}")
    for step in steps:
        command = [sys.executable, __file__, "--run", step, "--folder", folder, "--rows", rows]
        done = subprocess.run([str(x) for x in command], capture_output=True, text=True)
        if done.returncode: sys.exit(f"{step}: {done.stderr}")
        facts = json.loads(done.stdout.splitlines()[-1])
        seconds, cpu, peak, remark = (facts[name] for name in ("seconds", "cpu", "peak", "remark"))
        print(f"{step:<10}{rows:>14,}{seconds:>9.1f}{cpu:>8.1f}{peak:>9.0f}{1e6 * seconds / rows:>8.2f}  {remark}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--folder", type=Path, help="where the files go and stay; default: a temporary folder")
    parser.add_argument("--run", choices=list(STEPS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run: return go(args.run, args.folder, args.rows)
    if args.folder: return measure(args.folder, args.rows, args.steps)
    with tempfile.TemporaryDirectory() as folder: measure(Path(folder), args.rows, args.steps)


if __name__ == "__main__": main()
