"""Requests a second, latency and memory of the service on this machine, by the number of clients: python benchmarks/service.py

The service runs in a process of its own with the models of the project and days of data/sample; clients keep their connections.
A request that is refused (429, 503) is counted."""
import argparse
import asyncio
import json
from pathlib import Path
import subprocess
import sys
import tempfile
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from aml_miner.service.json_tables import REQUEST_TABLES, plain_rows
from aml_miner.service.keys import add_key

ROOT = Path(__file__).resolve().parent.parent
SAMPLE, DAYS = ROOT / "data" / "sample", ("2025-09-01", "2025-09-02", "2025-09-03")
READS, SCORES = 2_000, 20  # requests of a row, or as many as there are clients


class Client:
    "A connection that is kept."
    def __init__(self, place): self.place = place

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection(*self.place, limit=1 << 20)
        return self

    async def __aexit__(self, *error): self.writer.close()

    async def ask(self, request):
        "Status and body of the answer."
        self.writer.write(request)
        await self.writer.drain()
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head.split(b" ", 2)[1]), await self.reader.readexactly(length)


def request(method, path, key, body=b"", kind="application/json"):
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def upload(key, day, network):
    "A day of the sample, as that of a network."
    files = {p.stem: p.read_bytes() for p in (SAMPLE / day).glob("*.parquet")}
    files["META.json"] = json.dumps({"network": network, "processing_date": day}).encode()
    body = b"".join(b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), data) for name, data in files.items()) + b"--x--\r\n"
    return request("POST", "/v1/batches", key, body, "multipart/form-data; boundary=x")


async def measure(place, requests, clients):
    "Seconds of each answer, those that were refused, and seconds of all."
    waiting, seconds, refused = list(requests), [], 0
    async def work(client):
        nonlocal refused
        while waiting:
            sent, began = waiting.pop(), time.perf_counter()
            status, body = await client.ask(sent)
            if status in (200, 201): seconds.append(time.perf_counter() - began)
            elif status in (429, 503): refused += 1
            else: raise SystemExit(f"{status}: {body[:500]!r}")
    async def one():
        async with Client(place) as client: await work(client)
    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    return seconds, refused, time.perf_counter() - began


def row(what, clients, seconds, refused, all_seconds):
    p50, p95, p99 = 1000 * np.percentile(seconds, [50, 95, 99])
    return {"request": what, "clients": clients, "answers": len(seconds), "refused": refused, "a second": f"{len(seconds) / all_seconds:.1f}",
            "p50 ms": f"{p50:.1f}", "p95 ms": f"{p95:.1f}", "p99 ms": f"{p99:.1f}"}


def peak_mb(pid):
    return next(int(line.split()[1]) / 1000 for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 200])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        key = add_key(folder / "keys.yaml", "benchmark", "score")
        command = [sys.executable, "-m", "aml_miner", "serve", "--data", folder / "data", "--models", ROOT / "trained_models", "--keys", folder / "keys.yaml",
                   "--port", "0", "--no-history", "--work-seconds", "3600", "--idle-seconds", "3600"]
        with (folder / "log").open("w") as log: process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            place = ("127.0.0.1", int(process.stdout.readline().strip().rpartition(":")[2]))
            asked = lambda *args: asyncio.run(measure(place, *args))
            rows, start = [], peak_mb(process.pid)
            for day in DAYS: asked([upload(key, day, "torus")], 1)
            path = f"/v1/batches/torus.{DAYS[-1]}/rankings?limit=100"
            began = time.perf_counter()
            asked([request("GET", path, key)], 1)
            print(f"the first read of a day of 199 alerts, which is scored for it: {time.perf_counter() - began:.1f} s")
            tables = {name: plain_rows(pq.read_table(SAMPLE / DAYS[-1] / f"{name}.parquet")) for name in REQUEST_TABLES}
            for clients in chosen.clients:
                rows.append(row("read a page of 100 rows", clients, *asked([request("GET", path, key)] * max(READS, 5 * clients), clients)))
            for n in (1, 10, 100):
                alerts = tables["alerts"][:n]
                own = {a["address"] for a in alerts}
                body = json.dumps({"alerts": alerts, "features": [f for f in tables["features"] if f["address"] in own],
                                   "money_flows": [f for f in tables["money_flows"] if own & {f["source_address"], f["dest_address"]}]}).encode()
                asked([request("POST", "/v1/score", key, body)], 1)
                for clients in chosen.clients:
                    sent = [request("POST", "/v1/score", key, body)] * max(SCORES, clients)
                    rows.append(row(f"score {n} alert{'s' * (n > 1)}", clients, *asked(sent, clients)))
            for clients in (1, 4):
                sent = [upload(key, DAYS[0], f"bank-{clients}-{i}") for i in range(20)]
                rows.append(row(f"send a batch of {len(sent[0]) / 1e6:.1f} MB", clients, *asked(sent, clients)))
            print(pd.DataFrame(rows).to_string(index=False))
            print(f"memory of the service: {start:.0f} MB at the start, {peak_mb(process.pid):.0f} MB at most")
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__": main()
