"""The same bytes whatever the processor offers: everything is made as on this machine and as on one without its newer instructions, and no function that depends on them comes in unseen."""
import ast
import json
import os
from pathlib import Path
import platform
import re
import subprocess
import sys

from conftest import ROOT
import numpy as np
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
import pytest
from test_trained_models import differing

VARIANTS = [name for name in __cpu_dispatch__ if __cpu_features__[name]]  # of numpy's functions, that this machine can run
C_LIBRARY = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2", "OPENBLAS_CORETYPE": "Nehalem"} if platform.machine() == "x86_64" else {}
SETTINGS = {  # name: environment, whether all is made or only numbers
    "as it is": ({}, True),
    "oldest": ({"NPY_DISABLE_CPU_FEATURES": " ".join(VARIANTS)} | C_LIBRARY, True),
    "in between": ({"NPY_DISABLE_CPU_FEATURES": " ".join(VARIANTS[1:])}, False),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A folder of files for each setting, made by processes of their own: numpy looks at the processor once, when it is imported."
    if not VARIANTS: pytest.skip(f"numpy has one variant of each function on {platform.machine()}")
    root = tmp_path_factory.mktemp("processor")
    unset = {name: value for name, value in os.environ.items() if name not in {"NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES", *C_LIBRARY}}
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
    if not any(ours[name].read_bytes() != theirs[name].read_bytes() for name in ours if name.endswith(".npy")): pytest.skip("numpy computes alike with and without the newer instructions of this processor")
