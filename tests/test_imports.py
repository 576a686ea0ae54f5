"""Every module imports in a process of its own, without the development tools and without side effects."""
from conftest import ROOT, run_module

MODULES = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for p in (ROOT / "aml_miner").rglob("*.py") if p.name != "_modidx.py"
)
LAYERS = ["config", "utils", "datasets", "features", "evaluation", "models", "training", "scoring"]
COMMANDS = {"evaluation/compare.py": "training"}  # a command that reads models: it stands above them, whatever its folder
EACH_ALONE = """
import os, sys, traceback
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"nbdev", "fastcore", "execnb", "papermill", "IPython", "pytest", "ir_measures"}:
            raise ModuleNotFoundError("development only: " + name)
sys.meta_path.insert(0, Refuse())
# What others made is loaded once; each module is imported in a process that forks from here.
import random, duckdb, lightgbm, matplotlib.pyplot, numpy, optuna, pandas, plotly.graph_objects, pyarrow.parquet, pydantic, scipy.stats, sklearn.metrics, yaml
before = sorted(os.listdir("."))
for module in sys.argv[1:]:
    child = os.fork()
    if child:
        if os.waitpid(child, 0)[1]: print("failed", module, flush=True)
        continue
    try:
        state = random.getstate(), numpy.random.get_state()[1].tolist()
        __import__(module)
        assert (random.getstate(), numpy.random.get_state()[1].tolist()) == state, "an import moved a global seed"
        assert sorted(os.listdir(".")) == before, "an import wrote a file"
        os._exit(0)
    except BaseException: traceback.print_exc()
    os._exit(1)
"""


def test_each_module_imports_alone(tmp_path):
    done = run_module("-W", "error::SyntaxWarning", "-c", EACH_ALONE, *MODULES, cwd=tmp_path)
    assert done.returncode == 0 and not done.stdout, f"{done.stdout}\n{done.stderr}"


def test_imports_point_one_way():
    for path in (ROOT / "aml_miner").rglob("*.py"):
        name = path.relative_to(ROOT / "aml_miner")
        layer = COMMANDS.get(name.as_posix(), name.parts[0])
        if layer not in LAYERS: continue
        for line in path.read_text().splitlines():
            if not line.startswith("from .."): continue
            target = line.split()[1].lstrip(".").split(".")[0]
            module = line.split()[1].lstrip(".").replace(".", "/") + ".py"
            if target in LAYERS: assert LAYERS.index(COMMANDS.get(module, target)) <= LAYERS.index(layer), f"{path.relative_to(ROOT)}: {line}"


def test_training_module_runs_once():
    done = run_module("-W", "error::RuntimeWarning", "-m", "aml_miner.training.train_ranker", "--help")
    assert done.returncode == 0, done.stderr
    assert "--ndcg-at" in done.stdout
