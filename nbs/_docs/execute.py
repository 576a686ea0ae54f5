"""Notebooks with their outputs: run once for each content of the notebook, the modules it imports and the data it reads."""
import ast
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir
from functools import cache
import hashlib
from importlib import metadata
from importlib.util import resolve_name
import json
import logging
import multiprocessing
import os
from pathlib import Path
import re
import sys
import tempfile
import time

from kernels import private_kernels
import phone

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / "build" / "docs" / "cache"
ENVIRONMENT = {"OMP_WAIT_POLICY": "passive", "PLOTLY_RENDERER": "plotly_mimetype"}  # before LightGBM and plotly are loaded
FORM = 3  # of the cached outputs; a higher one makes them all anew
PARAMETERS = {"04_tune_hyperparameters": {"trials": 5, "cv_folds": 3}}  # other than a notebook's own, so that the site is built sooner; the page says so
VERSIONS = ("duckdb", "lightgbm", "matplotlib", "numpy", "pandas", "plotly", "pyarrow", "scikit-learn", "scipy", "optuna")


def source_of(cell):
    "Text of a cell; a notebook file holds it as lines or in one piece."
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def directives(cell):
    "The words after `#|` of a code cell."
    return [line[2:].strip() for line in source_of(cell).splitlines() if line.startswith("#|")]


def read_notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


def is_run(name):
    "Whether a notebook is one of the numbered ones, which take parameters."
    return name[0].isdigit()


# What a notebook depends on

def module_file(name):
    "The file of a dotted name; None outside of the package."
    path = ROOT.joinpath(*name.split("."))
    file = next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)
    return file if name.partition(".")[0] == "aml_miner" else None


def imported_files(source, package):
    "The files of the package that some Python text imports; relative names begin at `package`."
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import): names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            names |= {base, *(f"{base}.{a.name}" for a in node.names)}
    return {file for name in names if (file := module_file(name))}


@cache
def imports_of(file):
    "The files of the package that a file of it imports."
    return imported_files(file.read_text(encoding="utf-8"), ".".join(file.parent.relative_to(ROOT).parts))


def package_files(source):
    "All files of the package that some Python text rests on, however far away."
    files, queue = set(), imported_files(source, "")
    while queue:
        files |= queue
        queue = set().union(*map(imports_of, queue)) - files
    return sorted(files)


def digest(*parts):
    h = hashlib.sha256()
    for part in parts:
        part = part if isinstance(part, bytes) else str(part).encode()
        h.update(len(part).to_bytes(8, "big") + part)
    return h.hexdigest()


@cache
def data_digest():
    "Of everything beside code that a notebook may read: the sample, the trained models, the settings, the records of benchmarks, the versions."
    beside = [p for folder in ("data/sample", "trained_models", "aml_miner", "nbs/_docs/benchmarks") for p in sorted((ROOT / folder).rglob("*"))]
    files = [p for p in beside if p.is_file() and p.suffix not in (".py", ".pyc")] + [
        HERE / "phone.py", HERE / "review_days.py", ROOT / "aml_miner" / "utils" / "figures.py"]
    return digest(sys.version, *(metadata.version(v) for v in VERSIONS), FORM, *(x for f in files for x in (f.relative_to(ROOT), f.read_bytes())))


def cache_file(nb, parameters=None, folder=CACHE):
    "Where the outputs of a notebook are kept: the name changes with whatever they may rest on."
    sources = [source_of(c) for c in nb["cells"] if c["cell_type"] == "code"]
    modules = [x for f in package_files("\n".join(sources)) for x in (f.relative_to(ROOT), f.read_bytes())]
    return folder / f"{digest(data_digest(), parameters, *sources, *modules)}.json"


def keep_outputs(cells, file, scratch=ROOT):
    "Write the outputs of cells that ran in `scratch`; names that differ from run to run or from machine to machine go."
    text = json.dumps({c["id"]: c.get("outputs", []) for c in cells if c["cell_type"] == "code"})
    text = text.replace(os.path.realpath(scratch), ".").replace(str(ROOT), ".")
    text = re.sub(re.escape(tempfile.gettempdir()) + r"/tmp\w{8}\b", "/tmp/folder", text)
    aside = file.with_suffix(f".{os.getpid()}")
    file.parent.mkdir(parents=True, exist_ok=True)
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, file)


# Two ways to run one

SETUP = {  # the cell that a notebook run in a kernel begins with here; it is no part of the page
    "cell_type": "code", "id": "site-setup", "metadata": {}, "execution_count": None, "outputs": [],
    "source": f"import sys; sys.path.insert(0, {str(HERE)!r}); import phone; phone.draw_also_for_phones(get_ipython()); sys.path.remove({str(HERE)!r})"}


def run_in_kernel(nb, folder, parameters):
    "By papermill, as a user would run it. Returns the cells with outputs."
    import papermill
    logging.getLogger("papermill").setLevel(logging.ERROR)
    with private_kernels() as private, tempfile.TemporaryDirectory() as aside:
        file = Path(aside) / "in.ipynb"
        file.write_text(json.dumps(nb | {"cells": [SETUP, *nb["cells"]]}), encoding="utf-8")
        return papermill.execute_notebook(str(file), None, parameters, cwd=str(folder), kernel_name="python3", progress_bar=False, **private).cells


def show_figures(shell):
    "Figures that a shell shows have their text beside them, and one drawn for a phone."
    from aml_miner.utils.figures import describe_figures
    describe_figures(shell)
    phone.draw_also_for_phones(shell)


def run_in_shell(nb, folder):
    "In this process, as nbdev_test does. Returns the cells with outputs."
    from execnb.nbio import dict2nb
    from execnb.shell import CaptureShell
    from loguru import logger
    logger.remove()  # it would write past the notebook; what sets up a log of its own keeps it
    ran, shell = dict2nb(nb), CaptureShell()
    show_figures(shell)
    try:
        with chdir(folder): shell.run_all(ran, exc_stop=True, preproc=lambda cell: "eval: false" in directives(cell))
    except Exception as problem: raise RuntimeError(shell.prettytb("the notebook")) from problem
    return ran.cells


def execute(name, nb, file):
    "Run one notebook and keep its outputs. A library notebook runs where it lies; what writes files, beside links to the project's folders."
    start, before = time.perf_counter(), sum(os.times()[:4])
    with tempfile.TemporaryDirectory() as scratch:
        for entry in ROOT.iterdir():
            if entry.name not in ("build", "runs") and not entry.name.startswith("."): (Path(scratch) / entry.name).symlink_to(entry)
        source = ROOT / "nbs" / f"{name}.ipynb"
        try: cells = run_in_kernel(nb, scratch, PARAMETERS.get(name)) if is_run(name) else run_in_shell(nb, source.parent if source.is_file() else scratch)
        except Exception as problem: raise SystemExit(f"{name}: {type(problem).__name__}: {problem}") from None
        keep_outputs(cells, file, scratch)
    return f"executed {name}: {time.perf_counter() - start:.1f} s, {sum(os.times()[:4]) - before:.1f} s of a core"


def execute_all(notebooks, folder=CACHE, workers=None):
    "Fill in the outputs of notebooks (name -> notebook); what the folder holds is not run. Returns (notebooks, names that ran)."
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: cache_file(nb, PARAMETERS.get(name), folder) for name, nb in notebooks.items()}
    todo = sorted((n for n in notebooks if not files[n].exists()), key=lambda n: not is_run(n))  # the long ones first
    os.environ |= ENVIRONMENT
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=multiprocessing.get_context("fork")) as pool:
        jobs = [pool.submit(execute, name, notebooks[name], files[name]) for name in todo]
        try:
            for job in jobs: print(job.result(), flush=True)
        finally: pool.shutdown(cancel_futures=True)  # the first that fails ends the build
    for stale in set(folder.iterdir()) - set(files.values()): stale.unlink()
    filled = {}
    for name, nb in notebooks.items():
        outputs = read_notebook(files[name])
        filled[name] = nb | {"cells": [c | {"outputs": outputs.get(c["id"], [])} if c["cell_type"] == "code" else c for c in nb["cells"]]}
    return filled, todo
