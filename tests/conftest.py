"""What several tests need: the project's root, small data, a fresh process."""
from pathlib import Path
import os
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AML_MINER_DATA", ROOT.parent / "shared" / "data"))  # data that the project did not make and does not hold
QUICK = "training: {bootstrap_samples: 20, early_stopping_rounds: 5}\nalert_ranker: {boosting: {n_estimators: 20}}\n"


def published(name):
    "A folder of published data; the test is skipped where it is not there."
    if not (DATA / name).is_dir(): pytest.skip(f"no {name} in {DATA}; set AML_MINER_DATA to the folder that holds it")
    return DATA / name


def run_module(*args, cwd=ROOT, **env):
    "python ARGS in a process of its own; the package is found from any working directory."
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | {k: str(v) for k, v in env.items()}
    return subprocess.run([sys.executable, *map(str, args)], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    "Features that tests build are kept in a folder of this run, never in the user's."
    os.environ["AML_MINER_CACHE"] = str(tmp_path_factory.getbasetemp().parent / "cache" if "PYTEST_XDIST_WORKER" in os.environ else tmp_path_factory.mktemp("cache"))  # all workers share one


@pytest.fixture
def refused(capsys, monkeypatch):
    "Gives a command arguments that it cannot use: exit code 2, and no traceback. What it says is returned."
    monkeypatch.chdir(ROOT)

    def call(main, *args):
        try: code = main([*map(str, args)])
        except SystemExit as end: code = end.code
        said = capsys.readouterr().err
        assert code == 2 and "Traceback" not in said, (code, said)
        return said
    return call


@pytest.fixture(scope="session")
def sample():
    return ROOT / "data" / "sample"


@pytest.fixture(scope="session")
def quick_config(tmp_path_factory):
    "Settings that make a training run short."
    path = tmp_path_factory.mktemp("config") / "quick.yaml"
    path.write_text(QUICK)
    return path
