"""How commands end where something is wrong: one line and exit code 2, whatever it is; a traceback for their own faults."""
import importlib
import re
import resource
import subprocess
import sys

from conftest import ROOT
import pytest

score_batch = importlib.import_module("aml_miner.scoring.score_batch")  # the package's own name is the function's
COMMANDS = [p for p in sorted((ROOT / "aml_miner").rglob("*.py")) if re.search(r'^if __name__ == "__main__"', p.read_text(), flags=re.M)]
MODULES = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in COMMANDS]
SCORE = ("--batch-dir", "data/sample/2025-09-21", "--models-dir", "trained_models", "--output-dir")


def test_every_main_ends_in_one_place():
    "One is the command, with all the others below it; seven train, tune, score, compare and convert; of the rest each does one thing."
    assert len(MODULES) == 13
    for name in MODULES: assert importlib.import_module(name).main.__wrapped__.__name__ == "main", name
    assert not [p for p in (ROOT / "aml_miner").rglob("*.py") if "argparse" in p.read_text()]


@pytest.mark.parametrize("error, code, said", [
    (KeyboardInterrupt(), 130, "interrupted"),
    (MemoryError("malloc of size 64 failed"), 2, "out of memory (malloc of size 64 failed)"),
    (OSError(28, "No space left on device", "a.txt"), 2, "'a.txt'"),
    (RuntimeError("can't start new thread"), 2, "out of memory"),
    (ValueError("a.txt: cut short"), 2, "a.txt: cut short"),
])
def test_what_goes_wrong_is_one_line(error, code, said, capsys, monkeypatch, tmp_path):
    def fails(*args, **more): raise error
    monkeypatch.setattr(score_batch, "score_batch", fails)
    assert score_batch.main([*SCORE, str(tmp_path)]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "ERROR" in lines[0] and said in lines[0]


def test_its_own_faults_are_tracebacks(monkeypatch, tmp_path):
    monkeypatch.setattr(score_batch, "score_batch", lambda *args: {}["typology"])
    with pytest.raises(KeyError, match="typology"): score_batch.main([*SCORE, str(tmp_path)])


@pytest.mark.parametrize("megabytes", [250, 450, 1000])
def test_too_few_addresses_are_one_line(megabytes, tmp_path):
    "Too few for the libraries, for their threads, for the work: no signal, no traceback, and nothing is written."
    limit = (megabytes << 20, megabytes << 20)
    command = [sys.executable, "-m", "aml_miner.scoring.score_batch", *SCORE, tmp_path / "out"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit))
    errors = [line for line in done.stderr.splitlines() if "ERROR" in line]
    assert done.returncode == 2 and len(errors) == 1 and "Traceback" not in done.stderr and not (tmp_path / "out").exists(), done.stderr
    assert f"`ulimit -v` allows {limit[0] / 1e6:.0f} MB" in errors[0]
