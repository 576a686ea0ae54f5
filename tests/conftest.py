"""What several tests need: the project's root, small data, a fresh process."""
import asyncio
import atexit
from concurrent.futures import ThreadPoolExecutor
from functools import cache
import gc
import os
from pathlib import Path
import posix
import shutil
import subprocess
import sys
import time

from coverage import Coverage
from hypothesis import settings
import pytest
from warm import WarmStart

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "nbs" / "_docs"))
from browser import browsing, chromium  # noqa: E402

DATA = Path(os.environ.get("AML_MINER_DATA", ROOT.parent / "shared" / "data"))  # data that the project did not make and does not hold
PAPERMILL = ROOT / "tests" / "patient_papermill.py"
LONG = (
    "test_commands", "test_processor", "test_tuning", "test_tuning_database", "test_kills", "test_site", "test_train_scorer",
    "test_train_cluster_scorer", "test_train_ranker", "test_lab",
    "test_fuzz_models", "test_fuzz_inputs", "test_history", "test_face", "test_damaged_models", "test_compare",
    "test_convert", "test_service", "test_service_faults", "test_foreign", "test_explore", "test_feature_cache", "test_handbook",
)
EVERY = os.environ.get("AML_MINER_EVERY") == "1"  # make test EVERY=1: all cases of the long lists, as before a release
settings.register_profile("laws", derandomize=True, deadline=None, database=None, max_examples=60)  # the same inputs each time, and no limit in seconds
settings.load_profile("laws")
QUICK = "training: {bootstrap_samples: 20, early_stopping_rounds: 5, learning_curve: []}\nalert_ranker: {boosting: {n_estimators: 20}}\n"


def published(name):
    "A folder of published data; the test is skipped where it is not there."
    if not (DATA / name).is_dir(): pytest.skip(f"no {name} in {DATA}; set AML_MINER_DATA to the folder that holds it")
    return DATA / name


def some(cases, n):
    "n of many cases, spread evenly over all; every one where `EVERY` says so."
    cases = [*cases]
    return cases if EVERY or n >= len(cases) else [cases[i * len(cases) // n] for i in range(n)]


def run_module(*args, cwd=ROOT, **env):
    "python ARGS in a process of its own; the package is found from any working directory."
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | {k: str(v) for k, v in env.items()}
    return subprocess.run([sys.executable, *map(str, args)], cwd=cwd, env=environment, capture_output=True, text=True)


@cache
def warm_start(kind):
    "Where warm processes of a kind fork, in this process of pytest; ended with it."
    start = WarmStart(kind, ROOT)
    atexit.register(start.end)
    return start


def run_warm(*args, cwd=ROOT, **env):
    "As `run_module`, but that the libraries are loaded already, nothing of the package. Variables that Python or a library reads as it starts come too late."
    return warm_start("commands").run(args, cwd, os.environ | {"PYTHONPATH": str(ROOT)} | env)


def files(folder):
    "What lies in a folder, at any depth: name from there, bytes."
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def run_papermill(*args, cwd=ROOT):
    "papermill ARGS as a user would run it, but that its kernel is private and may take its time, and that both begin warm."
    return warm_start("papermill").run((PAPERMILL, *args), cwd, os.environ | {"PYTHONPATH": str(ROOT), "WARM_KERNELS": warm_start("kernels").address})


def run_cold_papermill(*args, **how):
    "The same, where both load their libraries themselves."
    return run_module(PAPERMILL, *args, **how)


def run_coroutine(coroutine):
    "What it returns, from a loop in a thread of its own: in a process that holds a browser, playwright's loop runs in this one."
    with ThreadPoolExecutor(1) as thread: return thread.submit(asyncio.run, coroutine).result()  # noqa: TID251


def wait_until(condition, why_not=lambda: None, seconds=3600):
    "Wait for what happens soon, or as late as the machine needs; `why_not` says that it cannot happen any more. The seconds are a net for what hangs."
    until = time.monotonic() + seconds
    while not (found := condition()):
        if reason := why_not() or time.monotonic() > until and f"not within {seconds} s": pytest.fail(str(reason))
        time.sleep(.05)
    return found


def pytest_collection_modifyitems(items):
    "The files that take longest begin first: the workers then end at about the same time. xdist keeps the order (--no-loadscope-reorder)."
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_collection_finish():
    "What is loaded by now stays: a fork that collects garbage copies no page for it."
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)


def pytest_configure(config):
    "Whether there is a browser is decided once, before the workers start: what is installed or removed meanwhile divides no tests."
    os.environ.setdefault("AML_MINER_CHROMIUM", chromium() or "")
    runs_tests = hasattr(config, "workerinput") or not config.getoption("numprocesses", None)
    if runs_tests: os.environ.pop("COVERAGE_PROCESS_START", None)  # it counts here already; what it starts would take longer by half


@pytest.fixture(scope="session")
def browser():
    "A headless Chromium; what needs one is skipped, with the reason, where there is none."
    pytest.importorskip("playwright", reason="playwright is not installed")
    if not (program := chromium()): pytest.skip("no Chromium on this machine: Debian's package is chromium")
    if not Path(program).is_file(): pytest.skip(f"{program}: no such program any more, or AML_MINER_CHROMIUM names none")
    with browsing() as started: yield started


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    "Features that tests build are kept in a folder of this run, never in the user's."
    one_of_several = "PYTEST_XDIST_WORKER" in os.environ  # workers, which share a folder
    os.environ["AML_MINER_CACHE"] = str(tmp_path_factory.getbasetemp().parent / "cache" if one_of_several else tmp_path_factory.mktemp("cache"))


@pytest.fixture
def uncounted(monkeypatch):
    "coverage.py looks away, in forks too: what random input reaches is not tested by that, and counting has its price."
    coverage = Coverage.current()
    if coverage: coverage.stop()
    monkeypatch.setattr(os, "_exit", posix._exit)  # coverage.py's own writes down what was counted
    yield
    if coverage: coverage.start()


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
def twelve_days(sample, tmp_path_factory):
    "The first days of the sample, for trainings of which no more is asked than what they write."
    folder = tmp_path_factory.mktemp("days") / "data"
    for day in sorted(sample.glob("2*"))[:12]: shutil.copytree(day, folder / day.name)
    return folder


@pytest.fixture(scope="session")
def quick_config(tmp_path_factory):
    "Settings that make a training run short."
    path = tmp_path_factory.mktemp("config") / "quick.yaml"
    path.write_text(QUICK)
    return path
