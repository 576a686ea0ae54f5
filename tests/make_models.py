"""Make trained_models/ anew: what each command makes of data/sample with the defaults. A model comes in by being listed here."""
from pathlib import Path
import subprocess
import sys

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "trained_models"
MODELS = {  # file name without ending: module with the command line
    "alert_scorer": "aml_miner.training.train_scorer",
    "alert_ranker": "aml_miner.training.train_ranker",
    "cluster_scorer": "aml_miner.training.train_cluster_scorer",
}
FILES = (".txt", ".json", ".md")  # model, report, card


def make_model(name, folder, *args):
    "Train one model with the defaults; the process that did it."
    command = [sys.executable, "-m", MODELS[name], "--data-dir", ROOT / "data" / "sample", "--output", Path(folder) / f"{name}.txt", *args]
    return subprocess.run([*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def main():
    for name in MODELS:
        done = make_model(name, FOLDER)
        print(done.stdout)
        if done.returncode: return done.returncode
    for stale in sorted(p for p in FOLDER.iterdir() if p.stem not in MODELS and p.suffix in FILES):
        print(f"{stale.name}: no listed model; remove it")
    return 0


if __name__ == "__main__": sys.exit(main())
