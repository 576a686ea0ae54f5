"""Every module imports in a process of its own, without the development tools and without side effects."""
import re

from conftest import ROOT, run_module

MODULES = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for p in (ROOT / "aml_miner").rglob("*.py") if p.name != "_modidx.py"
)
FLOORS = [{"utils"}, {"config"}, {"compute"}, {"batches"}, {"transactions", "simulation", "features", "evaluation"}, {"monitoring", "models", "review"},
          {"conversion", "training", "scoring", "testing"}, {"tuning", "exploration", "submission", "datasets"}, {"morning"}, {"service"},
          {"cli"}]  # a package imports from those before its own
EACH_ALONE = """
import gc, os, sys, traceback
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"nbdev", "fastcore", "execnb", "papermill", "IPython", "pytest", "ir_measures"}:
            raise ModuleNotFoundError("development only: " + name)
sys.meta_path.insert(0, Refuse())
# What others made is loaded once; each module is imported in a process that forks from here.
import cyclopts, loguru, random, duckdb, lightgbm, matplotlib.pyplot, numpy, optuna, pandas, plotly.graph_objects, pyarrow.parquet, pydantic
import scipy.stats, sklearn.metrics, yaml
pydantic.create_model("First", x=(int, 0))  # for the first of a process all that is installed is searched for plugins
before = sorted(os.listdir("."))
gc.freeze()  # a fork that collects garbage copies no page for it
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
gc.unfreeze()
"""


def test_each_module_imports_alone(tmp_path):
    done = run_module("-W", "error::SyntaxWarning", "-c", EACH_ALONE, *MODULES, cwd=tmp_path)
    assert done.returncode == 0 and not done.stdout, f"{done.stdout}\n{done.stderr}"


def test_imports_point_one_way():
    floor = {package: i for i, packages in enumerate(FLOORS) for package in packages}
    assert {p.name for p in (ROOT / "aml_miner").iterdir() if p.is_dir() and p.name != "__pycache__"} == {*floor}
    for path in (ROOT / "aml_miner").rglob("*/*.py"):
        own = path.parent.name
        for line in path.read_text().splitlines():
            target = re.match(r"\s*from (?:\.\.|aml_miner\.)(\w+)", line)
            if target and target[1] != own: assert floor[target[1]] < floor[own], f"{path.relative_to(ROOT)}: {line}"


def test_training_module_runs_once():
    done = run_module("-W", "error::RuntimeWarning", "-m", "aml_miner.training.train_ranker", "--help")
    assert done.returncode == 0, done.stderr
    assert "--ndcg-at" in done.stdout
