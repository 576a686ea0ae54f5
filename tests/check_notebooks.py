"""Run nbdev_test and count: it exits 0 also when it finds nothing to test. The numbered notebooks, which hold no tests, are run by papermill for the site."""
import os
from pathlib import Path
import re
import subprocess
import sys
import tempfile

ROOT = Path(__file__).resolve().parent.parent


def main():
    shown = [p for p in sorted((ROOT / "nbs").rglob("*.ipynb")) if not any(x.startswith(("_", ".")) for x in p.relative_to(ROOT).parts)]
    expected = [p for p in shown if not p.name[:2].isdigit()]
    workers = str(min(len(expected), os.cpu_count() or 1))
    with tempfile.TemporaryDirectory() as cache:  # notebooks that read the same batches build their features once
        command = [sys.executable, ROOT / "tests" / "counted_notebooks.py", "--skip_file_re", r"^[_.]|^\d\d_", "--timing", "--n_workers", workers]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | {"AML_MINER_CACHE": cache})
    print(done.stdout, end="")
    tested = re.findall(r"^(\S+\.ipynb): \d+ secs$", done.stdout, flags=re.M)
    if done.returncode: return done.returncode
    if not expected or sorted(tested) != sorted(p.name for p in expected):
        print(f"nbdev_test ran {len(tested)} notebooks, {len(expected)} were expected")
        return 1
    print(f"notebooks tested: {len(tested)} passed")
    return 0


if __name__ == "__main__": sys.exit(main())
