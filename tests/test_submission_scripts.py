"""The scripts are the commands; and what `verify` ends with."""
import os
import shutil
import subprocess
import sys

from conftest import ROOT, files, run_warm
import pytest
from test_download import Server

from aml_miner.cli.tree import main
from aml_miner.testing.tiny_batch import tiny_batch

SCRIPTS = {"train_models": "train all", "validate_submission": "validate", "verify_training": "verify"}


def test_every_script_is_here():
    assert {p.name for p in (ROOT / "scripts").iterdir()} == {"download_batch.sh", *(f"{name}.py" for name in SCRIPTS)}
    assert all(os.access(p, os.X_OK) for p in (ROOT / "scripts").iterdir())


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_its_command(name, capsys):
    done = run_warm(ROOT / "scripts" / f"{name}.py", "--help", COLUMNS="80")
    os.environ["COLUMNS"] = "80"
    assert main([*SCRIPTS[name].split(), "--help"]) == 0
    assert done.returncode == 0 and done.stdout == capsys.readouterr().out
    assert run_warm(ROOT / "scripts" / f"{name}.py", "--none").returncode == 2


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash on this machine")
def test_the_shell_script_fetches(tmp_path):
    server, door = Server(), tmp_path / "bin" / "aml-miner"
    server.put(tiny_batch(tmp_path / "made", "2025-09-01"), "a batch")
    door.parent.mkdir()
    door.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m aml_miner "$@"\n')
    door.chmod(0o755)
    environment = os.environ | {"PATH": f"{door.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    run = lambda *words: subprocess.run(["bash", ROOT / "scripts" / "download_batch.sh", *words], env=environment, capture_output=True, text=True)
    done = run(f"{server.address}/a batch", str(tmp_path / "its place"), "--retries", "1")
    assert done.returncode == 0 and files(tmp_path / "its place") == files(tmp_path / "made"), done.stderr
    assert run("x").returncode == 2 and "usage: download_batch.sh SOURCE OUTPUT" in run().stderr
    server.http.shutdown()
    server.http.server_close()


def test_verify_refuses_what_it_cannot_compare(sample, refused, tmp_path):
    said = refused(main, "verify", ROOT / "trained_models", "--data-dir", tmp_path / "none")
    assert "none: no such directory" in said or "made with" in said
    assert "absent" in refused(main, "verify", tmp_path / "model.txt", "--data-dir", sample)
    assert "no model; expected alert_" in refused(main, "verify", tmp_path, "--data-dir", sample)
