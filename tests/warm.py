"""Processes that begin warm: each forks from one that has loaded the libraries, and from then on is as if `python` had just been started.

Of a short command loading is most of the work. Nothing of the package is loaded before, and no library that looks, when it is loaded, at where it is."""
import gc
import importlib
import json
import os
from pathlib import Path
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types

COMMANDS = "numpy pandas pyarrow.compute pyarrow.dataset pyarrow.parquet duckdb pydantic yaml scipy.sparse scipy.special scipy.stats sklearn.metrics lightgbm"
LOADED = {  # kind of process: what it has loaded
    "commands": COMMANDS,
    "papermill": "papermill.cli papermill.engines nbclient jupyter_client",
    "kernels": f"{COMMANDS} matplotlib.figure matplotlib.backends.backend_agg IPython ipykernel.kernelapp ipykernel.ipkernel",
}


# Where processes fork

def load(kind):
    "Load the libraries of a kind. matplotlib looks for a backend when it is loaded: that of kernels."
    if kind == "kernels": os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    for name in LOADED[kind].split(): importlib.import_module(name)
    if "pydantic" in sys.modules: sys.modules["pydantic"].create_model("First", x=(int, 0))  # for the first all that is installed is searched for plugins
    assert "aml_miner" not in sys.modules
    gc.collect()
    gc.freeze()  # a fork that collects garbage copies no page for it


def serve(listener):
    "Fork for each order that comes, and tell who gave it how that ended. Returns the order in the process that forked, None where there will be no more."
    orders, woken, wakes = {}, *os.pipe()
    for end in (woken, wakes): os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    selector = selectors.DefaultSelector()
    for source in (listener, woken, 0): selector.register(source, selectors.EVENT_READ)
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if 0 in ready and not os.read(0, 1): return None
        if listener in ready:
            connection, _ = listener.accept()
            text, files, *_ = socket.recv_fds(connection, 1 << 20, 3)
            while not text.endswith(b"\n"): text += connection.recv(1 << 20)
            if not (child := os.fork()):
                selector.close()
                signal.set_wakeup_fd(-1)
                for other in (listener, *orders.values()): other.close()
                for end in (woken, wakes): os.close(end)
                return begin(json.loads(text), files, connection)
            for file in files: os.close(file)
            orders[child] = connection
        if woken in ready: os.read(woken, 1 << 12)
        while orders and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            connection = orders.pop(ended[0])
            try: connection.sendall(json.dumps({"code": os.waitstatus_to_exitcode(ended[1])}).encode() + b"\n")
            except OSError: pass  # who gave the order has gone
            connection.close()


def begin(order, files, connection):
    "Become what a process that was just started is: files, folder, environment, signals, random numbers."
    for number, file in enumerate(files): os.dup2(file, number)
    for file in files: os.close(file)
    if order["session"]: os.setsid()
    connection.sendall(json.dumps({"pid": os.getpid()}).encode() + b"\n")
    connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    if "numpy" in sys.modules: sys.modules["numpy"].random.seed()  # Python's own begin anew in a fork
    importlib.invalidate_caches()
    gc.unfreeze()
    return order["arguments"]


def run(arguments):
    "What `python ARGUMENTS` runs: -m MODULE, -c CODE or a script, whose path is whole."
    first, *rest = arguments
    if first == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(main))
    elif first == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = arguments, str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")


# Who orders them

class WarmProcess:
    "One that was ordered, with what `subprocess.Popen` offers of it."
    stdin = stdout = stderr = returncode = None

    def __init__(self, address, arguments, cwd, env, files, session=False):
        self.connection, self.said = socket.socket(socket.AF_UNIX), b""
        self.connection.connect(address)
        order = {"arguments": [*map(str, arguments)], "cwd": str(cwd), "env": {k: str(v) for k, v in env.items()}, "session": session}
        text = json.dumps(order).encode() + b"\n"
        sent = socket.send_fds(self.connection, [text], files)
        self.connection.sendall(text[sent:])
        self.pid = self._told()["pid"]

    def _told(self, block=True):
        "The next thing that is said of it; None where nothing is yet."
        self.connection.setblocking(block)
        while b"\n" not in self.said:
            try: more = self.connection.recv(1 << 12)
            except BlockingIOError: return None
            if not more: raise RuntimeError("the process that forks has ended")
            self.said += more
        line, _, self.said = self.said.partition(b"\n")
        return json.loads(line)

    def poll(self, block=False):
        if self.returncode is None and (told := self._told(block)):
            self.returncode = told["code"]
            self.connection.close()
        return self.returncode

    def wait(self, timeout=None): return self.poll(block=True)

    def send_signal(self, number):
        if self.poll() is None: os.kill(self.pid, number)

    def terminate(self): self.send_signal(signal.SIGTERM)

    def kill(self): self.send_signal(signal.SIGKILL)


class WarmStart:
    "Where processes of a kind fork; it ends with the process that made it."
    def __init__(self, kind, root):
        self.folder = tempfile.TemporaryDirectory(prefix="w")
        self.address = os.path.join(self.folder.name, "s")
        command = [sys.executable, __file__, kind, self.address]
        environment = os.environ | {"PYTHONPATH": str(root)}
        self.process = subprocess.Popen(command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if not self.process.stdout.readline(): raise RuntimeError(f"no process to fork {kind} from")

    def run(self, arguments, cwd, env):
        "A process, and what it wrote: as `subprocess.run` with `capture_output` and `text`."
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull, "rb") as nothing:
            process = WarmProcess(self.address, arguments, cwd, env, [nothing.fileno(), out.fileno(), err.fileno()])
            try: process.wait()
            finally: process.kill()
            written = []
            for file in (out, err):
                file.seek(0)
                written.append(file.read().decode().replace("\r\n", "\n").replace("\r", "\n"))
        return subprocess.CompletedProcess([*map(str, arguments)], process.returncode, *written)

    def end(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.folder.cleanup()


def main(kind, address):
    "Take orders until the standard input ends; in a process that forked, give back what it is to run."
    load(kind)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        os.write(1, b"ready\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return serve(listener)


if __name__ == "__main__":
    if not (ordered := main(*sys.argv[1:])): os._exit(0)
    run(ordered)
