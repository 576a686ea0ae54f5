"""Kill every command that writes, at its system calls, and look at what is left: python tests/kills/campaign.py --scenario ranker --points 200.

The process preloads faults.c, imports the package once and forks for each run, so a kill costs what the run costs up to it and no more."""
import argparse
import atexit
from collections import Counter
import ctypes
import gc
from itertools import groupby
import json
import os
from pathlib import Path
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback

HERE = Path(__file__).resolve().parent
FAULTS = {"log": 1, "kill": 2, "full": 3, "broken": 4}  # those of faults.c
HANGS = 1200  # seconds of a run that never ends: a safety net, no measure
SPEECH = {
    "reader": "neither the old nor the new is found", "again": "cannot be run again", "differs": "another result when run again",
    "left": "files left for good", "traceback": "a traceback", "signal": "a signal", "unnamed": "no file named",
}


def preload():
    "Begin this process anew with the library in it."
    folder = tempfile.mkdtemp(prefix="faults")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", f"{folder}/faults.so", HERE / "faults.c", "-ldl"], check=True)
    one = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}  # threads do not survive a fork
    environment = os.environ | one | {"LD_PRELOAD": f"{folder}/faults.so", "PYTHONPATH": str(HERE.parents[1]), "MPLBACKEND": "agg", "IN_CAMPAIGN": folder}
    os.execve(sys.executable, [sys.executable, __file__, *sys.argv[1:]], environment)


def fork(run, said=os.devnull, fault="off", at=0, below="", log=-1):
    "Run in a process of its own: the exit code, or minus the signal that ended it."
    sys.stdout.flush()
    if not (child := os.fork()):
        code = 1
        try:
            out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(out, 1), os.dup2(out, 2)
            signal.alarm(HANGS)
            if fault != "off": ctypes.CDLL(None).faults_arm(str(below).encode(), FAULTS[fault], at, log)
            code = run() or 0
        except SystemExit as e: code = e.code if isinstance(e.code, int) else 1
        except BaseException: traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Campaign:
    "Runs of one scenario in a folder of its own."
    def __init__(self, name, folder):
        from scenarios import CONTROLS, SCENARIOS, Inputs
        self.folder, self.said = Path(folder) / name, str(Path(folder) / f"{name}.said")
        self.scenario = (SCENARIOS | CONTROLS)[name](Inputs(folder, self.apart))
        self.old, self.out = self.folder / "old" / "f", self.folder / "out" / "f"
        self.begin()

    def apart(self, run):
        code = fork(run, self.said)
        if code: raise RuntimeError(f"{self.said}: exit code {code}\n{Path(self.said).read_text()[-2000:]}")

    def begin(self):
        "What was there before, and what an undisturbed run makes of it; its operations."
        from scenarios import fresh, tree
        fresh(self.old)
        self.apart(lambda: self.scenario.before(self.old))
        self.before, log = self.reader(self.old), self.folder / "operations"
        fresh(self.out, self.old)
        if code := self.run("log", log=log): raise RuntimeError(f"{self.said}: exit code {code}\n{Path(self.said).read_text()[-2000:]}")
        self.operations = [line.split("\t")[1:] for line in log.read_text().splitlines()]
        self.after, self.files = self.reader(self.out), tree(self.out)

    def run(self, fault="off", at=0, log=None):
        "The command, over what is in `out`."
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if log else -1
        try: return fork(lambda: self.scenario.command(self.out), self.said, fault, at, self.out, file)
        finally: file < 0 or os.close(file)

    def reader(self, folder):
        "What a reader finds in a copy, to change nothing, in a process of its own."
        from scenarios import fresh
        copy, found = fresh(self.folder / "copy" / "f", folder), self.folder / "found.json"
        code = fork(lambda: found.write_text(json.dumps(self.scenario.seen(copy), default=str)) and 0, self.said)
        if code: return {"reader": f"exit code {code}: " + (Path(self.said).read_text().strip().splitlines() or [""])[-1][:300]}
        return json.loads(found.read_text())

    def points(self, limit, seed):
        "Which operations: all, or a sample of those that are no mere next write to the same file, and of the others what room is left."
        numbers, rng = range(1, len(self.operations) + 1), random.Random(seed)
        apart = [rng.choice([*same]) for _, same in groupby(numbers, key=lambda n: self.operations[n - 1])]
        others = [n for n in numbers if n not in {*apart}]
        if limit < len(apart): return sorted(rng.sample(apart, limit))
        return sorted(apart + rng.sample(others, min(len(others), limit - len(apart))))

    def strike(self, fault, at):
        "Let one operation fail or be the last, and run the command again: what was wrong, by kind."
        from scenarios import fresh, tree
        fresh(self.out, self.old)
        code = self.run(fault, at)
        wrong = self.ending(code) if code != -signal.SIGKILL else {}
        found = self.reader(self.out)
        units = ["reader"] if "reader" in found else sorted({*found, *self.before, *self.after})
        bad = [f"{u}: {str(found.get(u))[:300]}" for u in units if not self.scenario.allows(u, found.get(u), self.before.get(u), self.after.get(u))]
        if bad: wrong["reader"] = bad
        if again := self.run(): wrong["again"] = f"exit code {again}: {Path(self.said).read_text()[-500:]}"
        found = self.reader(self.out)
        if found != self.after: wrong["differs"] = {u: str(found.get(u))[:200] for u in {*found, *self.after} if found.get(u) != self.after.get(u)}
        files = tree(self.out)
        if left := sorted(name for name in {*files} - {*self.files} if not self.scenario.may_stay(name)): wrong["left"] = left
        if self.scenario.reproducible and (other := [name for name in self.files if files.get(name) != self.files[name]]): wrong.setdefault("differs", other)
        return {"at": at, "operation": self.operations[at - 1][0], "path": os.path.relpath(self.operations[at - 1][1], self.out), "ended": code, "wrong": wrong}

    def ending(self, code):
        "What is wrong with how a command ended by itself."
        said = Path(self.said).read_text()
        lines = said.strip().splitlines() or [""]
        if code < 0: return {"signal": f"signal {-code}"}
        if "Traceback" in said: return {"traceback": lines[-1][:300]}
        if code and not any(str(self.folder) in line for line in lines): return {"unnamed": lines[-1][:300]}
        return {}

    def table(self, fault, limit, seed=0):
        "All that was struck."
        points = self.points(limit, seed)
        return {"operations": len(self.operations), "strikes": [self.strike(fault, at) for at in points]}


def summary(name, fault, found):
    "One row for people."
    kinds = Counter(kind for strike in found["strikes"] for kind in strike["wrong"])
    ended = Counter("killed" if s["ended"] == -signal.SIGKILL else f"exit {s['ended']}" for s in found["strikes"])
    said = ", ".join(f"{n} {SPEECH[kind]}" for kind, n in sorted(kinds.items())) or "nothing wrong"
    ends = ", ".join(f"{n} {end}" for end, n in sorted(ended.items()))
    return f"{name:17} {fault:7} {found['operations']:5} operations, {len(found['strikes']):4} struck ({ends}): {said}"


def serve(folder):
    "One order a line, one answer a line."
    campaigns = {}
    for line in sys.stdin:
        order = json.loads(line)
        try:
            name = order["scenario"]
            if name not in campaigns: campaigns[name] = Campaign(name, folder)
            answer = campaigns[name].table(order["fault"], order["points"], order.get("seed", 0))
        except Exception as e: answer = {"error": "".join(traceback.format_exception(e))}
        print(json.dumps(answer), flush=True)


def main():
    from scenarios import CONTROLS, SCENARIOS
    parser = argparse.ArgumentParser(description="Kill commands at the system calls that write.")
    parser.add_argument("--scenario", nargs="*", default=[*SCENARIOS], choices=[*SCENARIOS, *CONTROLS], help="default: all but the control")
    faults = "kill the process; let the disk be full from there on; let one operation fail"
    parser.add_argument("--fault", nargs="*", default=["kill"], choices=["kill", "full", "broken"], help=faults)
    parser.add_argument("--points", type=int, default=40, help="operations of each scenario, drawn where it has more")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--show", action="store_true", help="every strike that found something")
    parser.add_argument("--serve", action="store_true", help="take orders from the standard input, for the tests")
    args = parser.parse_args()
    gc.collect(), gc.freeze(), atexit.register(gc.unfreeze)  # a fork that collects garbage copies no page for it
    with tempfile.TemporaryDirectory(prefix="kills") as folder:
        os.environ["AML_MINER_CACHE"] = f"{folder}/features"
        if args.serve: return serve(folder)
        wrong = 0
        for name in args.scenario:
            campaign = Campaign(name, folder)
            for fault in args.fault:
                found = campaign.table(fault, args.points, args.seed)
                print(summary(name, fault, found), flush=True)
                wrong += sum(bool(s["wrong"]) for s in found["strikes"])
                if args.show: print(*(json.dumps(s) for s in found["strikes"] if s["wrong"]), sep="\n", flush=True)
        return bool(wrong)


if __name__ == "__main__":
    if "IN_CAMPAIGN" not in os.environ: preload()
    shutil.rmtree(os.environ["IN_CAMPAIGN"], ignore_errors=True)
    os.environ.pop("LD_PRELOAD", None)
    sys.exit(main())
