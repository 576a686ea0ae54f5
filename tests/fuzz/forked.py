"""A function in a fork, and how that ended: with a value, a refusal, an error that nobody expected, a signal, or not at all."""
from collections.abc import Callable
import ctypes
import faulthandler
import json
import os
from pathlib import Path
import resource
import select
import signal
import sys
import time
import traceback
from typing import Any, NamedTuple

BAD = ("uncaught", "signal", "hang", "memory", "exit")  # what must not happen, whatever is read


class Outcome(NamedTuple):
    "How a fork ended."
    kind: str  # "value", "refused", or one of `BAD`
    detail: str  # the refusal's text, the error with its place, the signal's name
    value: Any  # what the function returned, None without
    megabytes: float  # peak of its memory, that of the parent included

    @property
    def bad(self) -> bool: return self.kind in BAD


def run_forked(
    function: Callable,  # to be called in the fork; what it returns must be fit for JSON
    *args,  # for the function
    refusals: tuple[type[Exception], ...] = (),  # errors that are answers: those with which the project refuses what it reads
    cpu_seconds: int = 30,  # of the fork, which do not depend on what else the machine does; more is a hang
    wall_seconds: float = 600,  # safety net for a fork that waits for ever
    megabytes: int = 6000,  # of address space
) -> Outcome:
    "Call a function in a fork of this process. Its output is thrown away; whatever happens to it, this process goes on."
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(ours)
        _child(theirs, function, args, refusals, cpu_seconds, megabytes)
    os.close(theirs)
    said = _read_until(ours, time.monotonic() + wall_seconds)
    os.close(ours)
    if said is None: os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return Outcome(*_judged(said, status), usage.ru_maxrss / 1e3)


def _child(pipe, function, args, refusals, cpu_seconds, megabytes):
    "What the fork does; it never returns."
    faulthandler.disable()
    _alone()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for fd in (1, 2): os.dup2(nowhere, fd)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    try: said = json.dumps(["value", "", function(*args)])
    except refusals as e: said = json.dumps(["refused", str(e), None])
    except MemoryError: said = '["memory", "MemoryError", null]'
    except BaseException as e: said = json.dumps(["uncaught", f"{type(e).__name__}: {str(e)[:160]} @ {_place(e)}", None])
    said = said.encode()
    while said: said = said[os.write(pipe, said):]
    os._exit(0)


def _alone():
    "No threads of LightGBM's: those of the parent are not in the fork, which would wait for them for ever."
    if "lightgbm" in sys.modules: sys.modules["lightgbm"].basic._LIB.LGBM_SetMaxThreads(ctypes.c_int(1))


def _place(error):
    "The innermost calls of an error, such as `model_card.py:139 < model_files.py:90`."
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[:-5:-1])


def _read_until(pipe, end):
    "All that a pipe brings; None where it stays open beyond the end."
    found = b""
    while select.select([pipe], [], [], max(end - time.monotonic(), 0))[0]:
        part = os.read(pipe, 1 << 16)
        if not part: return found
        found += part
    return None


def _judged(said, status):
    "Kind, detail and value of what a fork said and how it ended."
    name = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else None
    if said is None or name == "SIGXCPU": return "hang", "", None
    if name: return "signal", name, None
    try: return json.loads(said)
    except ValueError: return "exit", f"without a word, with code {os.WEXITSTATUS(status)}", None
