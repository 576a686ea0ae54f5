"""What the models are worth on data that this project did not make: convert, train by the fixed commands, judge on later dates.

    python benchmarks/public_data.py [--keep FOLDER] [--only amlworld amlsim ...]

Needs the published files below AML_MINER_DATA; without them it says so. AMLworld is the down-sampled cut, so its shares and precisions do not compare
with the full data."""
import argparse
import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AML_MINER_DATA", ROOT.parent/"shared"/"data"))
CUT, SAMPLE = "amlworld/amlworld_hi_small_cut15k.parquet", "amlsim/amlsim_ibm_20K_cycle200_transactions.parquet"
RUNS = {  # name: source, file, further arguments of the conversion
    "amlworld, rules as they are": ("amlworld", CUT, []), "amlworld, sensitive rules": ("amlworld", CUT, ["--rules", "sensitive"]),
    "amlsim, small amounts, weekly": ("amlsim", SAMPLE, ["--rules", "small_amounts", "--every-days", "7"])}
MODELS = {"train_scorer": "scorer", "train_ranker": None, "train_cluster_scorer": "scorer"}  # command: name of its scoring; the ranker's is its objective


def run(*command):
    "A module of the package in a process of its own."
    done = subprocess.run([sys.executable, "-m", *map(str, command)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode: raise RuntimeError(done.stderr.strip().splitlines()[-1].split("ERROR   ")[-1])


def judge(name, folder):
    "Convert and train in a folder; print what came out."
    from aml_miner.conversion.summary import alerts_by_day, read_conversion, recall_by_typology
    source, file, more = RUNS[name]
    if not (DATA/file).is_file():
        print(f"{name}: no {file} in {DATA}; set AML_MINER_DATA to the folder that holds it")
        return
    out = folder/name.replace(", ", "_").replace(" ", "_")
    run("aml_miner.conversion.convert", "--source", source, "--input", DATA/file, "--output", out, *more)
    tables = read_conversion(out)
    days, recall = alerts_by_day(tables["alerts"]), recall_by_typology(tables["laundering"], tables["truth"]).loc["all"]
    cut = " (down-sampled cut)" if source == "amlworld" else ""
    print(f"\n{name}{cut}: {days.alerts.sum():,} alerts in {len(days)} batches, {days.false.sum() / days.alerts.sum():.1%} false; "
          f"with an alert: {recall.found:,.0f} of {recall.accounts:,.0f} laundering accounts "
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
        def figures(scoring, first): return "".join(f"{scoring[k]['value']:>{w}.3f}" for k, w in (("auc", first), ("average_precision", 8), ("ndcg@10", 9)))
        print(f"  {command.removeprefix('train_'):<16}{test['rows']:>10,}{test['positives']:>9,}{figures(ours, 8)}{figures(plain, 23)}", flush=True)


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
