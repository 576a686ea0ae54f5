"""Batches fetched from servers that break, lie, redirect and refuse; killed runs that go on; a store that speaks S3."""
from email.utils import formatdate
import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
import os
import re
import signal
import subprocess
import sys
from threading import Event, Lock, Thread
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from conftest import ROOT, files, wait_until
import pytest

from aml_miner.batches import download as downloads
from aml_miner.batches.download import Limits, download_batch, download_batches
from aml_miner.cli.tree import main
from aml_miner.testing.tiny_batch import tiny_batch

QUICK = Limits(retries=3, pause=0)
SECRET = "k3y-of-a-door"


class Server:
    "Files behind HTTP on this machine. `faults` maps a path to functions of the handler that each answer one request instead."
    def __init__(self):
        self.content, self.faults, self.asked, self.token, self.lock = {}, {}, [], None, Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def do_GET(self): outer.answer(self)
            def do_HEAD(self): outer.answer(self)
            def log_message(self, *args): pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            def handle_error(self, request, client_address): pass  # a client that hangs up

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        Thread(target=self.http.serve_forever, args=(.02,), daemon=True).start()

    def put(self, folder, below):
        "Publish the files of a folder."
        for path, content in files(folder).items(): self.content[f"/{below}/{path}"] = content

    def answer(self, handler):
        path = unquote(urlsplit(handler.path).path)
        with self.lock:
            self.asked.append((path, handler.headers.get("Range"), handler.headers.get("Authorization"), handler.headers.get("If-Range"), handler.path))
            fault = self.faults.get(path) and self.faults[path].pop(0)
        if fault: return fault(handler)
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}": return self.send(handler, 401)
        if path not in self.content: return self.send(handler, 404)
        self.file(handler, self.content[path])

    def file(self, handler, content, most=None):
        "A file, or a range of it; `most` bytes and then nothing more."
        etag, start = f'"{hashlib.md5(content).hexdigest()}"', 0
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range") or "")
        if asked and handler.headers.get("If-Range", etag) == etag: start = int(asked[1])
        if start and start >= len(content): return self.send(handler, 416)
        end = min(int(asked[2]) + 1, len(content)) if asked and asked[2] else len(content)
        body = content[start:end]
        headers = {"ETag": etag, "Content-Length": len(body), "Last-Modified": formatdate(1e9, usegmt=True)}
        if asked and (start or asked[2]): headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        self.send(handler, 206 if "Content-Range" in headers else 200, headers, body if handler.command == "GET" else b"", most)

    def send(self, handler, code, headers=(), body=b"", most=None):
        handler.send_response(code)
        for name, value in ({"Content-Length": len(body)} | dict(headers)).items(): handler.send_header(name, str(value))
        handler.end_headers()
        handler.wfile.write(body if most is None else body[:most])
        if most is not None: handler.close_connection = True

    def ranges(self, path): return [asked[1] for asked in self.asked if asked[0] == path]


@pytest.fixture
def server():
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    return tiny_batch(tmp_path_factory.mktemp("published") / "2025-09-01", "2025-09-01")


def broken_after(server, path, most): return lambda handler: server.file(handler, server.content[path], most)


def status(server, code, **headers): return lambda handler: server.send(handler, code, {k.replace("_", "-"): v for k, v in headers.items()})


# Over HTTPS, or the loopback

def test_a_batch_arrives_whole(server, batch, tmp_path):
    server.put(batch, "b")
    assert download_batch(f"{server.address}/b", tmp_path / "b", limits=QUICK) == tmp_path / "b"
    assert files(tmp_path / "b") == files(batch) and [p.name for p in tmp_path.iterdir()] == ["b"]
    n = len(server.asked)
    download_batch(f"{server.address}/b/", tmp_path / "b", limits=QUICK)
    assert [asked[0] for asked in server.asked[n:]] == ["/b/META.json"]  # what is there is asked for no more
    (tmp_path / "b" / "clusters.parquet").write_bytes(b"x")
    with pytest.raises(ValueError, match="holds something else than http://127"): download_batch(f"{server.address}/b", tmp_path / "b", limits=QUICK)
    assert (tmp_path / "b" / "clusters.parquet").read_bytes() == b"x"


def test_a_broken_connection_is_gone_on_with(server, batch, tmp_path):
    server.put(batch, "b")
    size = len(server.content["/b/alerts.parquet"])
    server.faults["/b/alerts.parquet"] = [broken_after(server, "/b/alerts.parquet", size // 3), broken_after(server, "/b/alerts.parquet", size // 3)]
    download_batch(f"{server.address}/b", tmp_path / "b", limits=QUICK)
    assert files(tmp_path / "b") == files(batch)
    assert server.ranges("/b/alerts.parquet") == [None, f"bytes={size // 3}-", f"bytes={2 * (size // 3)}-"]
    assert all(asked[3] for asked in server.asked if asked[1])  # with If-Range


def test_a_file_that_changes_meanwhile_is_not_sewn_together(server, batch, tmp_path):
    server.put(batch, "b")
    path, right = "/b/alerts.parquet", server.content["/b/alerts.parquet"]
    def changes(handler):
        server.file(handler, bytes(len(right)), len(right) // 2)  # half of another file
    server.faults[path] = [changes]
    download_batch(f"{server.address}/b", tmp_path / "b", limits=QUICK)
    assert files(tmp_path / "b") == files(batch) and len(server.ranges(path)) == 2


def test_what_passes_by_itself_is_waited_for(server, batch, tmp_path):
    server.put(batch, "b")
    server.faults["/b/features.parquet"] = [status(server, 503), status(server, 503, Retry_After="0")]
    server.faults["/b/META.json"] = [status(server, 429)]
    download_batch(f"{server.address}/b", tmp_path / "b", limits=QUICK)
    assert files(tmp_path / "b") == files(batch) and len(server.ranges("/b/features.parquet")) == 3
    server.faults["/b/META.json"] = [status(server, 500)] * 4
    with pytest.raises(ValueError, match=r"META\.json: HTTP 500; given up after 4 tries"): download_batch(f"{server.address}/b", tmp_path / "c", limits=QUICK)
    hangs = Event()
    server.faults["/b/META.json"] = [lambda handler: hangs.wait(3600) and None]
    with pytest.raises(ValueError, match="no byte within 0.2 s; given up"):
        download_batch(f"{server.address}/b", tmp_path / "c", limits=Limits(retries=0, pause=0), timeout=.2)
    hangs.set()


@pytest.mark.parametrize("case", ["checksum", "length", "absent", "away", "plain", "packed"])
def test_what_will_never_go_well_is_one_line_and_nothing_is_left(case, server, batch, tmp_path):
    server.put(batch, "b")
    path, content = "/b/alerts.parquet", server.content["/b/alerts.parquet"]
    if case == "checksum": server.content[path] = content[:-1] + b"!"
    if case == "length": server.faults[path] = [lambda h: server.send(h, 200, {"Content-Length": len(content) + 100}, content, len(content))] * 20
    if case == "absent": del server.content[path]
    if case == "away": server.faults[path] = [status(server, 302, Location="http://example.org/a?" + SECRET)]
    if case == "plain": server.faults[path] = [status(server, 302, Location="file:///etc/passwd")]
    if case == "packed": server.faults[path] = [lambda h: server.send(h, 200, {"Content-Encoding": "gzip"}, content)]
    said = {"checksum": r"SHA-256 is \w{12}\.\.\., META\.json says", "length": r"given up after \d tries", "absent": "HTTP 404, not there",
            "away": r"redirects to http://example\.org/a; allowed is https", "plain": "allowed is https", "packed": "comes packed as gzip"}[case]
    with pytest.raises(ValueError, match=said) as error: download_batch(f"{server.address}/b", tmp_path / "b", limits=QUICK)
    assert SECRET not in str(error.value) and not (tmp_path / "b").exists()


def test_redirects_on_this_machine_and_the_token_with_them(server, batch, tmp_path):
    "A token is for the host that was named: another port is another server."
    server.put(batch, "b")
    other = Server()
    other.put(batch, "moved")
    for name in files(batch): server.faults[f"/b/{name}"] = [status(server, 307, Location=f"{other.address}/moved/{name}")]
    download_batch(f"{server.address}/b", tmp_path / "b", limits=QUICK, token=SECRET)
    assert files(tmp_path / "b") == files(batch)
    assert {asked[2] for asked in server.asked} == {f"Bearer {SECRET}"} and {asked[2] for asked in other.asked} == {None}
    other.http.shutdown()
    other.http.server_close()


def test_nothing_that_opens_a_door_is_shown(server, batch, tmp_path, capsys, monkeypatch):
    server.put(batch, "b")
    server.token = SECRET
    server.faults["/b/META.json"] = [status(server, 503)]
    address = f"{server.address}/b?signature={SECRET}".replace("http://", f"http://user:{SECRET}@")
    with pytest.raises(ValueError, match="HTTP 401, not allowed") as error: download_batch(address, tmp_path / "b", limits=QUICK)
    (tmp_path / "token").write_text(SECRET + "\n")
    assert main(["download", address, "--output", str(tmp_path / "b"), "--retries", "0"]) == 2
    assert main(["download", address, "--output", str(tmp_path / "b"), "--token-file", str(tmp_path / "token")]) == 0
    monkeypatch.setenv("AML_MINER_TOKEN", SECRET)
    assert main(["download", address, "--output", str(tmp_path / "c")]) == 0
    said = capsys.readouterr()
    for text in (said.out, said.err, str(error.value)): assert SECRET not in text and "user" not in text
    assert "HTTP 401" in said.err
    assert files(tmp_path / "c") == files(batch) and all(SECRET in asked[4] for asked in server.asked)  # the query goes with every file


def test_an_index_and_the_command_of_each_morning(server, batch, tmp_path, capsys):
    server.put(batch, "all/torus/2025-09-01/7")
    server.put(tiny_batch(tmp_path / "made", "2025-09-02"), "all/torus/2025-09-02/7")
    server.content["/all/index.json"] = json.dumps({"batches": ["torus/2025-09-01/7"]}).encode()
    assert main(["download", f"{server.address}/all", "--output", str(tmp_path / "data")]) == 0
    server.content["/all/index.json"] = json.dumps(["torus/2025-09-01/7", "torus/2025-09-02/7"]).encode()
    n = len(server.asked)
    assert main(["download", f"{server.address}/all/index.json", "--output", str(tmp_path / "data")]) == 0
    assert "/all/torus/2025-09-01/7/alerts.parquet" not in {asked[0] for asked in server.asked[n:]}
    assert capsys.readouterr().out.splitlines()[-2:] == [f"{tmp_path}/data/torus/2025-09-0{day}/7" for day in (1, 2)]
    assert files(tmp_path / "data" / "torus" / "2025-09-02" / "7") == files(tmp_path / "made")
    for path in ("../up", "/etc", "a/../../b", "a\\b", "a//b"):
        server.content["/all/index.json"] = json.dumps([path]).encode()
        with pytest.raises(ValueError, match="no path below it"): download_batches(f"{server.address}/all", tmp_path / "bad", limits=QUICK)
    assert not (tmp_path / "bad").exists()


def test_limits(server, batch, tmp_path):
    server.put(batch, "b")
    with pytest.raises(ValueError, match=r"more than the 5,000 bytes that are allowed \(--max-gb\)"):
        download_batch(f"{server.address}/b", tmp_path / "b", limits=Limits(max_bytes=5000))
    with pytest.raises(ValueError, match=r"not done within 0 s \(--max-minutes\)"):
        download_batch(f"{server.address}/b", tmp_path / "b", limits=Limits(max_seconds=0))
    endless = lambda handler: (handler.send_response(200), handler.end_headers(), [handler.wfile.write(bytes(1 << 16)) for _ in range(1000)])
    server.faults["/b/META.json"] = [endless]
    with pytest.raises(ValueError, match="META.json: more than"): download_batch(f"{server.address}/b", tmp_path / "b", limits=QUICK)
    assert not (tmp_path / "b").exists()


def test_a_batch_that_the_loader_refuses_never_appears(server, batch, tmp_path):
    server.put(batch, "b")
    meta = json.loads(server.content["/b/META.json"])
    server.content["/b/META.json"] = json.dumps(meta | {"counts": meta["counts"] | {"alerts": 99}}).encode()
    with pytest.raises(ValueError, match=r"META\.json, counts\.alerts: 99") as error: download_batch(f"{server.address}/b", tmp_path / "b", limits=QUICK)
    assert str(tmp_path) not in str(error.value) and not (tmp_path / "b").exists()


def test_a_killed_run_goes_on(server, batch, tmp_path):
    "kill -9 in the middle of a file; the same command then asks for the rest alone."
    server.put(batch, "b")
    path = "/b/features.parquet"
    content, half, sent, go = server.content[path], len(server.content[path]) // 2, Event(), Event()
    def stalls(handler):
        handler.send_response(200)
        for name, value in (("ETag", f'"{hashlib.md5(content).hexdigest()}"'), ("Content-Length", str(len(content)))): handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content[:half])
        handler.wfile.flush()
        sent.set()
        go.wait(3600)
    server.faults[path] = [stalls]
    command = [sys.executable, "-m", "aml_miner", "download", f"{server.address}/b", "--output", str(tmp_path / "b")]
    run = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL, start_new_session=True)
    part = tmp_path / ".b.download" / "features.parquet.part"
    wait_until(lambda: sent.is_set() and part.exists(), lambda: run.poll() is not None and f"ended with {run.returncode}")
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    go.set()
    part.write_bytes(content[:half])  # what had been written by then depends on buffers; as if it were all that had come
    assert not (tmp_path / "b").exists()
    n = len(server.asked)
    download_batch(f"{server.address}/b", tmp_path / "b", limits=QUICK)
    assert files(tmp_path / "b") == files(batch) and [p.name for p in tmp_path.iterdir()] == ["b"]
    assert [asked[:2] for asked in server.asked[n:] if asked[0] in (path, "/b/alerts.parquet")] == [(path, f"bytes={half}-")]  # alerts came before


def test_one_at_a_time(server, batch, tmp_path):
    server.put(batch, "b")
    with downloads.exclusive(tmp_path, ".b.download", 0):
        with pytest.raises(ValueError, match="another download of it is under way"): download_batch(f"{server.address}/b", tmp_path / "b", limits=QUICK)


# From a store that speaks S3

class Store(Server):
    "As much of S3 as a reader needs: HEAD, GET with ranges, ListObjectsV2."
    def answer(self, handler):
        url = urlsplit(handler.path)
        query = parse_qs(url.query, keep_blank_values=True)
        self.asked.append((unquote(url.path), handler.headers.get("Range"), handler.headers.get("Authorization")))
        if "list-type" not in query: return self.object(handler, unquote(url.path))
        bucket, prefix, delimiter = url.path.strip("/"), query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        keys = [(p.removeprefix(f"/{bucket}/"), c) for p, c in sorted(self.content.items()) if p.startswith(f"/{bucket}/{prefix}")]
        folders = {k[:len(prefix) + k[len(prefix):].index(delimiter) + 1] for k, _ in keys if delimiter and delimiter in k[len(prefix):]}
        rows = [f"<Contents><Key>{escape(k)}</Key><Size>{len(c)}</Size><LastModified>2025-09-01T00:00:00.000Z</LastModified></Contents>" for k, c in keys
                if not any(k.startswith(f) for f in folders)] + [f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in sorted(folders)]
        text = f"<ListBucketResult><Name>{bucket}</Name><KeyCount>{len(rows)}</KeyCount><IsTruncated>false</IsTruncated>{''.join(rows)}</ListBucketResult>"
        self.send(handler, 200, {"Content-Type": "application/xml"}, text.encode())

    def object(self, handler, path):
        if path in self.content: return self.file(handler, self.content[path])
        self.send(handler, 404, {"Content-Type": "application/xml"}, b"<Error><Code>NoSuchKey</Code></Error>" if handler.command == "GET" else b"")


def test_a_store(batch, tmp_path, capsys):
    store = Store()
    store.put(batch, "bucket/all/torus/2025-09-01")
    store.put(tiny_batch(tmp_path / "made", "2025-09-02"), "bucket/all/torus/2025-09-02")
    how = ["--endpoint", store.address, "--anonymous", "--timeout", "60"]
    assert main(["download", "s3://bucket/all/torus/2025-09-01", "--output", str(tmp_path / "one"), *how]) == 0
    assert files(tmp_path / "one") == files(batch)
    assert main(["download", "s3://bucket/all", "--output", str(tmp_path / "data"), *how]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [f"{tmp_path}/data/torus/2025-09-0{day}" for day in (1, 2)]
    assert files(tmp_path / "data" / "torus" / "2025-09-02") == files(tmp_path / "made")
    options = {"endpoint": store.address, "anonymous": True, "limits": QUICK}
    part = tmp_path / ".half.download" / "features.parquet.part"
    part.parent.mkdir()
    content = files(batch)["features.parquet"]
    part.write_bytes(content[:1000])
    stamp = {"source": "s3://bucket/all/torus/2025-09-01/features.parquet", "validator": f"{len(content)} {mtime_ns(store)}"}
    part.with_suffix(".note").write_text(json.dumps(stamp))
    n = len(store.asked)
    download_batch("s3://bucket/all/torus/2025-09-01", tmp_path / "half", **options)
    assert files(tmp_path / "half") == files(batch)
    asked = [a[1] for a in store.asked[n:] if a[0].endswith("features.parquet") and a[1]]
    assert asked and all(int(re.match(r"bytes=(\d+)", a)[1]) >= 1000 for a in asked), asked
    with pytest.raises(ValueError, match="lists|no batch is listed"): download_batches("s3://bucket/none", tmp_path / "none", **options)
    assert {a[2] for a in store.asked} == {None}
    store.http.shutdown()
    store.http.server_close()


def mtime_ns(store):
    "What Arrow says of a file's time."
    from aml_miner.batches.remote_files import S3Source
    source = S3Source("s3://bucket/all/torus/2025-09-01", store.address, anonymous=True)
    return source.filesystem.get_file_info(f"{source.path}/features.parquet").mtime_ns
