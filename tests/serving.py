"""A service in a process of its own, as a team runs it: on loopback, at a free port, and what its tests send to it."""
from contextlib import contextmanager
import json
import os
import signal
import subprocess
import sys

from conftest import ROOT
import httpx
import pyarrow.parquet as pq

from aml_miner.service.json_tables import REQUEST_TABLES, plain_rows
from aml_miner.service.keys import ROLES, add_key

WAIT = 3600  # seconds: a net for what hangs, no measure


class Serving:
    "A running service: `url`, `keys` (key by role), `log` (file), `data` (directory)."

    def __init__(self, folder, models, *options, data=None, program=("-m", "aml_miner"), environment=None):
        self.folder, self.data, self.log = folder, data or folder / "data", folder / "log"
        folder.mkdir(parents=True, exist_ok=True)
        self.key_file = folder / "keys.yaml"
        self.keys = {role: add_key(self.key_file, f"{role}-key", role) for role in ROLES}
        self.command = [sys.executable, *map(str, program), "serve", "--data", str(self.data), "--models", str(models), "--keys", str(self.key_file),
                        "--port", "0", "--log-json", "--free-mb", "0", *map(str, options)]
        self.environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"} | (environment or {})

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True)
        self.url = self.process.stdout.readline().strip()
        assert self.url, self.log.read_text()[-3000:]
        return self

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None: self.process.send_signal(how)
        code = self.process.wait(WAIT)
        self.process.stdout.close()
        return code

    def client(self, role="administer", **more):
        headers = {"Authorization": f"Bearer {self.keys[role]}"} if role else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=WAIT, trust_env=False, **more)

    def lines(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def serving(*args, **how):
    running = Serving(*args, **how).start()
    try: yield running
    finally: running.stop()


def parts(folder):
    "The files of a batch as the parts of a request."
    return {p.stem if p.suffix == ".parquet" else p.name: (p.name, p.read_bytes()) for p in sorted(folder.iterdir()) if p.suffix in (".parquet", ".json")}


def as_json(folder):
    "The tables of a batch as a request of JSON."
    return {name: plain_rows(pq.read_table(folder / f"{name}.parquet")) for name in REQUEST_TABLES if (folder / f"{name}.parquet").exists()}


def all_rows(client, path, limit):
    "All rows of a table, page by page; the pages."
    rows, pages, cursor = [], [], None
    while not pages or cursor:
        page = client.get(path, params={"limit": limit} | ({"cursor": cursor} if cursor else {}))
        assert page.status_code == 200, page.text
        pages.append(page)
        rows += page.json()["rows"]
        cursor = page.json()["next_cursor"]
    return rows, pages
