"""The same bytes whatever the processor offers: all is made as on this machine and as on one without its newer instructions.

No function that depends on them comes in unseen."""
import json
import os
import platform
import re
import subprocess
import sys

from conftest import ROOT
import numpy as np
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
import pytest
from test_trained_models import differing
from unsettled import unsettled

VARIANTS = [name for name in __cpu_dispatch__ if __cpu_features__[name]]  # of numpy's functions, that this machine can run and this environment leaves on
OFF = os.environ.get("NPY_DISABLE_CPU_FEATURES", "")
C_LIBRARY = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2", "OPENBLAS_CORETYPE": "Nehalem"} if platform.machine() == "x86_64" else {}
SETTINGS = {  # name: environment, whether all is made or only numbers
    "as it is": ({}, True),
    "oldest": ({"NPY_DISABLE_CPU_FEATURES": " ".join([OFF, *VARIANTS])} | C_LIBRARY, True),
    "in between": ({"NPY_DISABLE_CPU_FEATURES": " ".join([OFF, *VARIANTS[1:]])}, False),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A folder of files for each setting, made by processes of their own: numpy looks at the processor once, when it is imported."
    if not VARIANTS: pytest.skip(f"numpy has one variant of each function on {platform.machine()}")
    root = tmp_path_factory.mktemp("processor")
    unset = {name: value for name, value in os.environ.items() if name not in C_LIBRARY}
    running = {}
    for name, (environment, everything) in SETTINGS.items():
        own = {"PYTHONPATH": str(ROOT), "AML_MINER_CACHE": str(root / name / "cache"), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        command = [sys.executable, str(ROOT / "tests" / "make_processor_files.py"), str(root / name), *["all"] * everything]
        (root / f"{name}.log").touch()
        running[name] = subprocess.Popen(command, cwd=ROOT, env=unset | environment | own, stdout=(root / f"{name}.log").open("w"), stderr=subprocess.STDOUT)
    for name, process in running.items(): assert process.wait() == 0, f"{name}: {(root / f'{name}.log').read_text()[-3000:]}"
    return root


def files(folder, *parts): return {p.relative_to(folder).as_posix(): p for part in parts for p in sorted((folder / part).rglob("*")) if p.is_file()}


def test_the_settings_are_different_processors(made):
    "Without this, the other tests might compare a machine with itself."
    used = {name: (made / name / "numpy" / "variants.txt").read_text().split() for name in SETTINGS}
    assert used == {"as it is": VARIANTS, "oldest": [], "in between": VARIANTS[:1]}


@pytest.mark.parametrize("setting", list(SETTINGS)[1:])
def test_functions_have_the_same_bits(made, setting):
    "A hundred thousand numbers each: one that depends on the processor needs no luck to show."
    ours, theirs = (files(made / name, "numbers") for name in ("as it is", setting))
    assert list(ours) == list(theirs) and len(ours) > 15
    off = {name: int((a != b).sum()) for name in ours if not np.array_equal(a := np.load(ours[name]), b := np.load(theirs[name]), equal_nan=True)}
    assert not off, f"numbers that differ, of each function: {off}"


def test_everything_that_is_written_has_the_same_bytes(made):
    parts = ("batches", "cache", "models", "scores")
    ours, theirs = (files(made / name, *parts) for name in ("as it is", "oldest"))
    assert list(ours) == list(theirs) and {name.split("/")[0] for name in ours} == set(parts) and sum(name.startswith("models") for name in ours) == 9
    off = [name for name in ours if ours[name].read_bytes() != theirs[name].read_bytes()]
    said = [line for name in off if name.endswith(".json") for line in differing(*(json.loads(side[name].read_text()) for side in (ours, theirs)))]
    assert not off, "\n".join([f"differ: {', '.join(off[:9])}", *said[:9]])
    trees = {p.stem: p.read_text().count("Tree=") for p in (made / "as it is" / "models").glob("*.txt")}
    assert min(trees.values()) >= 2, f"hardly a tree to compare: {trees}"


def test_numpy_itself_differs_between_the_settings(made):
    "What the other tests would see."
    ours, theirs = (files(made / name, "numpy") for name in ("as it is", "oldest"))
    differ = [name for name in ours if name.endswith(".npy") and ours[name].read_bytes() != theirs[name].read_bytes()]
    if not differ: pytest.skip("numpy computes alike with and without the newer instructions of this processor")


PAGE = ROOT / "nbs" / "_docs" / "pages" / "explanations" / "determinism.md"


def listed(text):
    "What the page's table settles: (module, name) -> its line."
    table = text.split("### Places that are settled otherwise")[1].split("\n\nReports")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    return {(module, name): row[0] for row in rows for module in re.findall("`([^`]+)`", row[0]) for name in re.findall("`([^`]+)`", row[1])}


def in_source():
    "What the package asks for: (module, name)."
    package = ROOT / "aml_miner"
    return {(p.relative_to(package).with_suffix("").as_posix(), name) for p in package.rglob("*.py") for name in unsettled(p.read_text(encoding="utf-8"))}


def test_every_place_that_depends_on_the_processor_is_settled():
    found, allowed = in_source(), listed(PAGE.read_text(encoding="utf-8"))
    new = sorted(found - set(allowed))
    assert not new, f"{new}: use aml_miner.utils.portable_math, a stable sort or plain arithmetic; or settle it and say in {PAGE.name} how"
    modules, names = ({pair[i] for pair in found} for i in (0, 1))
    assert {m for m, _ in allowed} <= modules and {n for _, n in allowed} <= names, "the table names what is no longer there"
    settled_by = {line: [pair for pair in allowed if allowed[pair] == line] for line in allowed.values()}
    stale = [line for line, pairs in settled_by.items() if {m for m, _ in pairs} != {m for m, _ in found.intersection(pairs)}]
    assert not stale, f"these rows name a module without any of it: {stale}"


@pytest.mark.parametrize("code, name", {
    "y = np.exp(x)": "np.exp", "y = numpy.log1p(x)": "numpy.log1p", "y = math.pow(x, 3)": "math.pow", "from math import log": "math.log",
    "f = map(np.tanh, x)": "np.tanh", "y = x ** 1.7": "**", "x **= k": "**",
    "y = a @ b": "@", "y = a.dot(b)": "dot", "y = np.linalg.solve(a, b)": "np.linalg.solve", "y = np.cov(a)": "np.cov", "t.a.corr(t.b)": "corr",
    "i = np.argsort(x)": "argsort", "i = x.argsort()": "argsort", "i = np.argpartition(x, 3)": "argpartition",
    "t.sort_values('a')": "sort_values", "t.a.sort_values()": "sort_values", "t.sort_values(['a'])": "sort_values",
    "rng.lognormal(0, 1)": "rng.lognormal", "from scipy.special import expit": "scipy.special", "import sklearn.metrics": "sklearn.metrics",
    "con.execute('SELECT ln(x) FROM t')": "SQL ln", "q = f'SELECT {a}, power({b}, 3)'": "SQL power",
}.items())
def test_what_depends_on_the_processor_is_seen(code, name): assert unsettled(code) == {name}


@pytest.mark.parametrize("code", [
    "y = np.sqrt(x) + x ** 2 / 10**6 - 2**-53", "from aml_miner.utils.portable_math import exp\ny = exp(x)",
    "np.argsort(x, kind='stable')", "t.sort_values(['a', 'b'])", "t.sort_values('a', kind='stable')",
    'def f():\n    "The logarithm, log(x)."', "rng.integers(9); rng.random(3); rng.permutation(9)", "con.execute('SELECT sqrt(x), log_x FROM catalog(t)')"])
def test_what_does_not_is_let_be(code): assert not unsettled(code)
