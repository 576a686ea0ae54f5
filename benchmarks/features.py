"""Time and memory of feature building: each set of groups in a fresh process, printed as a table.

    python benchmarks/features.py [FOLDER] [--threads 1] [--repeat 1]

FOLDER holds the parquet files of one batch; without it a day of 12,000 alerts with 300,000 flows is simulated."""
import argparse
import json
from pathlib import Path
import resource
import subprocess
import sys
import tempfile
import time

SETS = {
    "imports and vocabulary": [],
    "alert, evidence": ["alert", "evidence"],
    "address, activity": ["address", "activity"],
    "position": ["position"],
    "cluster": ["cluster"],
    "flow": ["flow"],
    "all but flow": ["alert", "evidence", "address", "activity", "position", "cluster"],
    "all": ["alert", "evidence", "address", "activity", "position", "cluster", "flow"],
}


def measure(folder: Path, groups: list[str], threads: int) -> dict:
    "Build once in this process; CPU and wall seconds of the build alone, peak memory of the process."
    from aml_miner.config.model_config import load_config
    from aml_miner.features.builder import FeatureBuilder

    def cpu(): return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])

    names = ("alerts", "features", "clusters", "money_flows")
    paths = [folder/f"{name}.parquet" for name in names]
    config = load_config().feature_engineering
    builder = FeatureBuilder(config, threads=threads).learn_vocabulary([paths[0]])
    shape, seconds, wall = (0, 0), 0.0, 0.0
    if groups:
        builder = FeatureBuilder(config.model_copy(update={"groups": tuple(groups)}), builder.vocabulary, threads)
        before, start = cpu(), time.perf_counter()
        shape = builder.build_all_features(*(p if p.exists() else None for p in paths)).shape
        seconds, wall = cpu() - before, time.perf_counter() - start
    return {"shape": shape, "cpu": seconds, "wall": wall, "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def main(argv: list[str] | None = None) -> int:
    "Command line."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a batch folder; default: simulate one")
    parser.add_argument("--threads", type=int, default=1, help="DuckDB threads")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each set; the least CPU time is shown")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # one set, in this process, as JSON
    args = parser.parse_args(argv)
    if args.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            sizes = ["--days", "1", "--alerts-per-day", "12000", "--flows-per-day", "300000"]
            subprocess.run([sys.executable, "-m", "aml_miner.datasets.simulator", "--output", folder, *sizes], check=True, stderr=subprocess.DEVNULL)
            return main([str(next(Path(folder).iterdir())), *(argv if argv is not None else sys.argv[1:])])
    if not (args.folder/"alerts.parquet").is_file(): parser.error(f"{args.folder}: holds no alerts.parquet")
    if args.only:
        print(json.dumps(measure(args.folder, SETS[args.only], args.threads)))
        return 0
    print(f"{'groups':24}{'rows':>9}{'columns':>9}{'CPU s':>8}{'wall s':>8}{'peak GB':>9}")
    for name in SETS:
        command = [sys.executable, __file__, str(args.folder), "--threads", str(args.threads), "--only", name]
        runs = [json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]) for _ in range(args.repeat)]
        best = min(runs, key=lambda r: r["cpu"])
        print(f"{name:24}{best['shape'][0]:9,}{best['shape'][1]:9,}{best['cpu']:8.2f}{best['wall']:8.2f}{best['gb']:9.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
