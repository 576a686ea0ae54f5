"Some changed inputs of each kind; `python tests/fuzz/fuzz_inputs.py all --mutants 1000` reads as many as one likes."
import ast

from conftest import EVERY, ROOT
import pytest

from fuzz.fuzz_inputs import KINDS, REFUSALS, UNTOLD, came_to, run

MUTANTS = {"config": 45, "result": 40, "parquet": 40, "meta": 20, "source": 40, "journal": 80, "history": 12, "cache": 30}


@pytest.mark.usefixtures("uncounted")
@pytest.mark.parametrize("kind", MUTANTS)
def test_changed_inputs(kind, tmp_path):
    assert {*MUTANTS} == {*KINDS}
    n = MUTANTS[kind] if EVERY else MUTANTS[kind] // 3
    tally, bad = run(kind, n, 7, tmp_path)
    assert not bad, bad
    assert sum(tally.values()) == n


class Stub:
    def __init__(self, function): self.read = function


def fail(error): raise error


@pytest.mark.parametrize("function, what, wrong", [
    (lambda: "same result", "same result", False),
    (lambda: UNTOLD, UNTOLD, True),
    (lambda: fail(ValueError("m.yaml: no")), "refused", False),
    (lambda: fail(ValueError(" ")), "refused without a sentence", True),
    (lambda: fail(ValueError("x" * 10_000)), "refused without a sentence", True),
    (lambda: fail(KeyError("x")), "uncaught KeyError", True),
    (lambda: __import__("os").abort(), "signal SIGABRT", True),
])
def test_what_must_not_be_is_seen(function, what, wrong):
    found = came_to(Stub(function))
    assert found[0].startswith(what) and found[1] == wrong and ValueError in REFUSALS


def test_one_module_reads_yaml():
    "Every other file of settings goes through it, and so through its bounds."
    def uses(path):
        found = {ast.unparse(n) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute) and ast.unparse(n).startswith("yaml.")}
        return {name for name in found if "load" in name.lower() or name in ("yaml.parse", "yaml.compose", "yaml.scan")}
    package = ROOT / "aml_miner"
    assert {p.relative_to(package).as_posix() for p in package.rglob("*.py") if uses(p)} == {"config/yaml_reader.py"}
