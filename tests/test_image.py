"""What is installed is pinned by hashes, the bill of materials says the same, and the image is built and run as it should be."""
from configparser import ConfigParser
from importlib import metadata
import json
import re
import shutil
import subprocess

from conftest import ROOT
import make_locks
from packaging.requirements import Requirement
import pytest
import yaml

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = [line for line in re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M)).splitlines() if line]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
PERMISSIVE = re.compile(r"MIT|BSD|Apache|ISC|PSF|Python-2.0|MPL|Mozilla|0BSD|Zlib|CC0|HPND")
TOLD_ELSEWHERE = {"asttokens"}  # Apache-2.0 in its LICENSE; its metadata names none


def entries(path):
    "name -> (version, hashes) of a file of pins."
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    rows = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower(): line for line in lines}
    return {name: (re.search(r"==([^\s;]+)", line)[1], frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})\b", line))) for name, line in rows.items()}


def name_of(requirement): return re.sub(r"[-_.]+", "-", Requirement(requirement).name).lower()


def test_every_pin_has_its_hashes():
    for path in (make_locks.PINS, make_locks.IMAGE):
        pins = entries(path)
        assert len(pins) > 90 and not [name for name, (_, hashes) in pins.items() if not hashes]
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", path.read_text(encoding="utf-8"))


def test_what_is_asked_for_is_pinned():
    for path, asked in ((make_locks.PINS, make_locks.OURS + make_locks.THEIRS), (make_locks.IMAGE, make_locks.OURS)):
        pins = entries(path)
        wanted = {name_of(line): Requirement(line).specifier for line in make_locks.wanted(asked)}
        assert not {name: pins.get(name) for name, allowed in wanted.items() if name not in pins or pins[name][0] not in allowed}


def test_the_image_holds_the_versions_that_are_tested():
    pins, image = entries(make_locks.PINS), entries(make_locks.IMAGE)
    assert not [name for name, pin in image.items() if pins.get(name) != pin]


def test_this_environment_is_the_pinned_one():
    installed = {re.sub(r"[-_.]+", "-", d.name).lower(): d.version for d in metadata.distributions()}
    assert not {name: (version, installed[name]) for name, (version, _) in entries(make_locks.PINS).items() if installed.get(name, version) != version}


def test_the_bill_of_materials_lists_the_image():
    bill, image = json.loads(make_locks.SBOM.read_text(encoding="utf-8")), entries(make_locks.IMAGE)
    listed = {re.sub(r"[-_.]+", "-", part["name"]).lower(): part["version"] for part in bill["components"]}
    assert bill["specVersion"] == "1.6" and bill["metadata"]["component"]["name"] == "aml_miner"
    assert not {name: version for name, version in listed.items() if name not in image or image[name][0] != version}
    everywhere = {*re.findall(r"^([\w.-]+)==[^ ;]+ \\$", make_locks.IMAGE.read_text(encoding="utf-8"), flags=re.M)}
    assert everywhere - {"setuptools", "wheel"} <= listed.keys()
    needed = {d.name.lower().replace("_", "-") for d in map(metadata.distribution, map(name_of, make_locks.wanted(["requirements", "service_requirements"])))}
    assert needed <= listed.keys()


def test_licences_of_the_image_are_permissive():
    bill = json.loads(make_locks.SBOM.read_text(encoding="utf-8"))
    for part in bill["components"]:
        said = [one.get("expression") or one["license"].get("id") or one["license"].get("name", "") for one in part.get("licenses", [])]
        if not said: assert part["name"] in TOLD_ELSEWHERE, part["name"]
        for licence in said:
            assert PERMISSIVE.search(licence) and not re.search(r"\b[AL]?GPL|proprietary|BUSL", licence, flags=re.I), (part["name"], licence)


def test_the_image_installs_by_hash_and_runs_as_nobody_special():
    stages = [i for i, line in enumerate(INSTRUCTIONS) if line.startswith("FROM ")]
    last = INSTRUCTIONS[stages[-1]:]
    assert len(stages) == 2 and all("${PYTHON}" in INSTRUCTIONS[i] for i in stages)
    installs = [line for line in INSTRUCTIONS if "--requirement" in line]
    assert installs and all("--require-hashes" in line and "--only-binary :all:" in line for line in installs)
    user = [i for i, line in enumerate(last) if line.startswith("USER ")]
    assert user and not last[user[-1]].split()[1].startswith(("0", "root"))
    assert not [line for line in last[user[-1]:] if line.startswith(("RUN", "COPY", "ADD"))] and any(line.startswith("HEALTHCHECK") for line in last)
    assert not re.search(r"\bADD\b|curl|wget|sudo|chmod 777", "\n".join(INSTRUCTIONS))


def test_what_is_copied_is_there_and_is_sent():
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    copied = [line.split()[1:-1] for line in INSTRUCTIONS if line.startswith("COPY ") and "--from" not in line]
    assert sum(map(len, copied)) >= 9
    for source in sum(copied, []): assert (ROOT / source).exists() and source in let_through, source
    assert let_through == {source for sources in copied for source in sources}


def test_hadolint_finds_nothing():
    if not (hadolint := shutil.which("hadolint")): pytest.skip("hadolint is not on PATH: it is GPL, so the environment does not bring it")
    done = subprocess.run([hadolint, ROOT / "docker" / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_services_are_shut_in():
    parser = ConfigParser(delimiters=["="])
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    version = parser["DEFAULT"]["version"]
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert service["image"] == f"aml_miner:${{AML_MINER_VERSION:-{version}}}" and not service.get("privileged")
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert not [v for v in service["volumes"] if "docker.sock" in v or v.startswith("/")], name
    assert f"ARG VERSION={version}" in INSTRUCTIONS


@pytest.mark.parametrize("command", [c for c in (COMPOSE["services"][s]["command"] for s in ("service", "morning")) if c[0] == "aml-miner"] +
                         [json.loads(INSTRUCTIONS[-1].removeprefix("CMD "))], ids=" ".join)
def test_its_commands_are_commands(command):
    import reference
    typed = reference.tree_commands()
    assert command[0] == "aml-miner" and {w for w in command if w.startswith("--")} <= reference.option_names(typed[f"aml-miner {command[1]}"])
