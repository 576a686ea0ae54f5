"""What a fork can come to is told apart: a fuzzing script that took a death for a refusal would find nothing."""
import os
import signal
import sys
import time

import pytest

from fuzz.forked import run_forked


def die(number): os.kill(os.getpid(), number)


def spin():
    while True: pass


def raises(error): raise error


@pytest.mark.parametrize("function, args, kind, detail", [
    (lambda: [1, "ü"], (), "value", ""),
    (raises, (ValueError("m.txt: cut short"),), "refused", "m.txt: cut short"),
    (raises, (KeyError("rows"),), "uncaught", "KeyError: 'rows' @ test_forked.py:"),
    (raises, (SystemExit(3),), "uncaught", "SystemExit: 3"),
    (raises, (RecursionError("deep"),), "uncaught", "RecursionError"),
    (lambda: bytearray(3 << 40), (), "memory", ""),
    (lambda: object(), (), "uncaught", "TypeError"),
    (die, (signal.SIGSEGV,), "signal", "SIGSEGV"),
    (die, (signal.SIGABRT,), "signal", "SIGABRT"),
    (os._exit, (7,), "exit", "code 7"),
    (spin, (), "hang", ""),
    (time.sleep, (100,), "hang", ""),
])
def test_each_end_has_its_name(function, args, kind, detail):
    found = run_forked(function, *args, refusals=(ValueError,), cpu_seconds=1, wall_seconds=1 if function is time.sleep else 300)
    assert found.kind == kind and detail in found.detail, found
    assert found.bad == (kind not in ("value", "refused")) and found.megabytes > 1


def test_the_value_comes_back_whole_and_output_does_not():
    found = run_forked(lambda: print("x" * 10**6) or sys.stderr.write("y") and ["z" * 300_000, None, 1.5])
    assert found.value == ["z" * 300_000, None, 1.5]
