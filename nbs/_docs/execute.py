"""Notebooks with their outputs: executed once for each content of the notebook, the modules it imports and the data it reads."""
import ast
from concurrent.futures import ProcessPoolExecutor
from functools import cache
import gc
import hashlib
from importlib import import_module, metadata
import json
import logging
import multiprocessing
import os
from pathlib import Path
import pkgutil
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback

from kernels import private_kernels

ROOT = Path(__file__).resolve().parent.parent.parent
FORM = 1  # of the cached outputs; a higher one makes them all anew
PARAMETERS = {"04_tune_hyperparameters": {"trials": 5, "cv_folds": 3}}  # other than a notebook's own, so that the site is built sooner; the page says so
FIRST = ("01_train_scorer", "03_train_cluster_scorer")  # they build the features of the sample, which the others then find
VERSIONS = ("duckdb", "lightgbm", "matplotlib", "numpy", "pandas", "plotly", "pyarrow", "scikit-learn", "scipy", "optuna")


def source_of(cell):
    "Text of a cell; a notebook file holds it as lines or in one piece."
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def directives(cell):
    "The words after `#|` of a code cell."
    return [line[2:].strip() for line in source_of(cell).splitlines() if line.startswith("#|")]


def read_notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


# What a notebook depends on

def imported_modules(source):
    "Names that some Python text imports, with every prefix; relative ones as they are."
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import): names += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names += [base, *(f"{base}.{a.name}" if node.module else f"{base}{a.name}" for a in node.names)]
    return names


@cache
def imports_of(file):
    "The files of the package that a file of it imports."
    return tuple(f for n in imported_modules(file.read_text(encoding="utf-8")) if (f := module_file(n, file)))


def module_file(name, importer=None):
    "The file of a dotted name, absolute or relative to the importing file; None outside of the package."
    dots = len(name) - len(name.lstrip("."))
    folder = importer.parents[dots - 1] if dots else ROOT
    path = folder.joinpath(*[p for p in name.lstrip(".").split(".") if p])
    file = next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)
    return file if file and file.is_relative_to(ROOT / "aml_miner") else None


def package_files(source):
    "All files of the package that some Python text rests on, however far away."
    found, queue = set(), [f for n in imported_modules(source) if (f := module_file(n))]
    while queue:
        file = queue.pop()
        if file in found: continue
        found.add(file)
        queue += imports_of(file)
    return sorted(found)


def python_of(nb):
    "The code of a notebook that parses: what IPython alone understands is left out."
    parts = []
    for cell in nb["cells"]:
        if cell["cell_type"] != "code": continue
        try: ast.parse(source_of(cell))
        except SyntaxError: continue
        parts.append(source_of(cell))
    return "\n".join(parts)


def digest(*parts):
    h = hashlib.sha256()
    for part in parts:
        part = part if isinstance(part, bytes) else str(part).encode()
        h.update(len(part).to_bytes(8, "big") + part)
    return h.hexdigest()


def data_digest():
    "Of everything beside code that a notebook may read: the sample, the trained models, the settings, the versions."
    files = [p for folder in ("data/sample", "trained_models", "aml_miner") for p in sorted((ROOT / folder).rglob("*")) if p.is_file() and p.suffix not in (".py", ".pyc")]
    return digest(sys.version, *(metadata.version(v) for v in VERSIONS), FORM, *(x for f in files for x in (f.relative_to(ROOT), f.read_bytes())))


def cache_key(nb, data):
    "Changes with whatever the notebook's outputs may rest on."
    code = python_of(nb)
    return digest(data, *(source_of(c) for c in nb["cells"] if c["cell_type"] == "code"),
                  *(x for f in package_files(code) for x in (f.relative_to(ROOT), f.read_bytes())))


# Tests that show nothing need not run for a page

def bound_names(tree):
    "Names that some code makes outside of functions; those that a loop runs over apart."
    names, passing = set(), {id(n) for loop in ast.walk(tree) if isinstance(loop, (ast.For, ast.comprehension)) for n in ast.walk(loop.target)}
    for node in ast.walk(tree):
        if id(node) in passing: continue
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store): names.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)): names |= {(a.asname or a.name).split(".")[0] for a in node.names}
    return names


def read_names(tree):
    "Names that some code reads; a function's own arguments and variables are not what lies around it."
    if isinstance(tree, ast.FunctionDef):
        inside = set().union(*(read_names(n) for n in tree.body)) - {a.arg for a in ast.walk(tree.args) if isinstance(a, ast.arg)} - set().union(*(bound_names(n) for n in tree.body))
        return inside | set().union(*(read_names(n) for n in [tree.args, *tree.decorator_list, *filter(None, [tree.returns])]))
    if isinstance(tree, ast.Name): return {tree.id} if isinstance(tree.ctx, ast.Load) else set()
    return set().union(*(read_names(n) for n in ast.iter_child_nodes(tree)))


def needed_before(tree, needed):
    "Names that must exist before a cell, given those that must exist after it."
    for statement in reversed(tree.body):
        if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)): needed = needed - bound_names(statement)
        needed = needed | read_names(statement)
    return needed


def shows_nothing(cell, tree):
    "Whether a cell holds tests and nothing that a page would show; a hidden cell shows nothing ever."
    text = source_of(cell)
    if not re.search(r"(^\s*|: )(test_\w+\(|assert |pd\.testing\.assert_\w+\()", text, flags=re.M): return False
    if "hide" in directives(cell): return True
    last = tree.body[-1]
    silent = not isinstance(last, ast.Expr) or isinstance(last.value, ast.Call) and getattr(last.value.func, "id", getattr(last.value.func, "attr", "")).startswith(("test_", "assert_"))
    return silent and not re.search(r"\b(print|display|show|draw\w*|plot_\w+)\(", text)


def needed_statements(tree, needed):
    "The statements of a hidden cell that bind what is needed after it, or set up the log: (code, names needed before it)."
    kept = []
    for statement in reversed(tree.body):
        called = getattr(getattr(statement.value, "func", None), "id", "") if isinstance(statement, ast.Expr) else None
        if called != "setup_logging" and (called is not None or not bound_names(statement) & needed): continue
        needed = needed_before(ast.Module([statement], []), needed)
        kept.append(ast.unparse(statement))
    return "\n".join(kept[::-1]), needed


def without_silent_tests(nb):
    "The notebook less its tests that show nothing and bind nothing which a later cell reads; nbdev_test runs them."
    kept, needed = [], set()
    for cell in reversed(nb["cells"]):
        if cell["cell_type"] == "code":
            try: tree = ast.parse(source_of(cell))
            except SyntaxError: return nb
            silent = shows_nothing(cell, tree)
            if silent and not bound_names(tree) & needed: continue
            if silent and "hide" in directives(cell):
                source, needed = needed_statements(tree, needed)
                cell = cell | {"source": "#| hide\n" + source}
            else: needed = needed_before(tree, needed)
        kept.append(cell)
    return nb | {"cells": kept[::-1]}


# Two ways to run one

class ForkedKernel:
    "A kernel that is forked off here, with the libraries imported already, and starts when jupyter_client asks for one; to it, this is a process."
    stdin = stdout = stderr = None

    def __init__(self):
        wait, self._start = multiprocessing.get_context("fork").Pipe(duplex=False)
        self.pid, self.returncode = os.fork(), None
        if not self.pid: self._be_kernel(wait)
        os.setpgid(self.pid, self.pid)  # signals to it are sent to its group

    def _be_kernel(self, wait):
        "What the child does, from its first breath to its last."
        from IPython.core.interactiveshell import InteractiveShell
        from ipykernel.kernelapp import IPKernelApp
        from matplotlib_inline.backend_inline import configure_inline_support
        from matplotlib_inline.config import InlineBackend
        for singleton in (InteractiveShell, InlineBackend): singleton.clear_instance()  # those of `notebook_shell`
        configure_inline_support.current_backend = "unset"  # else it takes the formats of figures for chosen
        self._start.close()  # else it would never learn that nobody asks any more
        try:
            command, env, cwd = wait.recv()
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(env)
            IPKernelApp.launch_instance(argv=[*command[command.index("-f"):], f"--IPKernelApp.parent_handle={os.getppid()}"])
        except EOFError: pass  # it was not needed
        except Exception: traceback.print_exc()
        finally: os._exit(0)

    def start(self, command, env=None, cwd=None, **_):
        "Stands in for `jupyter_client.launcher.launch_kernel`."
        self._start.send((command, dict(env or os.environ), cwd or os.getcwd()))
        return self

    def poll(self, options=os.WNOHANG):
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, options)
            if ended: self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self): return self.poll(0)

    def send_signal(self, number):
        if self.poll() is None: os.kill(self.pid, number)

    def terminate(self): self.send_signal(signal.SIGTERM)

    def kill(self): self.send_signal(signal.SIGKILL)


def run_papermill(nb, folder, parameters):
    "In a kernel of its own, as a user would run it, but that its libraries are imported already."
    kernel = ForkedKernel()
    from jupyter_client.provisioning import local_provisioner
    import papermill
    local_provisioner.launch_kernel = kernel.start
    logging.getLogger("papermill").setLevel(logging.ERROR)
    options = ["--IPKernelApp.log_level=50", "--IPKernelApp.exec_lines=%matplotlib inline"]  # matplotlib chose its backend before there was a kernel
    with tempfile.TemporaryDirectory() as aside, private_kernels() as private:
        file, done = Path(aside) / "in.ipynb", Path(aside) / "out.ipynb"
        file.write_text(json.dumps(nb), encoding="utf-8")
        papermill.execute_notebook(str(file), str(done), parameters, cwd=str(folder), kernel_name="python3", progress_bar=False, extra_arguments=options, **private)
        return {c["id"]: c["outputs"] for c in read_notebook(done)["cells"] if c["cell_type"] == "code" and "injected-parameters" not in c["metadata"].get("tags", [])}


@cache
def notebook_shell():
    "What runs cells as nbdev_test does; made before the fork, it is there at once."
    from execnb.shell import CaptureShell
    from matplotlib import pyplot
    shell = CaptureShell()
    shell.run("%config InlineBackend.print_figure_kwargs = {'bbox_inches': 'tight'}")
    shell.history_manager.save_thread.stop()  # nothing is kept, and a process with threads is no good to fork
    pyplot.uninstall_repl_displayhook()  # it would draw every figure once more than it is shown
    return shell


def run_here(nb, folder):
    "In this process, which was forked from one that has imported the libraries; as nbdev_test does."
    from execnb.nbio import _dict2obj
    from loguru import logger
    logger.remove()  # it would write past the notebook; what sets up a log of its own keeps it
    os.chdir(folder)
    shell, outputs = notebook_shell(), {}
    for i, cell in enumerate(nb["cells"]):
        if cell["cell_type"] != "code" or "eval: false" in directives(cell): continue
        ran = _dict2obj({"cell_type": "code", "source": source_of(cell), "outputs": [], "idx_": i})
        shell.cell(ran)
        if shell.exc: raise RuntimeError(f"cell {i}:\n{source_of(cell)}\n{shell.exc!r}") from shell.exc
        outputs[cell["id"]] = json.loads(json.dumps(ran.outputs))
    return outputs


def takes_parameters(nb):
    "Whether it is one of the notebooks to run."
    return "parameters" in {t for c in nb["cells"] for t in c["metadata"].get("tags", [])}


def tested(cached):
    "The file that says that outputs were made with all tests."
    return cached.with_suffix(".tested")


def execute(name, nb, folder, cached, tests):
    "Run one notebook and keep its outputs; tests that show nothing are left out, where the rest goes without them, unless those of notebooks to run are asked for."
    start = time.perf_counter()
    by_papermill = takes_parameters(nb)
    def run(nb, scratch): return run_papermill(nb, scratch, PARAMETERS.get(name)) if by_papermill else run_here(nb, scratch)
    with tempfile.TemporaryDirectory() as scratch:
        for entry in folder: (Path(scratch) / entry.name).symlink_to(entry)
        try: outputs = run(nb if tests and by_papermill else without_silent_tests(nb), scratch)
        except Exception as problem:
            if tests and by_papermill: raise
            print(f"{name}: the whole notebook is run, as without its tests it says {type(problem).__name__}", flush=True)
            outputs = run(nb, scratch)
        text = json.dumps(outputs).replace(os.path.realpath(scratch), ".").replace(str(ROOT), ".")
        text = re.sub(re.escape(tempfile.gettempdir()) + r"/tmp\w{8}\b", "/tmp/folder", text)  # a name that differs each time
    aside = cached.with_suffix(f".{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, cached)
    if tests and by_papermill: tested(cached).touch()
    used = sum(os.times()[:4])
    return name, time.perf_counter() - start, used


def preload():
    "Import once what most notebooks import; forks then begin with it."
    import duckdb, lightgbm, matplotlib.pyplot, numpy, optuna, pandas, plotly.graph_objects, pyarrow.parquet, pydantic, scipy.stats, sklearn.metrics, yaml  # noqa: E401, F401
    import execnb.shell, fastcore.test, ipykernel.kernelapp, papermill  # noqa: E401, F401
    import aml_miner
    for module in pkgutil.walk_packages(aml_miner.__path__, "aml_miner."): import_module(module.name)


def execute_all(notebooks, folder, tests=False, workers=None):
    "Fill in the outputs of notebooks (name -> notebook); what the folder holds is not run. Returns (notebooks, names that ran)."
    folder.mkdir(parents=True, exist_ok=True)
    data = data_digest()
    files = {name: folder / f"{cache_key(nb, digest(data, PARAMETERS[name]) if name in PARAMETERS else data)}.json" for name, nb in notebooks.items()}
    todo = [n for n, nb in notebooks.items() if not files[n].exists() or tests and takes_parameters(nb) and not tested(files[n]).exists()]
    run = [n for n in todo if Path(n).name[0].isdigit()]
    todo = [*sorted(run, key=lambda n: n not in FIRST), *sorted(set(todo) - set(run), reverse=True)]  # the short ones of datasets and config come last
    if todo:
        os.environ |= {"OMP_WAIT_POLICY": "passive", "PLOTLY_RENDERER": "plotly_mimetype"}  # before LightGBM and plotly are loaded
        preload()
        notebook_shell()
        gc.collect()
        gc.freeze()  # what is imported stays: no fork need look through it
        entries = [p for p in sorted(ROOT.iterdir()) if p.name not in ("build", "runs", ".git") and not p.name.startswith(".")]
        try:
            with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=multiprocessing.get_context("fork"), max_tasks_per_child=None) as pool:
                jobs = {name: pool.submit(in_fork, name, notebooks[name], entries, files[name], tests) for name in todo}
                for job in jobs.values(): print("executed {}: {:.1f} s, {:.1f} s of a core".format(*job.result()), flush=True)
        finally: gc.unfreeze()
    for stale in set(folder.iterdir()) - set(files.values()) - set(map(tested, files.values())): shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    filled = {}
    for name, nb in notebooks.items():
        outputs = json.loads(files[name].read_text(encoding="utf-8"))
        filled[name] = nb | {"cells": [c | {"outputs": outputs.get(c["id"], [])} if c["cell_type"] == "code" else c for c in nb["cells"]]}
    return filled, todo


def in_fork(*args):
    "A process for one notebook, so that nothing it sets reaches the next."
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def work():
        try: theirs.send((True, execute(*args)))
        except BaseException as problem: theirs.send((False, f"{args[0]}: {type(problem).__name__}: {problem}"))
        finally: theirs.close()

    child = context.Process(target=work)
    child.start()
    theirs.close()
    good, result = ours.recv()
    child.join()
    if not good: raise SystemExit(result)
    return result
