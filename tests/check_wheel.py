"""Build the wheel, install it in an environment of its own with the runtime requirements only, import every module there; those of the service with its extra.

Needs no network: what is required is taken from this environment."""
from email import message_from_bytes
from importlib.metadata import distribution
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
IMPORT_ALL = """
import importlib, importlib.util, pkgutil, sys
import aml_miner
assert importlib.util.find_spec("nbdev") is None and importlib.util.find_spec("papermill") is None, "environment is not bare"
assert "site-packages" in aml_miner.__file__, aml_miner.__file__
names = sorted(m.name for m in pkgutil.walk_packages(aml_miner.__path__, "aml_miner.") if not m.name.endswith("._modidx"))
bare, extra = importlib.util.find_spec("fastapi") is None, {"fastapi", "starlette", "uvicorn", "prometheus_client", "python_multipart"}
for name in names:
    try: importlib.import_module(name)
    except ModuleNotFoundError as e:
        if not (bare and name.startswith("aml_miner.service.") and e.name in extra): raise
from aml_miner.config.model_config import load_config
load_config()
print(*names)
"""


def required(name, extras=("",), found=None):
    "The distributions that one needs to run, and those that they need, itself included."
    found = {} if found is None else found
    found[name] = distribution(name)
    for requirement in map(Requirement, found[name].requires or ()):
        asked_for = any(not requirement.marker or requirement.marker.evaluate({"extra": e}) for e in extras)
        if asked_for and requirement.name not in found: required(requirement.name, ("", *requirement.extras), found)
    return found


def needed_by(wheel, extra=""):
    "The distributions that a wheel, or an extra of it, needs, as it says itself: name -> distribution."
    archive, found = zipfile.ZipFile(wheel), {}
    about = message_from_bytes(archive.read(next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))))
    for requirement in map(Requirement, about.get_all("Requires-Dist")):
        if not requirement.marker or requirement.marker.evaluate({"extra": extra}): required(requirement.name, ("", *requirement.extras), found)
    return found


def lend(packages, site):
    "Link distributions into an environment."
    for package in packages:
        for name in {f.parts[0] for f in package.files if f.parts[0] not in ("..", "__pycache__")}:
            if not (site / name).exists(): (site / name).symlink_to(package.locate_file(name))


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        source = folder / "source"
        shutil.copytree(ROOT / "aml_miner", source / "aml_miner", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "scripts", source / "scripts")  # of the source alone
        for name in ("setup.py", "settings.ini", "MANIFEST.in", "README.md", "LICENSE", "SECURITY.md"): shutil.copy(ROOT / name, source)
        subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source], check=True, stdout=subprocess.DEVNULL)
        wheel = next(folder.glob("*.whl"))
        inside = zipfile.ZipFile(wheel).namelist()
        assert {"aml_miner/config/model_config.yaml", "aml_miner/py.typed"} <= {*inside}, inside
        strange = [n for n in inside if not n.startswith("aml_miner")]
        assert not strange, strange
        venv.create(folder / "env", with_pip=True)
        python = folder / "env" / "bin" / "python"
        lend(needed_by(wheel).values(), next((folder / "env").glob("lib/python*/site-packages")))
        for command in (["install", "--quiet", "--no-index", "--disable-pip-version-check", wheel], ["check"]):
            subprocess.run([python, "-m", "pip", *command], check=True, stdout=subprocess.DEVNULL)
        said = subprocess.run([folder / "env" / "bin" / "aml-miner", "serve", "--data", "d", "--insecure-local"], cwd=folder, capture_output=True, text=True)
        assert said.returncode == 2 and "pip install 'aml_miner[service]'" in said.stderr, (said.returncode, said.stderr)
        for more in ({}, needed_by(wheel, "service")):
            lend(more.values(), next((folder / "env").glob("lib/python*/site-packages")))
            done = subprocess.run([python, "-I", "-c", IMPORT_ALL], cwd=folder, capture_output=True, text=True)
            if done.returncode:
                print(done.stderr)
                return 1
        modules = done.stdout.split()
        for door in ([folder / "env" / "bin" / "aml-miner"], [python, "-I", "-m", "aml_miner"]):
            said = subprocess.run([*door, "--version"], cwd=folder, capture_output=True, text=True)
            assert said.returncode == 0 and said.stdout == f"aml_miner {wheel.name.split('-')[1]}\n", (said.stdout, said.stderr)
    assert len(modules) > 5, modules
    print(f"wheel {wheel.name}, modules imported without nbdev: {len(modules)} passed")
    return 0


if __name__ == "__main__": sys.exit(main())
