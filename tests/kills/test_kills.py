"""Commands that write are killed at their system calls, or cannot write.

What readers find is one run or the other, whole, and the same command given again ends as if nothing had happened."""
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys

import pytest

from conftest import ROOT, some

STRIKES = [  # scenario, fault, operations: all of the cheap ones, a sample of the others
    *(("save", fault, 60) for fault in ("kill", "full", "broken")),
    *((name, "kill", 2) for name in ("ranker", "cluster", "new_model", "search", "history_new", "history_behind")),
    *((name, "kill", 3) for name in ("simulation_new", "simulation_again", "conversion_again")),
    ("conversion_new", "kill", 5),
    ("conversion_failed", "kill", 14),
    ("morning", "kill", 3),
    ("history_repaired", "kill", 8),
    ("history_day", "kill", 20),
    *(("outcomes", fault, 8) for fault in ("kill", "full")),
    *((name, "kill", 5) for name in ("accepted", "key")),
    *((name, "kill", 4) for name in ("scores", "history_add", "cache")),
    *((name, "full", 2) for name in ("accepted", "cache", "scores", "history_add", "simulation_again", "conversion_new", "table")),
    ("table", "kill", 12),
]


@pytest.fixture(scope="module")
def strike():
    "Asks a process that has everything imported to let a command be killed, or fail, at some of its operations."
    if not sys.platform.startswith("linux"): pytest.skip("faults.c is for Linux")
    if not shutil.which("cc"): pytest.skip("no C compiler `cc` to build faults.c with")
    campaign = [sys.executable, Path(__file__).with_name("campaign.py"), "--serve"]
    uncounted = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}  # other tests say what these commands do
    process = subprocess.Popen(campaign, cwd=ROOT, env=uncounted, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(scenario, fault, points):
        process.stdin.write(json.dumps({"scenario": scenario, "fault": fault, "points": points}) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline() or '{"error": "the campaign ended"}')
        assert "error" not in answer, answer["error"]
        return answer["strikes"]

    yield ask
    process.stdin.close()
    assert process.wait() == 0


@pytest.mark.parametrize("scenario, fault, points", some(STRIKES, 18))
def test_one_run_or_the_other_whole(scenario, fault, points, strike):
    strikes = strike(scenario, fault, points)
    assert len(strikes) >= 2
    if fault == "kill": assert any(s["ended"] == -signal.SIGKILL for s in strikes)
    assert [s for s in strikes if s["wrong"]] == []


def test_what_is_not_whole_is_found(strike):
    "A scenario that writes over its files and forgets others."
    kinds = {(kind, s["operation"], s["path"]) for s in strike("in_place", "kill", 60) for kind in s["wrong"]}
    assert {("reader", "open", "b.txt"), ("reader", "write", "a.txt"), ("reader", "write", "b.txt")} <= kinds
    assert {kind for kind, _, path in kinds if path.startswith(".left")} == {"left"}
    assert {kind for s in strike("in_place", "full", 60) for kind in s["wrong"]} == {"reader", "traceback"}
