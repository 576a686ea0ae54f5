"""A study in PostgreSQL: a server of its own on loopback, workers that are killed, and a server that is killed itself."""
from collections import Counter
import glob
import os
from pathlib import Path
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
import pytest
from test_tuning import arguments, few  # noqa: F401 - a fixture

from aml_miner.tuning.database import database_at_work, database_slot, open_database
from aml_miner.tuning.storage import claim_trial, count_trials, fail_stale_trials, open_study, worker_slot
from conftest import EVERY, ROOT, run_warm, wait_until

SPACE = {"x": FloatDistribution(-10, 10)}
WORKER = """
import sys, time
from optuna.distributions import FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from aml_miner.tuning.storage import claim_trial, end_trial, fail_stale_trials, open_study, worker_slot
storage, n, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
study = open_study(storage, "toy", False, {})
with worker_slot(storage) as slot:
    print("at work", flush=True)
    while True:
        fail_stale_trials(study, storage, slot)
        trial = claim_trial(study, storage, slot, n, {"x": FloatDistribution(-10, 10)}, 1, 5)
        if trial is None: break
        time.sleep(seconds)
        try: trial.report(trial.params["x"], 0)
        except UpdateFinishedTrialError: continue
        end_trial(study, trial, trial.params["x"] ** 2)
"""


class Server:
    "A cluster in a folder, of which nothing is left."

    def __init__(self, programs, folder):
        self.programs, self.folder, self.password = programs, folder, secrets.token_hex(8)
        self.user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "password").write_text(self.password)
        if self.user: subprocess.run(["chown", "-R", "postgres", folder], check=True)
        self.run("initdb", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--username=miner", "--no-sync", "--locale=C", "-D", folder / "data")
        self.start()
        self.address = f"postgresql+pg8000://miner@127.0.0.1:{self.port}/postgres"

    def run(self, program, *args): subprocess.run([*self.user, self.programs / program, *args], check=True, capture_output=True, cwd=self.folder)

    def start(self):
        options = f"-c fsync=off -c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.folder}"
        command = [*self.user, self.programs / "pg_ctl", "-D", self.folder / "data", "-w", "-t", "600", "-l", self.folder / "log", "-o", options, "start"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder)

    def kill(self):
        "As a machine that loses its power: no process of it ends by itself."
        first = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        below = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        for process in (first, *map(int, below)): os.kill(process, signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in (first, *below)))
        (self.folder / "data" / "postmaster.pid").unlink()


@pytest.fixture(scope="module")
def server():
    if not sys.platform.startswith("linux"): pytest.skip("the server is killed through /proc")
    found = shutil.which("initdb") or next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)), None)
    if not found: pytest.skip("no PostgreSQL on this machine: Debian's package is postgresql")
    pytest.importorskip("pg8000", reason="the driver comes with the extra `tuning`")
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short enough for the name of a socket
    folder.chmod(0o755)
    running = Server(Path(found).resolve().parent, folder)
    os.environ["PGPASSWORD"] = running.password
    yield running
    del os.environ["PGPASSWORD"]
    running.run("pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture
def address(server):
    "A database of its own."
    from sqlalchemy import NullPool, create_engine, text
    name = f"studies_{secrets.token_hex(4)}"
    with create_engine(server.address.replace("@", f":{server.password}@"), poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as con:
        con.execute(text(f"CREATE DATABASE {name}"))
    return server.address.replace("/postgres", f"/{name}")


def worker(address, n, seconds=.02):
    process = subprocess.Popen([sys.executable, "-c", WORKER, address, str(n), str(seconds)], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                               env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert process.stdout.readline() == "at work\n"
    return process


def ended(address):
    "What came of all trials: how many ended how, and the draws of those that count."
    study = open_study(address, "toy", False, {})
    return count_trials(study), sorted(t.user_attrs["draw"] for t in study.trials if t.state == TrialState.COMPLETE)


def toy(storage, n):
    study = open_study(storage, "toy", False, {})
    with worker_slot(storage) as slot:
        while trial := claim_trial(study, storage, slot, n, SPACE, 1, 5): study.tell(trial, trial.params["x"] ** 2)
    return [(t.number, t.params, t.value, t.user_attrs["draw"]) for t in study.trials]


def test_one_worker_draws_what_it_draws_with_a_journal(address, tmp_path):
    assert toy(address, 12) == toy(tmp_path / "study.journal", 12)


def test_the_command_writes_the_same_bytes(few, address, tmp_path):  # noqa: F811
    told = {}
    for name, more in (("journal", ()), ("database", ("--storage", address))):
        told[name] = run_warm(*arguments(few, tmp_path / name / "best.yaml", *more, trials=4))
        assert told[name].returncode == 0, told[name].stderr
    one, other = (tmp_path / name / "best.yaml" for name in told)
    assert one.read_bytes() == other.read_bytes() and one.with_suffix(".journal").exists() and not other.with_suffix(".journal").exists()
    said = told["database"].stdout + told["database"].stderr
    assert os.environ["PGPASSWORD"] not in said and "in postgresql+pg8000://miner" in said


def test_a_killed_worker_costs_its_trial(address):
    slow, quick = worker(address, 20, 3600), worker(address, 20)  # one is in the middle of a trial for good
    study = open_study(address, "toy", False, {})
    held = lambda: [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.RUNNING]
    wait_until(lambda: count_trials(study)["complete"] == 19 and len(held()) == 1 and quick.poll() is not None)
    assert database_at_work(address, held()[0].user_attrs["worker"])
    slow.kill()
    slow.wait()
    last = worker(address, 20)
    assert (quick.wait(), last.wait()) == (0, 0)
    counts, draws = ended(address)
    assert counts == {"complete": 20, "pruned": 0, "failed": 1, "running": 0} and draws == [*range(20)]


@pytest.mark.skipif(not EVERY, reason="kills a server at moments that nobody chooses: make test EVERY=1")
def test_the_server_is_killed_and_started_again(server, address):
    workers = [worker(address, 40, .1), worker(address, 40, .1)]
    study = open_study(address, "toy", False, {})
    wait_until(lambda: count_trials(study)["complete"] >= 5)
    for _ in range(2):
        server.kill()
        time.sleep(.5)
        server.start()
        before = count_trials(study)["complete"]
        wait_until(lambda before=before: count_trials(study)["complete"] >= min(before + 5, 40))
    assert [w.wait() for w in workers] == [0, 0]
    fail_stale_trials(study, address, 0)
    counts, draws = ended(address)
    assert counts["complete"] == 40 and counts["running"] == 0 and draws == [*range(40)], (counts, Counter(draws))


def test_what_cannot_be_used_is_one_line(few, server, refused):  # noqa: F811
    from aml_miner.tuning.tuner import main
    wrong = server.address.replace("@", ":wrong@")
    for storage, said in ((wrong, "cannot be used"), (server.address.replace("/postgres", "/nowhere"), "nowhere"),
                          ("mysql://h/d", "known are the path of a journal"), ("postgresql+pg8000://h", "known are the path of a journal")):
        text = refused(main, *arguments(few, few / "out.yaml", "--storage", storage)[2:])
        assert said in text and "wrong" not in text.replace("***", ""), text
    with pytest.raises(ValueError, match="cannot be used"): open_database(wrong)


@pytest.mark.skipif(not EVERY, reason="kills a server at moments that nobody chooses: make test EVERY=1")
def test_a_slot_is_nobody_elses_and_comes_back(server, address):
    with database_slot(address) as one, database_slot(address) as two:
        assert one != two and database_at_work(address, one) and database_at_work(address, two)
        server.kill()
        server.start()
        assert not database_at_work(address, one)
        study = open_study(address, "toy", False, {})  # which waits for its turn, and takes its own back
        assert database_at_work(address, one) and database_at_work(address, two) and not study.trials
    assert not database_at_work(address, one)
