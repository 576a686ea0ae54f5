"""What the models are worth on data that this project did not make: convert, train by the fixed commands, judge on later dates.

    python benchmarks/public_data.py [--keep FOLDER] [--only amlworld amlsim ...]

Needs the published files below AML_MINER_DATA; without them it says so. AMLworld is the down-sampled cut, so its shares and precisions do not compare with the full data."""
import argparse
import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AML_MINER_DATA", ROOT.parent/"shared"/"data"))
SENSITIVE = {  # a cut that keeps few ordinary transactions has few false alerts at the thresholds of a bank
    "structuring": {"min_payments": 2, "severity": [3, 4, 6]}, "rapid_movement": {"hours": 96, "min_usd": 1000, "min_share": 0.7, "max_share": 1.3, "severity": [10000, 50000, 250000]},
    "fan_in": {"min_counterparties": 3, "min_usd_each": 100, "min_usd": 1000, "severity": [4, 6, 10]}, "fan_out": {"min_counterparties": 3, "min_usd_each": 100, "min_usd": 1000, "severity": [4, 6, 10]},
    "round_amounts": {"unit": 100, "min_payments": 1, "min_share": 0.3, "min_usd": 500, "severity": [2, 3, 5]}, "volume_spike": {"min_history_days": 2, "multiple": 3, "min_usd": 5000, "severity": [10, 30, 100]},
    "dormant_activity": {"silent_days": 3, "min_usd": 2000, "severity": [10000, 50000, 250000]}, "counterparty_burst": {"min_new": 3, "min_history_days": 2, "severity": [4, 6, 10]},
    "currency_change": {"min_history_days": 1, "min_history_payments": 1, "min_usd": 1000, "severity": [5000, 25000, 100000]}, "format_change": {"min_history_days": 1, "min_history_payments": 1, "min_usd": 1000, "severity": [5000, 25000, 100000]}}
SMALL_CHANGE = {  # AMLSim's sample pays between 10 and 600 dollars
    "structuring": {"limit_usd": 20, "band": 0.5, "severity": [5, 8, 12]}, "rapid_movement": {"hours": 168, "min_usd": 40, "min_share": 0.8, "max_share": 1.25, "severity": [100, 300, 1000]},
    "fan_in": {"min_usd_each": 10, "min_usd": 100, "severity": [6, 8, 12]}, "fan_out": {"min_usd_each": 10, "min_usd": 100, "severity": [6, 8, 12]}, "round_amounts": {"unit": 10, "min_usd": 50},
    "volume_spike": {"min_usd": 500, "multiple": 8}, "dormant_activity": {"silent_days": 30, "min_usd": 50, "severity": [200, 500, 2000]}, "counterparty_burst": {"min_new": 4}}
CUT, SAMPLE = "amlworld/amlworld_hi_small_cut15k.parquet", "amlsim/amlsim_ibm_20K_cycle200_transactions.parquet"
RUNS = {  # name: source, file, thresholds that differ, further arguments of the conversion
    "amlworld, rules as they are": ("amlworld", CUT, {}, []), "amlworld, sensitive rules": ("amlworld", CUT, SENSITIVE, []),
    "amlsim, small change, weekly": ("amlsim", SAMPLE, SMALL_CHANGE, ["--every-days", "7"])}
MODELS = {"train_scorer": "scorer", "train_ranker": None, "train_cluster_scorer": "scorer"}  # command: name of its scoring; the ranker's is its objective


def run(*command):
    "A module of the package in a process of its own."
    done = subprocess.run([sys.executable, "-m", *map(str, command)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode: raise RuntimeError(done.stderr.strip().splitlines()[-1].split("ERROR   ")[-1])


def judge(name, folder):
    "Convert and train in a folder; print what came out."
    from aml_miner.datasets.conversion_summary import alerts_by_day, read_conversion, recall_by_typology
    source, file, monitoring, more = RUNS[name]
    if not (DATA/file).is_file():
        print(f"{name}: no {file} in {DATA}; set AML_MINER_DATA to the folder that holds it")
        return
    out, config = folder/name.replace(", ", "_").replace(" ", "_"), folder/"config.yaml"
    config.write_text(json.dumps({"monitoring": monitoring}))   # JSON is YAML
    run("aml_miner.datasets.convert", "--source", source, "--input", DATA/file, "--output", out, "--config", config, *more)
    made = read_conversion(out)
    days, recall = alerts_by_day(made["alerts"]), recall_by_typology(made["laundering"], made["truth"]).loc["all"]
    cut = " (down-sampled cut)" if source == "amlworld" else ""
    print(f"\n{name}{cut}: {days.alerts.sum():,} alerts in {len(days)} batches, {days.false.sum() / days.alerts.sum():.1%} false; with an alert: {recall.found:,.0f} of {recall.accounts:,.0f} laundering accounts "
          f"({recall.recall:.1%}), {recall.attempts_found:,.0f} of {recall.attempts:,.0f} attempts and single transactions")
    print(f"  {'model':<16}{'test rows':>10}{'illicit':>9}{'AUC':>8}{'AP':>8}{'NDCG@10':>9}   {'severity order: AUC':>20}{'AP':>8}{'NDCG@10':>9}")
    for command, scoring in MODELS.items():
        model = out.parent/f"{out.name}_{command}.txt"
        try: run(f"aml_miner.training.{command}", "--data-dir", out, "--output", model)
        except RuntimeError as e:
            print(f"  {command.removeprefix('train_'):<16}{e}", flush=True)
            continue
        report = json.loads(model.with_suffix(".json").read_text())
        test = report["test"]
        ours, plain = test["scorings"][scoring or report["objective"]], test["scorings"]["severity order"]
        figures = ["".join(f"{s[k]['value']:>{w}.3f}" for k, w in (("auc", first), ("average_precision", 8), ("ndcg@10", 9))) for s, first in ((ours, 8), (plain, 23))]
        print(f"  {command.removeprefix('train_'):<16}{test['rows']:>10,}{test['positives']:>9,}{figures[0]}{figures[1]}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="folder for batches and models, which stay; default: a temporary one")
    parser.add_argument("--only", nargs="+", help="runs whose name begins so")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in RUNS:
            if not args.only or any(name.startswith(x) for x in args.only): judge(name, folder)


if __name__ == "__main__": main()
