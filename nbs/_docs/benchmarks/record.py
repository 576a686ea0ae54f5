"""Run the scripts of benchmarks/ and keep what they print, with the command, for the page of benchmarks.

    python nbs/_docs/benchmarks/record.py [features monitoring ...]
"""
from pathlib import Path
import shlex
import subprocess
import sys
import time

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
COMMANDS = {
    "features": "python benchmarks/features.py",
    "ablation": "python benchmarks/ablation.py --candidates --only simulated_51 simulated_52 simulated_53 simulated_54 amlsim amlworld",
    "monitoring": "python benchmarks/monitoring.py --rows 100000 200000 400000",
    "convert": "python benchmarks/convert.py --rows 400000",
    "scoring": "python benchmarks/scoring.py --alerts 10000 --flows 100000",
    "ranker": "python benchmarks/ranker.py",
    "service": "python benchmarks/service.py",
    "tuning": "python benchmarks/tuning.py",
    "public_data": "python benchmarks/public_data.py",
    "handbook": "python benchmarks/handbook.py",
    "order": "python benchmarks/order.py --jobs 2",
    "review_loop": "python benchmarks/review_loop.py --scenarios beside",
}


def record(name):
    "Run one script; its text replaces the one that is kept."
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *shlex.split(COMMANDS[name])[1:]], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          check=True)
    (HERE / f"{name}.txt").write_text(f"$ {COMMANDS[name]}\n{done.stdout.rstrip()}\n", encoding="utf-8")
    print(f"{name}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or COMMANDS: record(wanted)
