"""The service over HTTP, in a process of its own: what comes out is what the commands write, bit by bit, whoever asks, and whatever is exchanged meanwhile."""
import asyncio
import json
import os
import shutil
import signal
import threading

from conftest import ROOT, run_coroutine, wait_until
from hostile import MARK, hostile_batch
import httpx
import pyarrow.parquet as pq
import pytest
from serving import WAIT, all_rows, as_json, parts, serving

from aml_miner.batches.loader import read_batch
from aml_miner.scoring.batch_scores import SCHEMAS
from aml_miner.scoring.score_batch import score_batch
from aml_miner.service.json_tables import plain_rows
from aml_miner.testing.tiny_batch import tiny_batch

DAYS = ("2025-09-01", "2025-09-02", "2025-09-03")
NAMES = {"scores": "alert_scores", "rankings": "alert_rankings", "clusters": "cluster_scores"}


@pytest.fixture(scope="module")
def service(tmp_path_factory, sample):
    "With the models of the project and three days of the sample."
    with serving(tmp_path_factory.mktemp("service"), ROOT / "trained_models", "--no-history") as running:
        with running.client() as client: running.ids = [client.post("/v1/batches", files=parts(sample / day)).json()["batch_id"] for day in DAYS]
        yield running


@pytest.fixture(scope="module")
def written(service, tmp_path_factory):
    "What `score` writes for the last of the days, with the days before as its history: rows by table."
    out = tmp_path_factory.mktemp("written") / "out"
    score_batch(service.data / "torus" / DAYS[-1], ROOT / "trained_models", out, latency=False, history_from=service.data, page=False, num_threads=1)
    return {name: plain_rows(pq.read_table(out / f"{name}.parquet")) for name in SCHEMAS}


def test_batches_come_back_as_they_were_sent(service, sample):
    with service.client("read") as client:
        told = client.get("/v1/batches").json()
        assert [b["batch_id"] for b in told["batches"]] == service.ids == [f"torus.{day}" for day in DAYS] and told["next_cursor"] is None
        one_by_one, cursor = [], None
        while not one_by_one or cursor:
            page = client.get("/v1/batches", params={"limit": 1} | ({"cursor": cursor} if cursor else {})).json()
            one_by_one += page["batches"]
            cursor = page["next_cursor"]
        assert one_by_one == told["batches"] and client.get(f"/v1/batches/{service.ids[1]}").json() == told["batches"][1]
    for day in DAYS:
        for name, (file, content) in parts(sample / day).items(): assert (service.data / "torus" / day / file).read_bytes() == content, name


def test_an_equal_batch_is_no_error_and_another_one_is(service, sample, tmp_path):
    with service.client("score") as client:
        again = client.post("/v1/batches", files=parts(sample / DAYS[0]))
        assert again.status_code == 200 and again.json()["batch_id"] == service.ids[0]
        other = client.post("/v1/batches", files=parts(tiny_batch(tmp_path, DAYS[0])))
        assert (other.status_code, other.headers["content-type"]) == (409, "application/problem+json")
        assert read_batch(service.data / "torus" / DAYS[0]).counts == read_batch(sample / DAYS[0]).counts


def test_faults_name_file_column_and_value(service, tmp_path):
    with service.client("score") as client:
        bad = tiny_batch(tmp_path / "a", "2025-10-01", alerts=lambda a: a.assign(severity=["grave", *a.severity[1:]]), clusters=b"PAR1 no more")
        said = client.post("/v1/batches", files=parts(bad), headers={"X-Request-ID": "morning-1"})
        faults = {f["file"]: f for f in said.json()["faults"]}
        assert (said.status_code, said.json()["request_id"], said.headers["x-request-id"]) == (422, "morning-1", "morning-1")
        assert (faults["alerts.parquet"]["column"], faults["alerts.parquet"]["value"]) == ("severity", "'grave'") and "clusters.parquet" in faults
        hashed = tiny_batch(tmp_path / "b", "2025-10-01", meta=lambda m: m | {"sha256": {"alerts.parquet": "0" * 64}})
        assert client.post("/v1/batches", files=parts(hashed)).json()["faults"][0]["column"] == "sha256.alerts.parquet"
        part = dict(list(parts(tiny_batch(tmp_path / "c", "2025-10-01")).items())[:1])
        assert client.post("/v1/batches", files=part).status_code == 422
        assert client.post("/v1/batches", files={"../../x": b""}).status_code == 422
        assert client.post("/v1/batches", content=b"--x\r\n", headers={"Content-Type": "multipart/form-data; boundary=x"}).status_code == 400
        assert client.post("/v1/batches", json={}).status_code == 415 and client.post("/v1/score", content=b"{}").status_code == 415
        assert not list(service.data.glob("*/2025-10-01")) and not list(service.data.glob(".upload*")) and str(service.data) not in said.text


@pytest.mark.parametrize("path", NAMES)
def test_pages_are_the_tables_that_score_writes(service, written, path):
    with service.client("read") as client:
        rows, pages = all_rows(client, f"/v1/batches/{service.ids[-1]}/{path}", 70)
        assert rows == written[NAMES[path]] and (len(pages) > 1 or path == "clusters")  # floats are compared with all their digits
        assert len({p.headers["etag"] for p in pages}) == len(pages) and {p.json()["model_set"] for p in pages} == {pages[0].headers["x-model-set"]}
        for page in pages[:2]:
            same = client.get(page.url, headers={"If-None-Match": page.headers["etag"]})
            assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", page.headers["etag"])
        assert client.get(pages[0].url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_reasons_are_those_that_score_writes(service, written):
    told = {row["alert_id"]: row for row in written["alert_scores"]}
    with service.client("read") as client:
        for row in (written["alert_rankings"][0], written["alert_rankings"][40]):
            got = client.get(f"/v1/batches/{service.ids[-1]}/alerts/{row['alert_id']}/explanation").json()
            assert got["explanation"] == json.loads(told[row["alert_id"]]["explain_json"]) and got["score"] == told[row["alert_id"]]["score"]
        unread = next(row["alert_id"] for row in written["alert_scores"] if row["explain_json"] == "{}")
        assert client.get(f"/v1/batches/{service.ids[-1]}/alerts/{unread}/explanation").status_code == 404


def test_json_gives_the_same_bits_as_files(service, written, sample):
    with service.client("score") as client:
        got = client.post("/v1/score", json=as_json(sample / DAYS[-1]), params={"explain": 3})
        assert got.status_code == 200 and got.headers["x-model-set"] == got.json()["model_set"]
        for name in ("alert_scores", "alert_rankings", "cluster_scores"):
            bits = lambda rows: [(row.get("alert_id", row.get("cluster_id")), float.hex(float(row["score"]))) for row in rows]
            assert bits(got.json()[name]) == bits(written[name])
        explained = {row["alert_id"]: row["explain_json"] for row in got.json()["alert_scores"] if row["explain_json"] != "{}"}
        assert len(explained) == 3 and explained.items() <= {row["alert_id"]: row["explain_json"] for row in written["alert_scores"]}.items()
        assert not list((service.data / ".requests").iterdir())


@pytest.mark.parametrize("change, status, column", [
    (lambda t: t["alerts"][0].update(severity="grave"), 422, "severity"),
    (lambda t: t["alerts"][0].update(volume_usd="much"), 422, "volume_usd"),
    (lambda t: t["alerts"][0].pop("alert_id"), 422, "alert_id"),
    (lambda t: t.update(clusters=[{"cluster_id": 1}]), 422, "cluster_id"),
    (lambda t: t.update(tables=[]), 422, None),
    (lambda t: t.pop("features"), 422, None),
    (lambda t: t.update(network="a\nb"), 422, None),
])
def test_faults_of_json_name_column_and_value(service, change, status, column, tmp_path):
    tables = as_json(tiny_batch(tmp_path))
    change(tables)
    with service.client("score") as client: said = client.post("/v1/score", json=tables)
    assert said.status_code == status and (column is None or said.json()["faults"][0]["column"] == column), said.text


READ, SCORE, ADMINISTER = ("read", "score", "administer"), ("score", "administer"), ("administer",)


@pytest.mark.parametrize("method, path, roles", [
    ("GET", "/v1/batches", READ), ("GET", "/v1/batches/torus.2025-09-01", READ), ("GET", "/v1/batches/torus.2025-09-03/scores", READ),
    ("GET", "/v1/models", READ),
    ("GET", "/metrics", READ), ("POST", "/v1/score", SCORE), ("POST", "/v1/batches", SCORE), ("POST", "/v1/models/reload", ADMINISTER),
    ("GET", "/health", (None, *READ)), ("GET", "/ready", (None, *READ)), ("GET", "/docs", (None, *READ)), ("GET", "/openapi.json", (None, *READ)),
])
def test_roles(service, method, path, roles):
    for role in (None, "read", "score", "administer"):
        with service.client(role) as client: status = client.request(method, path).status_code
        if role in roles: assert status in (200, 415), (role, status)
        else: assert status == (403 if role else 401), (role, status)
    if None in roles: return
    for given in ("Bearer x", "Bearer", f"Basic {service.keys['administer']}", service.keys["administer"], "Bearer \xff"):
        with service.client(None) as client: said = client.request(method, path, headers={"Authorization": given.encode("latin-1")})
        assert said.status_code == 401 and said.headers["www-authenticate"] == "Bearer"


def test_a_body_that_is_too_large_is_refused(service):
    with service.client("score") as client:
        assert client.post("/v1/score", content=b" " * 17_000_000, headers={"Content-Type": "application/json"}).status_code == 413
        chunks = (b" " * 100_000 for _ in range(170))
        assert client.post("/v1/score", content=chunks, headers={"Content-Type": "application/json"}).status_code == 413
        rows = b'{"alerts": [' + b",".join([b"{}"] * 100_001) + b'], "features": []}'
        assert client.post("/v1/score", content=rows, headers={"Content-Type": "application/json"}).status_code == 413


def test_what_is_no_route_is_a_problem(service):
    with service.client() as client:
        for method, path, status in (("GET", "/v1/nothing", 404), ("GET", "/", 404), ("DELETE", "/v1/batches", 405),
                                     ("GET", "/v1/batches/..%2f..%2fetc.2025-09-01", 404),
                                     ("GET", "/v1/batches/torus.2025-09-09", 404), ("GET", "/v1/batches/_x", 422), ("GET", "/v1/batches?cursor=..", 422),
                                     ("GET", f"/v1/batches/{service.ids[0]}/scores?cursor={'a' * 32}-{'b' * 32}.0", 404),
                                     ("GET", f"/v1/batches/{service.ids[0]}/scores?limit=0", 422)):
            said = client.request(method, path)
            assert (said.status_code, said.headers["content-type"], said.json()["status"]) == (status, "application/problem+json", status), path
            assert said.json()["request_id"] == said.headers["x-request-id"]


def test_two_hundred_clients_read_the_same(service):
    async def read():
        limits = httpx.Limits(max_connections=200)
        headers = {"Authorization": f"Bearer {service.keys['read']}"}
        async with httpx.AsyncClient(base_url=service.url, headers=headers, limits=limits, timeout=WAIT, trust_env=False) as client:
            return await asyncio.gather(*(client.get(f"/v1/batches/{service.ids[-1]}/scores", params={"limit": 1 + i % 3}) for i in range(200)))
    answers = run_coroutine(read())
    assert {a.status_code for a in answers} == {200} and len({a.content for a in answers}) == 3


def test_page_and_schema_load_nothing_from_elsewhere(service):
    with service.client(None) as client:
        page, schema = client.get("/docs"), client.get("/openapi.json")
        assert "http" not in page.text.replace("http.response", "") and "<script" not in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-") and schema.json()["openapi"].startswith("3.")
        for path in schema.json()["paths"]: assert path in page.text


def test_metrics_count_by_template(service):
    with service.client("read") as client: said = client.get("/metrics").text
    assert 'aml_miner_requests_total{method="GET",route="/v1/batches/{batch_id}/scores",status="200"}' in said and "torus.2025" not in said
    assert "aml_miner_batches_accepted_total 3.0" in said and 'aml_miner_batches_refused_total{status="409"} 1.0' in said
    assert "aml_miner_last_scored_batch_timestamp_seconds 1.7568576e+09" in said and 'aml_miner_scoring_seconds_count{what="batch"} 1.0' in said


def test_logs_tell_of_requests_and_of_nothing_in_them(service, sample):
    lines = [line for line in service.lines() if line["event"] == "request"]
    assert {"/v1/batches/{batch_id}/scores", "/v1/score", "unmatched"} <= {line["route"] for line in lines}
    assert {line["key"] for line in lines} >= {"read-key", "score-key", None} and all(line["ms"] >= 0 for line in lines)
    text, alerts = service.log.read_text(), pq.read_table(sample / DAYS[-1] / "alerts.parquet")
    ids = [*alerts.column("alert_id").to_pylist(), *alerts.column("address").to_pylist()]
    for secret in (*service.keys.values(), *ids, "grave", "torus.2025"): assert secret not in text


# Models that are exchanged


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory):
    "Two folders of models that score alike batches otherwise."
    folder = tmp_path_factory.mktemp("sets") / "bare"
    shutil.copytree(ROOT / "trained_models", folder)
    report = json.loads((folder / "alert_scorer.json").read_text())
    (folder / "alert_scorer.json").write_text(json.dumps(report | {"calibration": {"method": "none"}}))
    return [folder, ROOT / "trained_models"]


@pytest.fixture(scope="module")
def exchanged(two_sets, tmp_path_factory):
    "A service whose folder of models is a copy of the first set, and which has one hostile batch."
    folder = tmp_path_factory.mktemp("exchanged")
    shutil.copytree(two_sets[0], folder / "models")
    with serving(folder, folder / "models", "--no-history") as running:
        running.models = folder / "models"
        yield running


def exchange(running, new):
    "Put another folder in the place of the models, by renaming."
    fresh, old = running.folder / "new", running.folder / "old"
    shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(new, fresh)
    os.rename(running.models, old)
    os.rename(fresh, running.models)


def test_every_answer_is_of_one_set(exchanged, two_sets, tmp_path):
    "While models are exchanged again and again."
    whole, ended, answers = as_json(tiny_batch(tmp_path)), threading.Event(), []
    sent = {name: whole[name] for name in ("alerts", "features")}
    def ask():
        with exchanged.client("score") as client:
            while not ended.is_set(): answers.append(client.post("/v1/score", json=sent))
    askers = [threading.Thread(target=ask) for _ in range(6)]  # more than there are workers: some wait while models are exchanged
    with exchanged.client() as client:
        alone = {}
        for models in (two_sets[1], two_sets[0]):
            exchange(exchanged, models)
            told = client.post("/v1/models/reload").json()
            alone[told["model_set"]] = client.post("/v1/score", json=sent).json()
        assert len(alone) == 2 and len({json.dumps(a["alert_scores"]) for a in alone.values()}) == 2
        for asker in askers: asker.start()
        try:
            for i in range(2):
                exchange(exchanged, two_sets[1 - i % 2])
                said = client.post("/v1/models/reload")
                assert said.status_code == 200 and said.json()["changed"]
                until = len(answers) + 1
                wait_until(lambda until=until: len(answers) >= until)
        finally:
            ended.set()
            for asker in askers: asker.join()
    assert {a.status_code for a in answers} == {200} and {a.json()["model_set"] for a in answers} == {*alone}
    for answer in answers: assert answer.json() == alone[answer.headers["x-model-set"]]


def test_pages_stay_those_of_one_set(exchanged, two_sets, tmp_path):
    with exchanged.client() as client:
        own = client.post("/v1/batches", files=parts(tiny_batch(tmp_path, "2025-09-05"))).json()["batch_id"]
        first = client.get(f"/v1/batches/{own}/scores", params={"limit": 4}).json()
        now = client.get("/v1/models").json()["model_set"]
        in_use = (exchanged.models / "alert_scorer.json").read_bytes()
        exchange(exchanged, next(models for models in two_sets if (models / "alert_scorer.json").read_bytes() != in_use))
        exchanged.process.send_signal(signal.SIGHUP)
        wait_until(lambda: client.get("/v1/models").json()["model_set"] != now, lambda: exchanged.process.poll())
        rest = client.get(f"/v1/batches/{own}/scores", params={"limit": 100, "cursor": first["next_cursor"]}).json()
        assert (first["model_set"], rest["model_set"]) == (now, now) and len(first["rows"] + rest["rows"]) == first["total"]
        new = client.get(f"/v1/batches/{own}/scores").json()
        assert new["model_set"] != now and [r["alert_id"] for r in new["rows"]] == [r["alert_id"] for r in first["rows"] + rest["rows"]]


def test_a_damaged_model_changes_nothing(exchanged, two_sets, tmp_path):
    with exchanged.client() as client:
        before = client.get("/v1/models").json()
        (damaged := tmp_path / "damaged").mkdir()
        for file in two_sets[0].glob("*.*"): shutil.copy(file, damaged)
        (damaged / "alert_ranker.txt").write_bytes((damaged / "alert_ranker.txt").read_bytes()[:-50])
        kept = tmp_path / "kept"
        shutil.copytree(exchanged.models, kept)
        exchange(exchanged, damaged)
        said = client.post("/v1/models/reload")
        assert said.status_code == 422 and said.json()["faults"][0]["message"].startswith("alert_ranker.txt: ") and str(exchanged.folder) not in said.text
        after = client.get("/v1/models").json()
        assert after["model_set"] == before["model_set"] and after["fault"] == said.json()["faults"][0]["message"]
        ready = client.get("/ready")
        assert ready.status_code == 200 and ready.json()["models_fault"] == after["fault"]
        metrics = client.get("/metrics").text
        assert "aml_miner_models_stale 1.0" in metrics and "aml_miner_model_swaps_failed_total 1.0" in metrics
        assert any(line["level"] == "WARNING" and "alert_ranker.txt" in line["event"] for line in exchanged.lines())
        exchange(exchanged, kept)
        assert client.post("/v1/models/reload").json()["model_set"] == before["model_set"] and client.get("/ready").json()["models_fault"] is None


def test_hostile_texts_come_back_as_they_are(exchanged, tmp_path):
    "Ids with slashes, elements, ends of lines; a network that would be a path."
    with exchanged.client() as client:
        batch = hostile_batch(tmp_path / "h", "2025-09-07")
        sent = client.post("/v1/batches", files=parts(tmp_path / "h" if batch is None else batch))
        assert sent.status_code == 201 and sent.json()["batch_id"].startswith("x-"), sent.text
        own = sent.json()["batch_id"]
        rows, _ = all_rows(client, f"/v1/batches/{own}/rankings", 3)
        assert any(MARK in row["alert_id"] for row in rows) and [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
        for row in rows:
            if "\x00" in row["alert_id"]: continue
            told = client.get(httpx.URL(exchanged.url).copy_with(raw_path=f"/v1/batches/{own}/alerts/{quoted(row['alert_id'])}/explanation".encode()))
            assert told.status_code == 200 and told.json()["alert_id"] == row["alert_id"], (row["alert_id"], told.text)
        assert MARK not in exchanged.log.read_text()


def quoted(text):
    from urllib.parse import quote
    return quote(text, safe="")


def test_keys_are_read_again(exchanged):
    from aml_miner.service.keys import add_key
    late = add_key(exchanged.key_file, "late", "read")
    with exchanged.client() as client:
        ask = lambda: client.get("/v1/models", headers={"Authorization": f"Bearer {late}"}).status_code
        assert ask() == 401
        assert client.post("/v1/models/reload").json()["keys"] == 4 and ask() == 200
