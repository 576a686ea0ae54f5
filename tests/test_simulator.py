"""What a notebook cannot see of the simulator: fresh processes, bytes, the command line, the native types, the committed sample."""
import json
import os
from pathlib import Path
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
from conftest import published
import pytest

from aml_miner.conversion.simulate import simulate_batches
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
    assert len(contents(tmp_path/"a")) == 16  # twice six files; the transactions, the register, the truth, what all was made from


@pytest.mark.parametrize("wrong, message", [(["--drift", "2"], "drift 2.0 is outside 0 to 1"), (["--days", "0"], "days 0 is outside 1 to 3650"),
                                            (["--start-date", "tomorrow"], "start_date 'tomorrow' is not a date"), (["--seed", "x"], 'convert "x" into int')])
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
        ours = [f for f in ours if (table, f.name) != ("clusters", "ground_truth")]  # whether it is one scheme is known here, and not there
        assert [(f.name, f.type, f.nullable) for f in ours] == [(f.name, f.type, f.nullable) for f in theirs], table
    assert set(json.loads((folder/"META.json").read_text())) >= set(json.loads((example/"META.json").read_text())) - {"generator"}


def test_alerts_per_day_are_about_met_at_several_sizes(tmp_path):
    "The thresholds are set on the weeks before: a week's mean is near, single days are not promised."
    for alerts, flows in ((20, 200), (500, 10_000)):
        counts = [json.loads((f/"META.json").read_text())["counts"] for f in simulate_batches(tmp_path/str(alerts), days=7, alerts_per_day=alerts,
                                                                                              flows_per_day=flows, seed=8)]
        assert abs(sum(c["alerts"] for c in counts) / 7 - alerts) <= 0.2 * alerts
        for c in counts: assert abs(c["money_flows"] - flows) <= (0.1 if flows > 1_000 else 0.5) * flows


def test_no_day_of_a_batch_has_a_say_in_the_thresholds(tmp_path):
    "The first days are the same, whatever comes after them."
    for days in (2, 5): simulate_batches(tmp_path/str(days), days=days, alerts_per_day=40, flows_per_day=600, seed=5)
    for day in ("2025-09-01", "2025-09-02"):
        few, more = (pq.read_table(tmp_path/str(days)/day/"alerts.parquet").drop_columns("ground_truth") for days in (2, 5))
        assert few.equals(more)


def test_transactions_are_known_in_full(tmp_path):
    "Every label of an alert follows from the transactions: who deals with an accomplice in the window."
    folders = simulate_batches(tmp_path, days=4, alerts_per_day=60, flows_per_day=900, seed=5, label_noise=0, illicit_share=0.2, labels_as_of="2026-01-01")
    money = pq.read_table(tmp_path/"transactions.parquet").to_pandas()
    dirty, seen = money[money.is_laundering == 1], set()
    assert dirty.attempt_id.notna().all() and money[money.is_laundering == 0].attempt_id.isna().all()
    for folder in folders:
        day = np.datetime64(folder.name)
        inside = dirty[(dirty.timestamp < day) & (dirty.timestamp >= day - np.timedelta64(7, "D"))]
        guilty = {*inside.source_account, *inside.target_account}
        alerts = pq.read_table(folder/"alerts.parquet").to_pandas()
        assert alerts.ground_truth.tolist() == [int(a in guilty) for a in alerts.address]
        seen |= guilty & set(alerts.address)
    assert len(seen) > 5


def test_an_interrupted_run_leaves_whole_batches_only(tmp_path, monkeypatch):
    from aml_miner.conversion import alert_batches, simulate
    write, calls = alert_batches.write_batch, []

    def breaks(con, day, folder, *others):
        calls.append(str(day))
        if len(calls) == 2:
            (folder/"alerts.parquet").write_bytes(b"half")
            raise OSError("disk full")
        return write(con, day, folder, *others)

    monkeypatch.setattr(alert_batches, "write_batch", breaks)
    assert simulate.main(["--output", str(tmp_path), *SMALL]) == 2
    assert calls == ["2025-09-01", "2025-09-02"]
    assert [p.name for p in sorted(tmp_path.iterdir()) if p.is_dir()] == ["2025-09-01"]
    assert simulate.main(["--output", str(tmp_path), *SMALL]) == 0
    assert calls == ["2025-09-01", "2025-09-02", "2025-09-02"]  # it goes on where it stopped


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
    truth = [x for day in days for x in pq.read_table(day/"alerts.parquet")["ground_truth"].to_pylist() if x is not None]
    assert 0.9 <= truth.count(0) / len(truth) <= 0.97
    seen = [a for day in days for a in pq.read_table(day/"alerts.parquet")["address"].to_pylist()]
    assert len(seen) > 4 * len(set(seen))
