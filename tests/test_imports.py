"""Every module imports in a fresh process, without the development tools and without side effects."""
from conftest import ROOT, run_module
import pytest

MODULES = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for p in (ROOT / "aml_miner").rglob("*.py") if p.name != "_modidx.py"
)
LAYERS = ["config", "utils", "datasets", "features", "evaluation", "models", "training", "scoring"]
WITHOUT_DEV_TOOLS = """
import os, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"nbdev", "fastcore", "execnb", "papermill", "IPython", "pytest", "ir_measures"}:
            raise ModuleNotFoundError("development only: " + name)
sys.meta_path.insert(0, Refuse())
import random, numpy
state = random.getstate(), numpy.random.get_state()[1].tolist()
before = sorted(os.listdir("."))
__import__(sys.argv[1])
assert (random.getstate(), numpy.random.get_state()[1].tolist()) == state, "an import moved a global seed"
assert sorted(os.listdir(".")) == before, "an import wrote a file"
"""


@pytest.mark.parametrize("module", MODULES)
def test_imports_alone(module, tmp_path):
    done = run_module("-W", "error::SyntaxWarning", "-c", WITHOUT_DEV_TOOLS, module, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stdout, done.stdout


def test_imports_point_one_way():
    for path in (ROOT / "aml_miner").rglob("*.py"):
        layer = path.relative_to(ROOT / "aml_miner").parts[0]
        if layer not in LAYERS: continue
        for line in path.read_text().splitlines():
            if not line.startswith("from .."): continue
            target = line.split()[1].lstrip(".").split(".")[0]
            if target in LAYERS: assert LAYERS.index(target) <= LAYERS.index(layer), f"{path.relative_to(ROOT)}: {line}"


def test_training_module_runs_once():
    done = run_module("-W", "error::RuntimeWarning", "-m", "aml_miner.training.train_ranker", "--help")
    assert done.returncode == 0, done.stderr
    assert "--ndcg-at" in done.stdout
