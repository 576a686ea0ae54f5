"""What the service survives: killed while a batch comes in, a disk that is full, clients that are slow; and what it does not begin with."""
import os
import shutil
import signal
import socket
import subprocess
import threading

from conftest import ROOT, run_module, wait_until
import httpx
import pytest
from serving import WAIT, as_json, parts, serving, Serving

from aml_miner.batches.loader import read_batch
from aml_miner.testing.tiny_batch import tiny_batch
from aml_miner.utils.files import sha256_file


MODELS = ROOT / "trained_models"


def left(data):
    "What lies in a directory of batches beside batches."
    return sorted(p.relative_to(data).as_posix() for p in data.rglob("*.aml_miner"))


def test_a_killed_service_keeps_what_it_accepted_and_nothing_else(tmp_path):
    running = Serving(tmp_path, MODELS, "--no-history").start()
    try:
        sent = parts(tiny_batch(tmp_path / "sent", "2025-09-03"))
        with running.client() as client:
            own = client.post("/v1/batches", files=sent).json()["batch_id"]
            hashes = {p.name: sha256_file(p) for p in sorted((running.data / "torus/2025-09-03").iterdir())}
        stay = threading.Event()
        body = httpx.Request("POST", "http://x", files=parts(tiny_batch(tmp_path / "next", "2025-09-04"))).read()
        boundary = body.partition(b"\r\n")[0].removeprefix(b"--").decode()
        def slowly():
            yield body[:len(body) * 2 // 3] + b"x" * 2_000_000
            stay.wait()
        def upload():
            with running.client() as client:
                try: client.post("/v1/batches", content=slowly(), headers={"Content-Type": f"multipart/form-data; boundary={boundary}"})
                except httpx.HTTPError: pass
        sender = threading.Thread(target=upload)
        sender.start()
        wait_until(lambda: any(p.stat().st_size for p in running.data.glob(".upload*/*.parquet")), lambda: running.process.poll())
        running.process.kill()
        running.process.wait(WAIT)
        stay.set()
        sender.join()
        assert left(running.data)  # it had begun
        running.process.stdout.close()
        running.start()
        assert left(running.data) == [] and not (running.data / "torus/2025-09-04").exists()
        with running.client() as client:
            assert [b["batch_id"] for b in client.get("/v1/batches").json()["batches"]] == [own]
            assert {p.name: sha256_file(p) for p in sorted((running.data / "torus/2025-09-03").iterdir())} == hashes
            assert client.post("/v1/batches", files=parts(tmp_path / "next")).status_code == 201
            second = subprocess.run(running.command, cwd=ROOT, env=running.environment, capture_output=True, text=True)
            assert second.returncode == 2 and "another service is working with this directory" in second.stderr and "Traceback" not in second.stderr
    finally: running.stop()


FULL_AT_A_SIGNAL = """
import ctypes, os, signal, sys
below, order = sys.argv[1:3]
def obey(*_):
    fault, at = map(int, open(order).read().split())
    ctypes.CDLL(None).faults_arm(below.encode(), fault, at, -1)
    os.rename(order, order + ".done")
signal.signal(signal.SIGUSR1, obey)
from aml_miner.cli.tree import main
sys.exit(main(sys.argv[3:]))
"""
OFF, FULL = 0, 3  # of faults.c


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    "Full from each of some operations on."
    library, order, data = tmp_path / "faults.so", tmp_path / "order", tmp_path / "data"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, ROOT / "tests/kills/faults.c", "-ldl"], check=True)
    program, environment = ("-c", FULL_AT_A_SIGNAL, data, order), {"LD_PRELOAD": str(library)}
    with serving(tmp_path, MODELS, "--no-history", data=data, program=program, environment=environment) as running, running.client() as client:
        def disk(fault, at=0):
            (tmp_path / "new").write_text(f"{fault} {at}")
            os.rename(tmp_path / "new", order)
            running.process.send_signal(signal.SIGUSR1)
            wait_until((done := tmp_path / "order.done").exists, lambda: running.process.poll())
            done.unlink()
        sent, at, told = parts(tiny_batch(tmp_path / "sent", "2025-09-03")), 1, []
        while not told or told[-1] != 201:
            disk(FULL, at)
            answer = client.post("/v1/batches", files=sent)
            told.append(answer.status_code)
            disk(OFF)
            if answer.status_code == 201: break
            assert answer.status_code == 507 and answer.headers["content-type"] == "application/problem+json" and str(data) not in answer.text, answer.text
            assert left(data) == [] and not list(data.glob("torus/2*")), at
            at += 5
        assert len(told) > 4 and read_batch(data / "torus/2025-09-03").counts["alerts"] == 12
        request = as_json(tmp_path / "sent")
        for at in (1, 4):
            disk(FULL, at)
            assert client.get("/v1/batches/torus.2025-09-03/scores").status_code == 507 and client.post("/v1/score", json=request).status_code == 507
            assert client.get("/ready").status_code == 503 and client.get("/health").status_code == 200
            disk(OFF)
            assert left(data) == [] and not list(data.glob(".scores/*/*/scores.json"))
        assert client.get("/v1/batches/torus.2025-09-03/scores").status_code == 200 and client.post("/v1/score", json=request).status_code == 200
        assert client.get("/ready").status_code == 200


def test_slow_clients_are_cut_off(tmp_path):
    "A head that does not come, a body that does not come; without an end in sight the waits below would not return."
    with serving(tmp_path, MODELS, "--no-history", "--idle-seconds", "1") as running:
        place = ("127.0.0.1", int(running.url.rpartition(":")[2]))
        with socket.create_connection(place, WAIT) as door:
            door.sendall(b"GET /health HTTP/1.1\r\nHos")
            try: assert door.recv(1000) == b""
            except ConnectionResetError: pass
        with socket.create_connection(place, WAIT) as door:
            head = ("POST /v1/score HTTP/1.1", "Host: x", f"Authorization: Bearer {running.keys['score']}", "Content-Type: application/json",
                    "Content-Length: 100")
            door.sendall("\r\n".join([*head, "", "{"]).encode())
            answer = b""
            while part := door.recv(10_000): answer += part
        assert answer.startswith(b"HTTP/1.1 408 ") and b"application/problem+json" in answer and b"connection: close" in answer.lower()
        assert running.process.poll() is None


NO_EXTRA = """
import sys
for name in ("fastapi", "uvicorn", "prometheus_client", "python_multipart", "starlette"): sys.modules[name] = None
from aml_miner.cli.tree import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("options, said", [
    (["--insecure-local"], "pip install 'aml_miner[service]'"),
])
def test_without_the_extra_a_line_says_what_to_install(options, said, tmp_path):
    done = run_module("-c", NO_EXTRA, "serve", "--data", tmp_path / "data", *options)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr and not (tmp_path / "data").exists()


@pytest.mark.parametrize("options, said", [
    ([], "either --keys"), (["--keys", "{keys}"], "others may read it"), (["--keys", "{none}"], "No such file"),
    (["--insecure-local", "--host", "0.0.0.0"], "this machine alone"),
    (["--insecure-local", "--models", "{none}"], "no such folder of models"), (["--insecure-local", "--work-seconds", "0"], "work_seconds"),
])
def test_what_it_does_not_begin_with(refused, options, said, tmp_path):
    from aml_miner.cli.tree import main
    (tmp_path / "keys.yaml").write_text("keys: []")
    (tmp_path / "keys.yaml").chmod(0o644)
    names = {"keys": tmp_path / "keys.yaml", "none": tmp_path / "none"}
    assert said in refused(main, "serve", "--data", tmp_path / "data", *(option.format(**names) for option in options))
