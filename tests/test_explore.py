"""The first notebook on directories as they come: published ones, one batch, without labels, flows or clusters, with strange names."""
import json
import re
import shutil

from conftest import ROOT, published, run_module, run_papermill
import nbformat
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aml_miner.batches.loader import BatchDataLoader
from aml_miner.exploration.explore import exploration_report, explore
from aml_miner.conversion.simulate import simulate_batches
from aml_miner.testing.tiny_batch import tiny_batch
from aml_miner.utils.files import to_json

NOTEBOOK = ROOT / "nbs" / "00_explore_batches.ipynb"


def run(data_dir, tmp_path, *arguments):
    "Execute the notebook; its report, the texts that it shows, the number of its figures."
    executed = tmp_path / "out.ipynb"
    done = run_papermill(NOTEBOOK, executed, "-p", "data_dir", data_dir, "-p", "out_dir", tmp_path / "o", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    cells = nbformat.read(executed, 4).cells
    at = next(i for i, c in enumerate(cells) if c.source == "## Run" or c.source.startswith("## Run\n"))
    outputs = [o for c in cells[at:] if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    texts = "\n".join(o.text if o.output_type == "stream" else o.get("data", {}).get("text/markdown", "") for o in outputs)
    return json.loads((tmp_path / "o" / "exploration.json").read_text()), texts, sum("image/png" in o.get("data", {}) for o in outputs)


def test_sample(sample, tmp_path):
    report, texts, figures = run(sample, tmp_path)
    alerts = pd.concat([b.alerts for b in BatchDataLoader(sample)])
    assert "21 batches of torus, 2025-09-01 to 2025-09-21 (daily): 3,202 alerts on" in texts
    assert sum(d["alerts"] for d in report["days"]) == len(alerts)
    assert {t["typology_type"]: t["illicit"] for t in report["typologies"]} == alerts[alerts.ground_truth == 1].typology_type.value_counts().to_dict()
    back = alerts.groupby("address").processing_date.nunique()
    assert [b["addresses"] for b in report["recurrence"]][:2] == [int((back == n).sum()) for n in (1, 2)]
    assert figures == 9
    assert texts.count(" INFO ") <= 8  # no wall of log lines
    assert all(step in texts for step in report["next_steps"])


@pytest.mark.parametrize("name, says", [
    ("schema_example", "1 batch"),
    ("torus_batches", "1 batch of torus, 2025-11-20 (one date): 1,173 alerts on 713 addresses"),
    ("torus_weekly_batches", "26 batches of torus, 2025-02-10 to 2025-08-04 (weekly): 9,751 alerts"),
])
def test_published_batches(name, says, tmp_path):
    report, texts, figures = run(published(name), tmp_path)
    assert says in texts
    assert figures >= 5
    if name == "torus_weekly_batches": assert any("no illicit alert" in step for step in report["next_steps"])
    if name == "torus_batches": assert any(m["missing"] == 1 for m in report["missing"])


def test_unlabelled_without_flows_or_clusters(tmp_path):
    for day in ("2025-09-01", "2025-09-02"):
        without = {"alerts": lambda a: a.drop(columns="ground_truth"), "address_labels": None, "money_flows": None, "clusters": lambda c: c.head(0)}
        tiny_batch(tmp_path / "it's [1] ü" / day, day, **without)
    report, texts, figures = run(tmp_path / "it's [1] ü", tmp_path)
    assert "None of the 24 alerts" not in texts  # it stands in the figure
    assert "no batch has a cluster with an alert" in texts and "It needs no label" in texts
    assert figures >= 5
    assert not any("Train" in step for step in report["next_steps"])


def test_a_date_without_alerts(tmp_path):
    tiny_batch(tmp_path / "b" / "2025-09-01", "2025-09-01", alerts=lambda a: a.head(0), clusters=lambda c: c.head(0))
    _, texts, figures = run(tmp_path / "b", tmp_path)
    assert "no batch has an alert" in texts and figures >= 1


def test_40_dates_of_two_networks(tmp_path):
    days = pd.date_range("2025-01-01", periods=20).strftime("%Y-%m-%d")
    for network in ("torus", "other"):
        own = {"seed": len(network), "meta": {"network": network}, "alerts": lambda a, network=network: a.assign(alert_id=network + a.alert_id)}
        for day in days: tiny_batch(tmp_path / "b" / network / day, day, **own)
    overview = explore(tmp_path / "b", sample_batches=5)
    assert (len(overview["batches"]), len(overview["days"]), overview["looked"]) == (40, 20, 5)
    assert overview["days"].alerts.tolist() == [24] * 20
    assert overview["recurrence"].loc["more", "addresses"] == 6


def test_same_bytes_wherever_it_lies(tmp_path):
    simulate_batches(tmp_path / "b", days=4, alerts_per_day=60, flows_per_day=400, seed=3)
    shutil.copytree(tmp_path / "b", tmp_path / "moved" / "c")
    one, two = (to_json(exploration_report(explore(p))) for p in (tmp_path / "b", tmp_path / "moved" / "c"))
    assert one == two
    assert not re.search(str(tmp_path), one)


def test_memory_stays_bounded(tmp_path):
    "Five times the flows cost little more memory than once."
    sizes, peaks = ("--days", 2, "--alerts-per-day", 200, "--flows-per-day", 20_000, "--seed", 3), []
    simulated = run_module("-m", "aml_miner.simulation.simulator", "--output", tmp_path / "1", *sizes)  # a child's peak begins with its parent's
    assert simulated.returncode == 0, simulated.stderr
    shutil.copytree(tmp_path / "1", tmp_path / "5")
    for path in (tmp_path / "5").rglob("money_flows.parquet"):
        pq.write_table(pa.concat_tables([pq.read_table(path)] * 5), path)
        (path.parent / "META.json").unlink()  # it counts them once
    for factor in (1, 5):
        imports = "import sys; from aml_miner.exploration.explore import explore; from aml_miner.utils.progress import peak_memory_mb"
        done = run_module("-c", f"{imports}; explore(sys.argv[1]); print(peak_memory_mb())", tmp_path / str(factor))
        assert done.returncode == 0, done.stderr
        peaks.append(float(done.stdout.splitlines()[-1]))
    assert peaks[1] < peaks[0] + 150, peaks
