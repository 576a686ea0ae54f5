"""Notebooks clean and without outputs, package in step with them. Works on a copy: the tree is only read."""
import ast
import json
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile

import papermill

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("nbs", "aml_miner")
EDITED = ("__init__.py", "__main__.py")  # have no notebook; of the first nbdev_export writes the version alone


def tree(folder):
    "Relative path -> bytes of every notebook and package file, caches apart."
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for part in PARTS for p in sorted((folder / part).rglob("*"))
        if p.is_file() and "__pycache__" not in p.parts and ".ipynb_checkpoints" not in p.parts
    }


def notebooks():
    return [p for p in sorted((ROOT / "nbs").rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts]


def text_of(cell):
    return "".join(cell["source"])  # lines, or one piece


def module_of(cells):
    return next((line.split()[2] for cell in cells for line in text_of(cell).splitlines() if line.startswith("#| default_exp ")), None)


def check_notebook(path):
    "Faults of one notebook: outputs, kernel, structure, and whether its path is its module's."
    nb = json.loads(path.read_text(encoding="utf-8"))
    name = path.relative_to(ROOT / "nbs")
    faults = []
    code = [c for c in nb["cells"] if c["cell_type"] == "code"]
    if any(c["outputs"] or c["execution_count"] for c in code): faults.append("has outputs or execution counts; run nbdev_clean")
    if nb["metadata"].get("kernelspec", {}).get("name") != "python3": faults.append("kernel is not python3")
    module = module_of(code)
    numbered = len(name.parts) == 1
    expected = ".".join(name.with_suffix("").parts)
    if expected.endswith(".index"): expected = expected.removesuffix("index") + "__init__"  # a package's own module
    exports = [line for c in code for line in text_of(c).splitlines() if line.startswith(("#| export", "#| default_exp"))]
    if numbered and exports: faults.append(f"is one to run, and has {exports[0]}")
    if not numbered and module != expected: faults.append(f"default_exp is {module}, the path says {expected}")
    if numbered:
        tagged = [c for c in code if "parameters" in c["metadata"].get("tags", [])]
        if len(tagged) != 1: faults.append(f"{len(tagged)} cells tagged parameters, expected 1: papermill would ignore -p")
        else: faults += check_parameters_cell(path, text_of(tagged[0]))
    return [f"{path.relative_to(ROOT)}: {f}" for f in faults]


def check_parameters_cell(path, source):
    "Parameters that `papermill --help-notebook` would not show: it reads lines, not Python, and no `|` or second `=` in them."
    declared = {s.target.id for s in ast.parse(source).body if isinstance(s, ast.AnnAssign)}
    shown = {name: p for name, p in papermill.inspect_notebook(str(path)).items() if p["help"]}
    return [f"parameter {name} is hidden from papermill's help, or has none" for name in sorted(declared - set(shown))]


def check_export():
    "Faults of the tree: what nbdev_clean and nbdev_export would change, and modules without a notebook."
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in PARTS: shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
        for file in ("settings.ini", "setup.py"): shutil.copy(ROOT / file, copy)
        before = tree(copy)
        for stale in (copy / "aml_miner").rglob("*.py"):
            if stale.relative_to(copy / "aml_miner").as_posix() not in EDITED: stale.unlink()
        for command in ("nbdev_clean", "nbdev_export"):
            done = subprocess.run([Path(sys.executable).parent / command], cwd=copy, capture_output=True, text=True)
            if done.returncode: return [f"{command} failed: {done.stdout}{done.stderr}"]
        after = tree(copy)
    names = sorted(before.keys() | after.keys())

    def fault(name):
        if name not in after: return "has no notebook"
        return "is missing; run nbdev_export" if name not in before else "is not in step; run nbdev_clean and nbdev_export"
    return [f"{n}: {fault(n)}" for n in names if before.get(n) != after.get(n)]


def main():
    found = notebooks()
    if not found: sys.exit("no notebook found")
    faults = [f for path in found for f in check_notebook(path)] + check_export()
    for fault in faults: print("FAULT", fault)
    print(f"notebooks clean and exported: {len(found)} passed" if not faults else f"{len(faults)} failed")
    return bool(faults)


if __name__ == "__main__": sys.exit(main())
