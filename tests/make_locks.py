"""Pin all that is installed, with hashes: constraints.txt for the environment, docker/requirements.txt for the image; list the image in docker/sbom.cdx.json.

Pins that are there stay, unless `--upgrade` renews all, or some by name; `uv` resolves them for Python 3.11 to 3.13 and every system."""
import argparse
from configparser import ConfigParser
import json
from pathlib import Path
import re
import shutil
import subprocess
import sys
import tempfile
import venv

ROOT = Path(__file__).resolve().parent.parent
PINS, IMAGE, SBOM = ROOT / "constraints.txt", ROOT / "docker" / "requirements.txt", ROOT / "docker" / "sbom.cdx.json"
OURS = ("requirements", "service_requirements", "tuning_requirements", "notebooks_requirements", "dashboard_requirements", "build_requirements")
THEIRS = ("dev_requirements", "docs_requirements")
HEADS = {PINS: "Every version that the environments of this project install, runtime and development, Python 3.11 to 3.13, each with the hashes of its files.",
         IMAGE: "What the image holds: the package with its service, notebooks by papermill, Optuna's dashboard; versions are those of constraints.txt."}


def wanted(names):
    "Requirements of settings.ini, one a line."
    parser = ConfigParser(delimiters=["="])
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return [line for name in names for line in parser["DEFAULT"][name].split()]


def pinned(path):
    "name: version of a file of pins."
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", path.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def lock(path, requirements, upgrade=()):
    "Resolve requirements and write the pins; those of constraints.txt stay but for what is renewed."
    kept = {} if upgrade == ["all"] or not PINS.exists() else {name: version for name, version in pinned(PINS).items() if name not in upgrade}
    with tempfile.TemporaryDirectory() as folder:
        asked, pins = Path(folder) / "asked.in", Path(folder) / "pins.txt"
        asked.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        pins.write_text("".join(f"{name}=={version}\n" for name, version in kept.items()), encoding="utf-8")
        how = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
        command = ["uv", "pip", "compile", asked, *how, "-c", pins]
        text = subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True).stdout
    path.write_text(f"# {HEADS[path]}\n# Renewed by make locks.\n{text}", encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {len(pinned(path))} pins")


def described(bill):
    "A bill that names what it is of, without the links that every package brings."
    parser = ConfigParser(delimiters=["="])
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    for part in (*bill["components"], *bill["metadata"]["tools"]["components"]): part.pop("externalReferences", None)
    bill["metadata"]["component"] = {"type": "application", "name": "aml_miner", "version": parser["DEFAULT"]["version"], "bom-ref": "aml_miner",
                                     "licenses": [{"license": {"id": "Apache-2.0"}}]}
    bill["components"].sort(key=lambda part: part["name"].lower())
    return bill


def bill_of_materials():
    "Install what the image holds, and list it in the form of CycloneDX, with licences."
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python, raw = Path(folder) / "bin" / "python", Path(folder) / "sbom.json"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", IMAGE], check=True)
        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools", "wheel", "pip"], check=True)
        tool = shutil.which("cyclonedx-py") or Path(sys.executable).parent / "cyclonedx-py"
        command = [tool, "environment", "--spec-version", "1.6", "--output-reproducible", "--mc-type", "application", "-o", raw, python]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        SBOM.write_text(json.dumps(described(json.loads(raw.read_text())), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{SBOM.relative_to(ROOT)}: {len(json.loads(SBOM.read_text())['components'])} components")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", nargs="*", default=[], metavar="NAME", help="renew these pins; all: every one")
    upgrade = parser.parse_args().upgrade
    IMAGE.parent.mkdir(exist_ok=True)
    lock(PINS, wanted(OURS + THEIRS) + ["pip"], upgrade)
    lock(IMAGE, wanted(OURS))
    bill_of_materials()


if __name__ == "__main__": main()
