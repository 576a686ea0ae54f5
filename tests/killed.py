"A function in a fork that is killed while it writes: at one of its operations on files, or inside a write of whatever library."
import os
import resource
import signal
import sys

from fuzz.forked import Outcome, run_forked

_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod")


def killed_at(at, function):
    "Whether the fork was killed, before the AT-th of the operations on files that Python tells of; False where it ended well before."
    def run():
        seen = [0]

        def hook(event, args):
            if event not in _EVENTS and not (event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)): return
            seen[0] += 1
            if seen[0] == at: os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        function()

    return _was_killed(run, "SIGKILL")


def killed_beyond(size, function):
    "Whether the fork was killed inside the write that made a file larger than so many bytes."
    def run():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        function()

    return _was_killed(run, "SIGXFSZ")


def _was_killed(run, name):
    ended: Outcome = run_forked(run, cpu_seconds=120)
    assert ended.kind == "value" or (ended.kind, ended.detail) == ("signal", name), ended
    return ended.kind == "signal"
