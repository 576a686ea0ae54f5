"""What each group of features is worth on later dates: added one after the other, and taken away from all.

    python benchmarks/ablation.py [--only simulated_51 amlworld ...] [--seeds 1 2 3 4 5] [--candidates] [--without walk ...] [--keep FOLDER]

Four simulated sets, the public AMLworld cut and AMLSim sample (below AML_MINER_DATA; without them it says so), and 120 simulated days on which only the
groups of the config stand beside the local ones (alert, profile, cluster, own flows) and beside all. Each of the other sets ends with the groups of the config
and one of the candidates more or fewer: a group earns its place on two sets and shows it on the others. Mean and spread of the seeds; the intervals are of the
seeds' mean scores over resampled test days."""
import argparse
import os
from pathlib import Path
import subprocess
import sys
import tempfile
import time

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AML_MINER_DATA", ROOT.parent/"shared"/"data"))
CUT, SAMPLE = "amlworld/amlworld_hi_small_cut15k.parquet", "amlsim/amlsim_ibm_20K_cycle200_transactions.parquet"
SIMULATOR = ["aml_miner.simulation.simulator", "--alerts-per-day", "300", "--flows-per-day", "4000"]
SETS = {  # name: published file or None, command that makes the batches, days until an outcome is known
    **{f"simulated_{seed}": (None, [*SIMULATOR, "--days", "60", "--seed", str(seed)], 14) for seed in (51, 52, 53, 54)},
    "amlworld": (CUT, ["aml_miner.conversion.convert", "--source", "amlworld", "--rules", "sensitive"], 2),
    "amlsim": (SAMPLE, ["aml_miner.conversion.convert", "--source", "amlsim", "--rules", "small_amounts", "--every-days", "7"], 14),
    "simulated_120_days": (None, [*SIMULATOR, "--days", "120", "--seed", "21"], 14),
}
LOCAL = ("alert", "evidence", "address", "activity", "position", "cluster", "flow")  # what one alert, its address and its own flows tell
TAKEN_AWAY = ("position", "cluster", "flow", "window", "pattern", "graph", "walk", "community", "smurfing", "history")
CONFIGURED = "as configured"
CANDIDATES = ("position", "window", "community", "smurfing")  # groups that the config may have or not


def make_batches(name: str, folder: Path) -> Path | None:
    "The batches of a set, made once; None where the published file is absent."
    file, command, _ = SETS[name]
    if file and not (DATA/file).is_file():
        print(f"{name}: no {file} in {DATA}; set AML_MINER_DATA to the folder that holds it")
        return None
    out = folder/name
    if not out.is_dir():
        source = ["--input", str(DATA/file)] if file else []
        done = subprocess.run([sys.executable, "-m", *command, "--output", str(out), *source], cwd=ROOT, capture_output=True, text=True)
        if done.returncode: raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return out


def candidate_steps(groups: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    "The groups of the config, these with one of CANDIDATES more, or without it where it is among them, and with circles and smurfing."
    from aml_miner.features.spec import GROUPS
    one = {f"{'without' if g in groups else 'with'} {g}": tuple(x for x in GROUPS if (x in groups) != (x == g)) for g in CANDIDATES}
    return {CONFIGURED: groups} | one | {"with circles and smurfing": tuple(x for x in GROUPS if x in (*groups, "community", "smurfing"))}


def judge(name: str, folder: Path, seeds: list[int], candidates_only: bool, without: list[str]) -> None:
    "Build the features of a set once, judge every step, print the tables."
    from aml_miner.config.model_config import load_config
    from aml_miner.features.spec import GROUPS
    from aml_miner.training.ablation import ALL, added_steps, compare_steps, removed_steps
    from aml_miner.training.train_scorer import prepare_training_data

    batches, start = make_batches(name, folder), time.process_time()
    if batches is None: return
    config = load_config(overrides={
        "feature_engineering": {"groups": list(GROUPS), "label_delay_days": SETS[name][2]}, "training": {"num_threads": 1, "cv_folds": 3}})
    configured = {CONFIGURED: load_config().feature_engineering.groups}
    if without: steps = {ALL: GROUPS} | removed_steps(without)
    elif name.endswith("days"): steps = {"local groups": LOCAL} | configured | {ALL: GROUPS}
    else: steps = added_steps() | configured | removed_steps(TAKEN_AWAY)
    data = prepare_training_data(batches, config)
    if without or not candidates_only: show(name, *compare_steps(data, steps, config, seeds), ALL)
    if candidates_only or not (without or name.endswith("days")):
        show(name, *compare_steps(data, candidate_steps(configured[CONFIGURED]), config, seeds, CONFIGURED), CONFIGURED)
    print(f"{name}: {time.process_time() - start:.0f} CPU s", flush=True)


def show(name: str, results, summary: dict, reference: str) -> None:
    "Print what `compare_steps` found."
    import pandas as pd

    from aml_miner.evaluation.intervals import with_interval
    from aml_miner.training.ablation import METRICS, ablation_table, typology_table

    print(f"\n{name}: {summary['rows']:,} test alerts, {summary['positives']:,} illicit, {summary['days']} days; {results.seed.nunique()} seeds")
    print(ablation_table(results).to_string())
    print(f"\nagainst {reference}, mean scores of the seeds, 95 % over resampled test days:")
    print(pd.DataFrame({n: {METRICS[m]: with_interval(d[m]) for m in METRICS} for n, d in summary["differences"].items()}).T.to_string())
    print("\naverage precision by typology:")
    print(typology_table(summary).T.to_string(float_format="%.3f"), flush=True)


def main(argv: list[str] | None = None) -> None:
    "Command line."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS), help="sets to judge (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5], help="seeds of the trainings")
    parser.add_argument("--keep", type=Path, help="folder for the batches, which stay and are used again; default: a temporary one")
    parser.add_argument("--candidates", action="store_true", help="only the groups of the config, with and without those that it may have or not")
    parser.add_argument("--without", nargs="+", choices=TAKEN_AWAY, default=[], help="only all groups, and all but each of these")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in args.only: judge(name, folder, args.seeds, args.candidates, args.without)


if __name__ == "__main__": main()
