"""Scoring as its users run it: papermill, command line, other places, damaged models."""
import json
import shutil

from conftest import ROOT, published, run_module, run_papermill
import nbformat
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aml_miner.batches.loader import batch_folders, read_batch
from aml_miner.scoring.batch_scores import apply_models, check_tables, output_tables
from aml_miner.scoring.model_set import load_models
from aml_miner.scoring.score_batch import main
from aml_miner.testing.small_models import small_models

NOTEBOOK = ROOT / "nbs" / "05_score_batch.ipynb"
COMMAND = ("-m", "aml_miner.scoring.score_batch")
TABLES = ["alert_rankings.parquet", "alert_scores.parquet", "cluster_scores.parquet"]
FILES = [*TABLES, "evidence", "queue.html", "queue.parquet", "scores.json"]


@pytest.fixture(scope="module")
def models(sample, tmp_path_factory):
    return small_models(tmp_path_factory.mktemp("models"), [read_batch(sample / day) for day in ("2025-09-03", "2025-09-04")])


@pytest.fixture(scope="module")
def batch(sample):
    return sample / "2025-09-05"


@pytest.fixture(scope="module")
def scored(batch, models, tmp_path_factory):
    "Scores by the command line, without latencies."
    out = tmp_path_factory.mktemp("scored") / "out"
    done = run_module(*COMMAND, "--batch-dir", batch, "--models-dir", models, "--output-dir", out, "--num-threads", 1, "--no-latency", "--explain-top", 20)
    assert done.returncode == 0, done.stderr
    return out


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_tables_are_what_the_ecosystem_expects(scored, batch):
    assert sorted(p.name for p in scored.iterdir()) == FILES
    tables = {name.split(".")[0]: pq.read_table(scored / name) for name in TABLES}
    types = {name: {f.name: str(f.type) for f in t.schema} for name, t in tables.items()}
    assert types["alert_scores"] == {
        "processing_date": "date32[day]", "alert_id": "string", "score": "double", "model_version": "string", "latency_ms": "double", "explain_json": "string"}
    assert types["alert_rankings"] == {"processing_date": "date32[day]", "alert_id": "string", "rank": "int64", "score": "double", "model_version": "string"}
    assert types["cluster_scores"] == {"processing_date": "date32[day]", "cluster_id": "string", "score": "double", "model_version": "string"}
    alerts, ranked, clusters = (tables[n].to_pandas() for n in ("alert_scores", "alert_rankings", "cluster_scores"))
    source = pq.read_table(batch / "alerts.parquet", columns=["alert_id"]).to_pandas().alert_id
    assert sorted(alerts.alert_id) == sorted(ranked.alert_id) == sorted(source.unique())
    assert sorted(clusters.cluster_id) == sorted(pq.read_table(batch / "clusters.parquet", columns=["cluster_id"]).to_pandas().cluster_id)
    for t in (alerts, ranked, clusters): assert t.score.between(0, 1).all() and t.processing_date.astype(str).eq("2025-09-05").all()
    assert ranked["rank"].tolist() == list(range(1, len(ranked) + 1)) and ranked.score.is_monotonic_decreasing
    said = alerts.set_index("alert_id").explain_json.map(json.loads)
    queue = pd.read_parquet(scored / "queue.parquet")
    drawn = queue.alert_id[queue.read_because == "exploration"]
    assert len(drawn) == 5 and drawn.isin(ranked.alert_id[95:]).all() and (queue.read_because[:95] == "queue").all()
    assert {a for a, reasons in said.items() if reasons} == {*ranked.alert_id[:20], *drawn}
    for reasons in said[said.map(bool)]:
        total = sum(r["contribution"] for r in reasons["reasons"]) + reasons["other"] + reasons["baseline"]
        assert abs(total - reasons["raw_score"]) < 1e-9 and len(reasons["reasons"]) == 5
        assert all(r["sentence"].endswith("the score)") for r in reasons["reasons"])
    summary = json.loads((scored / "scores.json").read_text())
    assert summary["rows"]["alert_scores"] == len(alerts) and summary["missing_inputs"] == [] and summary["without"] == []
    assert {m["version"] for m in summary["models"].values()} == {*alerts.model_version, *ranked.model_version, *clusters.model_version}
    assert str(ROOT) not in (scored / "scores.json").read_text()
    assert queue[["rank", "alert_id", "score"]].to_dict() == ranked[["rank", "alert_id", "score"]].to_dict() and queue["rank"].diff().dropna().eq(1).all()
    assert queue.reason.notna().sum() == 25 and queue.set_index("alert_id").address.to_dict() == dict(zip(*pq.read_table(batch / "alerts.parquet",
            columns=["alert_id", "address"]).to_pandas().values.T))
    assert len(list((scored / "evidence").iterdir())) == 50 and str(ROOT) not in (scored / "queue.html").read_text()


def test_papermill_writes_the_same_bytes_and_a_page(scored, batch, models, tmp_path):
    done = run_papermill(NOTEBOOK, tmp_path / "out.ipynb", "-p", "batch_dir", batch, "-p", "models_dir", models,
                      "-p", "output_dir", tmp_path / "scores", "-p", "explain_top", 20, "-y", "latency: false")
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "scores") == content(scored)
    outputs = [o for c in nbformat.read(tmp_path / "out.ipynb", 4).cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    pages = [o.data["text/html"] for o in outputs if "aml-queue" in o.get("data", {}).get("text/html", "")]
    assert len(pages) == 2 and pages[0].count("<tr") == 21 and "http" not in pages[0]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 2


def test_threads_place_row_order_and_file_layout_do_not_matter(scored, batch, models, tmp_path):
    moved = tmp_path / "moved it's" / "b"
    shutil.copytree(batch, moved)
    (moved / "META.json").unlink()  # it tells the hashes of the files
    for name in ("alerts", "features", "clusters", "money_flows"):
        frame = pq.read_table(moved / f"{name}.parquet")
        order = pd.Series(range(len(frame))).sample(frac=1, random_state=3)
        pq.write_table(frame.take(pa.array(order)), moved / f"{name}.parquet", compression="none", row_group_size=37)
    relative = ("--batch-dir", "../moved it's", "--models-dir", models, "--output-dir", "again", "--history-from", batch.parent)
    done = run_module(*COMMAND, *relative, "--num-threads", 2, "--explain-top", 20, "--no-latency", cwd=tmp_path / "moved it's", PYTHONHASHSEED=7)
    assert done.returncode == 0, done.stderr
    again = tmp_path / "moved it's" / "again"
    for name in TABLES + ["queue.parquet"]: assert (again / name).read_bytes() == (scored / name).read_bytes(), name
    digests = [json.loads((folder / "scores.json").read_text())["content_sha256"] for folder in (again, scored)]
    assert digests[0] == digests[1]


def test_measured_runs_differ_in_latency_alone(scored, batch, models, tmp_path):
    done = run_module(*COMMAND, "--batch-dir", batch, "--models-dir", models, "--output-dir", tmp_path / "o", "--explain-top", 20)
    assert done.returncode == 0, done.stderr
    frames = [pd.read_parquet(folder / "alert_scores.parquet") for folder in (tmp_path / "o", scored)]
    assert frames[0].latency_ms.gt(0).all() and frames[1].latency_ms.isna().all()
    pd.testing.assert_frame_equal(*(f.drop(columns="latency_ms") for f in frames), check_exact=True)
    for name in ("alert_rankings.parquet", "cluster_scores.parquet"): assert (tmp_path / "o" / name).read_bytes() == (scored / name).read_bytes()
    assert json.loads((tmp_path / "o" / "scores.json").read_text())["seconds"]["scoring"] > 0


def test_models_that_are_not_there_are_named(scored, batch, models, tmp_path):
    for suffix in (".txt", ".json"): shutil.copy(models / f"alert_ranker{suffix}", tmp_path)
    done = run_module(*COMMAND, "--batch-dir", batch, "--models-dir", tmp_path, "--output-dir", tmp_path / "o", "--no-latency")
    assert done.returncode == 0, done.stderr
    assert "no alert_scorer.txt; no alert_scores" in done.stderr and "no cluster_scorer.txt; no cluster_scores" in done.stderr
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["alert_rankings.parquet", *FILES[3:]]
    assert (tmp_path / "o" / "alert_rankings.parquet").read_bytes() == (scored / "alert_rankings.parquet").read_bytes()
    assert json.loads((tmp_path / "o" / "scores.json").read_text())["without"] == ["alert_scorer", "cluster_scorer"]


@pytest.mark.parametrize("change, message", [
    ({"--batch-dir": "absent"}, "absent: no such directory"),
    ({"--models-dir": "absent"}, "absent: no such folder of models"),
    ({"--models-dir": "data/sample"}, "no model; expected alert_scorer.txt"),
    ({"--output-dir": "data/sample/2025-09-05"}, "which is not of an earlier scoring"),
    ({"--output-dir": "settings.ini"}, "is a file"),
    ({"--explain-top": "-1"}, "explain_top is -1"),
])
def test_wrong_arguments_are_named(change, message, models, batch, refused, tmp_path):
    args = {"--batch-dir": batch, "--models-dir": models, "--output-dir": tmp_path / "o"} | change
    assert message in refused(main, *(x for pair in args.items() for x in pair))
    assert not (tmp_path / "o").exists()


def test_damaged_model_stops_the_run(models, batch, tmp_path):
    shutil.copytree(models, tmp_path / "m")
    text = (tmp_path / "m" / "cluster_scorer.txt").read_bytes()
    (tmp_path / "m" / "cluster_scorer.txt").write_bytes(text[:len(text) // 2])
    done = run_module(*COMMAND, "--batch-dir", batch, "--models-dir", tmp_path / "m", "--output-dir", tmp_path / "o")
    assert done.returncode == 2 and "cluster_scorer.txt: cut short" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "o").exists()


def test_wrong_parameters_stop_the_notebook(models, tmp_path):
    "All of them are named, before any work is done."
    right, wrong = ("-p", "models_dir", models, "-p", "output_dir", tmp_path / "o"), ("-p", "batch", "x", "-p", "explain_top", "many")
    done = run_papermill(NOTEBOOK, tmp_path / "out.ipynb", *right, *wrong)
    assert done.returncode != 0
    for message in ("batch: no such parameter; did you mean batch_dir?", "explain_top: 'many' is no"): assert message in done.stderr, message
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("name, pick", [("torus_weekly_batches", slice(0, None, 6)), ("torus_batches", slice(None)), ("schema_example", slice(None))])
def test_batches_of_other_producers(name, pick, models):
    loaded = load_models(models, num_threads=1)
    for folder in batch_folders(published(name))[pick]:
        other = read_batch(folder)
        scores = apply_models(other, loaded, explain_top=3)
        check_tables(output_tables(scores), other)
        assert len(scores.queue) == other.counts["alerts"] and len(scores.clusters) == other.counts["clusters"]
