"""What a notebook cannot see of the simulator: fresh processes, bytes, the command line, the native types, the committed sample."""
import json
import os
from pathlib import Path
import subprocess
import sys

import pyarrow.parquet as pq
from conftest import published
import pytest

from aml_miner.simulation.simulator import simulate_batches
from aml_miner.simulation.world import SimulationSettings

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT/"data"/"sample"
TABLES = ("alerts", "features", "clusters", "money_flows", "address_labels")
SMALL = ["--days", "2", "--alerts-per-day", "40", "--flows-per-day", "600", "--seed", "5"]


def command(*arguments, **environment):
    return subprocess.run([sys.executable, "-m", "aml_miner.simulation.simulator", *arguments], capture_output=True, text=True,
                          cwd=environment.pop("cwd", ROOT), env=os.environ | {"PYTHONPATH": str(ROOT)} | environment)


def contents(folder): return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_bytes_in_fresh_processes(tmp_path):
    for name, environment in (("a", {"PYTHONHASHSEED": "1"}), ("b", {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "OMP_NUM_THREADS": "1", "cwd": tmp_path})):
        run = command("--output", str(tmp_path/name), *SMALL, **environment)
        assert run.returncode == 0, run.stderr
    assert contents(tmp_path/"a") == contents(tmp_path/"b")
    assert len(contents(tmp_path/"a")) == 12


@pytest.mark.parametrize("wrong, message", [(["--drift", "2"], "drift 2.0 is outside 0 to 1"), (["--days", "0"], "days 0 is outside 1 to 3650"),
                                            (["--start-date", "tomorrow"], "start_date 'tomorrow' is not a date"), (["--seed", "x"], "invalid int value: 'x'")])
def test_wrong_arguments_name_the_value(tmp_path, wrong, message):
    run = command("--output", str(tmp_path/"no"), *wrong)
    assert run.returncode == 2
    assert message in run.stderr
    assert not (tmp_path/"no").exists()


def test_progress_is_logged_and_help_is_complete(tmp_path):
    run = command("--output", str(tmp_path), *SMALL)
    assert "2025-09-02: " in run.stderr and " alerts" in run.stderr
    shown = command("--help").stdout
    for name in SimulationSettings.__dataclass_fields__: assert f"--{name.replace('_', '-')}" in shown


def test_types_are_those_of_the_schema_example(tmp_path):
    example = published("schema_example") / "2025-09-01"
    folder = simulate_batches(tmp_path, days=1, alerts_per_day=40, flows_per_day=600, seed=5)[0]
    for table in TABLES:
        ours, theirs = pq.read_schema(folder/f"{table}.parquet"), pq.read_schema(example/f"{table}.parquet")
        assert [(f.name, f.type, f.nullable) for f in ours] == [(f.name, f.type, f.nullable) for f in theirs], table
    assert set(json.loads((folder/"META.json").read_text())) >= set(json.loads((example/"META.json").read_text())) - {"generator"}


def test_alerts_per_day_are_met_at_several_sizes(tmp_path):
    for alerts, flows in ((20, 200), (300, 4_000), (1_000, 25_000)):
        for folder in simulate_batches(tmp_path/str(alerts), days=2, alerts_per_day=alerts, flows_per_day=flows, seed=8):
            counts = json.loads((folder/"META.json").read_text())["counts"]
            assert abs(counts["alerts"] - alerts) <= max(1, 0.05 * alerts)
            assert abs(counts["money_flows"] - flows) <= (0.1 if flows > 1_000 else 0.5) * flows


def test_an_interrupted_run_leaves_whole_batches_only(tmp_path, monkeypatch):
    from aml_miner.simulation import simulator
    write, calls = simulator.write_batch, []

    def breaks(timeline, batch, folder):
        calls.append(batch)
        if batch == 1:
            (folder/"alerts.parquet").write_bytes(b"half")
            raise OSError("disk full")
        return write(timeline, batch, folder)

    monkeypatch.setattr(simulator, "write_batch", breaks)
    assert simulator.main(["--output", str(tmp_path), *SMALL]) == 2
    assert calls == [0, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["2025-09-01"]


def test_the_sample_is_what_the_command_makes(tmp_path):
    simulate_batches(tmp_path, days=SimulationSettings.days)
    made, kept = contents(tmp_path), contents(SAMPLE)
    same_writer = pq.read_metadata(SAMPLE/"2025-09-01"/"alerts.parquet").created_by == pq.read_metadata(tmp_path/"2025-09-01"/"alerts.parquet").created_by
    assert set(made) == set(kept)
    if same_writer: assert [name for name in kept if kept[name] != made[name]] == []
    for table in TABLES:
        name = f"2025-09-05/{table}.parquet"
        assert pq.read_table(tmp_path/name).equals(pq.read_table(SAMPLE/name)), name


def test_the_sample_is_small_and_can_be_evaluated():
    days = sorted(p for p in SAMPLE.iterdir() if p.is_dir())
    assert len(days) >= 14
    assert sum(p.stat().st_size for p in SAMPLE.rglob("*") if p.is_file()) <= 6_000_000
    for day in days:
        truth = [x for x in pq.read_table(day/"alerts.parquet")["ground_truth"].to_pylist() if x is not None]
        assert sum(truth) >= 3 and truth.count(0) >= 30, day
    assert pq.read_table(days[-1]/"alerts.parquet")["ground_truth"].null_count > 0
