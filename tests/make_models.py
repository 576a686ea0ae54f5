"""Make trained_models/ anew: what each command makes of data/sample with the defaults, and the README's picture. A model comes in by being listed here."""
import io
import json
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
PICTURE = "alert_ranker_gain.svg"


def make_model(name, folder):
    "Train one model with the defaults; the process that did it."
    command = [sys.executable, "-m", MODELS[name], "--data-dir", ROOT / "data" / "sample", "--output", Path(folder) / f"{name}.txt"]
    return subprocess.run([*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def gain_picture(report):
    "The gain curve of the ranker's report as SVG; the same report gives the same bytes."
    import matplotlib
    matplotlib.use("agg")
    from aml_miner.evaluation.plots import plot_gain
    from aml_miner.training.train_ranker import gain_curves
    drawn = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "gain"}):
        plot_gain(*gain_curves(report)).figure.savefig(drawn, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return drawn.getvalue()


def main():
    for name in MODELS:
        done = make_model(name, FOLDER)
        print(done.stdout)
        if done.returncode: return done.returncode
    (FOLDER / PICTURE).write_bytes(gain_picture(json.loads((FOLDER / "alert_ranker.json").read_text(encoding="utf-8"))))
    for stale in sorted(p for p in FOLDER.iterdir() if p.stem not in MODELS and p.suffix in FILES):
        print(f"{stale.name}: no listed model; remove it")
    return 0


if __name__ == "__main__": sys.exit(main())
