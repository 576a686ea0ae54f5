"""The conversion as its users run it: papermill, the command line for every source, other places, killed and started again; its labels against the
source's own rows."""
import csv
from datetime import date, timedelta
from importlib import import_module
import json
import signal
import tempfile

from conftest import ROOT, published, run_module, run_papermill, run_warm
from fuzz.forked import run_forked
import nbformat
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from aml_miner.batches.loader import BatchDataLoader, batch_folders
from aml_miner.config.model_config import load_config
from aml_miner.conversion.alert_batches import write_batches
from aml_miner.conversion.convert import convert, main
from aml_miner.transactions.amlworld_example import write_amlworld_example

convert_module = import_module("aml_miner.conversion.convert")  # the package's own name is the function's
NOTEBOOK = ROOT / "nbs" / "07_convert_transactions.ipynb"
COMMAND = ("-m", "aml_miner.conversion.convert")


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    "A small file of AMLworld's shape and its patterns."
    return write_amlworld_example(tmp_path_factory.mktemp("example"), rows=8_000, seed=5)


def arguments(example, output, *more):
    trans, patterns = example
    return (*COMMAND, "--source", "amlworld", "--input", trans, "--patterns", patterns, "--output", output, *more)


@pytest.fixture(scope="module")
def converted(example, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "out"
    done = run_warm(*arguments(example, out))
    assert done.returncode == 0, done.stderr
    return out


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def quiet(folder):
    "The batches of a folder, of which the loader remarks nothing."
    batches = list(BatchDataLoader(folder))
    assert batches and [b.notes for b in batches] == [()] * len(batches)
    return batches


def test_batches_are_sound(converted):
    assert sorted(p.name for p in converted.iterdir() if p.is_file()) == ["conversion.json", "transactions.json", "transactions.parquet", "truth.parquet"]
    batches = quiet(converted)
    assert [b.processing_date for b in batches] == sorted(p.name and date.fromisoformat(p.name) for p in converted.iterdir() if p.is_dir())
    assert batches[-1].processing_date == date(2022, 9, 11)  # which sees 10 September as the last day
    for b in batches:
        assert b.windows == (7,) and b.network == "amlworld" and b.counts["alerts"] > 0
        flows, end = b.money_flows, pd.Timestamp(b.processing_date).value // 10**6
        assert flows.timestamp.max() < end and flows.timestamp.min() >= end - 7 * 86_400_000
        assert set(b.alerts.address) <= set(b.features.address)
        assert b.alerts.alert_confidence_score.between(0, 1).all() and b.alerts.description.str.len().gt(10).all()
        assert all(isinstance(json.loads(e), dict) for e in b.alerts.evidence_json)
        assert str(ROOT) not in (b.path / "META.json").read_text()


def rows_of(path):
    "AMLworld's CSV by the standard library: day, both ends, whether it is laundering."
    with path.open(newline="") as f:
        lines = csv.reader(f)
        next(lines)
        for at, bank, account, to_bank, to_account, *_, label in lines:
            yield date(*map(int, at[:10].split("/"))), {f"{int(bank)}:{account}", f"{int(to_bank)}:{to_account}"}, label == "1"


def test_labels_are_those_of_the_file(example, converted):
    "Every label worked out anew from the CSV, without the package."
    rows = [(day, ends) for day, ends, laundering in rows_of(example[0]) if laundering]
    illicit = 0
    for b in quiet(converted):
        guilty = set().union(*(ends for day, ends in rows if b.processing_date - timedelta(days=7) <= day < b.processing_date))
        assert b.alerts.ground_truth.tolist() == [int(a in guilty) for a in b.alerts.address]
        illicit += b.counts["illicit"]
    assert 20 < illicit < sum(b.counts["alerts"] for b in quiet(converted))


def test_clusters_are_labelled_by_attempts(converted):
    truth, ones = pd.read_parquet(converted / "truth.parquet"), 0
    for b in quiet(converted):
        attempts = truth[truth.processing_date == b.processing_date].groupby("account").attempt_id.agg(set).to_dict()
        address = dict(zip(b.alerts.alert_id, b.alerts.address))
        for c in b.clusters.itertuples():
            named = [x for a in c.related_alert_ids for x in attempts.get(address[a], ())]
            assert c.ground_truth == (max(map(named.count, named), default=0) > len(c.related_alert_ids) / 2)
            assert sorted({address[a] for a in c.related_alert_ids}) == list(c.addresses_involved) and c.total_alerts == len(c.related_alert_ids) >= 2
            ones += c.ground_truth
    assert ones > 0


@pytest.mark.parametrize("more", [(), ("--max-flows", 1_500)], ids=["whole", "cut"])
def test_what_comes_later_changes_nothing(more, example, converted, tmp_path):
    "A batch made on its day is the batch of the whole run, but for what has not settled; also where only later windows have too many flows."
    whole = converted
    if more:
        whole = tmp_path / "whole"
        assert run_warm(*arguments(example, whole, *more)).returncode == 0
        kinds = {json.loads((f / "META.json").read_text())["profiles"] for f in whole.iterdir() if f.is_dir()}
        assert len(kinds) == 2, kinds
    done = run_warm(*arguments(example, tmp_path / "o", "--last-day", "2022-09-07", *more))
    assert done.returncode == 0, done.stderr
    assert "transactions after 2022-09-07 are left out" in done.stderr
    for b in quiet(tmp_path / "o"):
        assert b.processing_date <= date(2022, 9, 8)
        for name in ("alerts", "features", "clusters", "money_flows"):
            assert (b.path / f"{name}.parquet").read_bytes() == (whole / b.path.name / f"{name}.parquet").read_bytes()


def test_labels_settle(example, converted, tmp_path):
    final, before = {b.path.name: b.alerts for b in quiet(converted)}, None
    for as_of in ("2022-09-13", "2022-10-12"):
        done = run_warm(*arguments(example, tmp_path / "o", "--settle-days", "3", "30", "--labels-as-of", as_of))
        assert done.returncode == 0, done.stderr
        labels = pd.concat([b.alerts.set_index("alert_id").ground_truth for b in quiet(tmp_path / "o")])
        truth = pd.concat([a.set_index("alert_id").ground_truth for a in final.values()])
        known = labels.notna()
        assert (labels[known] == truth[known]).all()
        assert before is None or (known.sum() > before.sum() and known[before].all())  # what is known stays known
        before = known
    assert known.all()


def test_threads_place_and_hash_seed_do_not_matter(example, converted, tmp_path):
    home = tmp_path / "an other's place"
    home.mkdir()
    done = run_module(*arguments(example, "o"), cwd=home, PYTHONHASHSEED=3, OMP_NUM_THREADS=2, TZ="Asia/Tokyo", ARROW_NUM_THREADS=2)
    assert done.returncode == 0, done.stderr
    assert content(home / "o") == content(converted)


KILLED = """
import os, signal, sys
from aml_miner.conversion import alert_batches
from aml_miner.conversion.convert import main
write, days = alert_batches.write_batch, []
def killed(con, day, folder, *others):
    days.append(day)
    if len(days) < 3: return write(con, day, folder, *others)
    (folder / "alerts.parquet").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
alert_batches.write_batch = killed
main(sys.argv[1:])
"""


def test_a_killed_run_goes_on(example, converted, tmp_path):
    "Killed again and again in its third batch: what is whole is kept, and the same bytes are there in the end."
    out, command, seen = tmp_path / "o", arguments(example, tmp_path / "o")[2:], []
    for _ in range(2):
        assert run_warm("-c", KILLED, *command).returncode == -signal.SIGKILL
        assert len(batch_folders(out)) == len(seen) + 2
        for folder in (seen := batch_folders(out)): assert content(folder) == content(converted / folder.name)
    times = {f: (f / "META.json").stat().st_mtime_ns for f in seen}
    done = run_warm(*arguments(example, out))
    assert done.returncode == 0, done.stderr
    assert content(out) == content(converted)
    assert {f: (f / "META.json").stat().st_mtime_ns for f in seen} == times


def first(example, out):
    "A conversion in this process."
    trans, patterns = example
    return [str(f) for f in convert("amlworld", trans, out, load_config(), files={"patterns": patterns})]


def test_the_lock_of_a_conversion_belongs_to_its_folder(example, converted, tmp_path, monkeypatch):
    "A second one is refused, whatever its temporary folder and by whatever path it comes."
    out, read, ends = tmp_path / "o", convert_module.read_source, []
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)

    def second():
        tempfile.tempdir = str(tmp_path)
        return first(example, tmp_path / "link" / "o")

    def reads(*args, **others):
        monkeypatch.setattr(convert_module, "read_source", read)
        ends.append(run_forked(second, refusals=(ValueError,)))
        return read(*args, **others)

    monkeypatch.setattr(convert_module, "read_source", reads)
    first(example, out)
    assert [(e.kind, "another conversion is writing to it" in e.detail) for e in ends] == [("refused", True)], ends
    assert content(out) == content(converted)


def test_a_failure_in_the_middle_leaves_whole_batches(converted, tmp_path, monkeypatch):
    from aml_miner.conversion import alert_batches
    write, calls = alert_batches.write_batch, []

    def breaks(con, day, folder, *others):
        calls.append(day)
        if len(calls) == 3:
            (folder / "alerts.parquet").write_bytes(b"half")
            raise OSError("disk full")
        return write(con, day, folder, *others)

    monkeypatch.setattr(alert_batches, "write_batch", breaks)
    source = json.loads(next(converted.glob("*/META.json")).read_text())["source"]
    with pytest.raises(OSError, match="disk full"):
        write_batches(converted / "transactions.parquet", tmp_path, load_config(), "amlworld", 7, settle_days=(2, 2), last_day="2022-09-10", source=source)
    monkeypatch.undo()
    assert [p.name for p in sorted(tmp_path.iterdir()) if p.is_dir()] == [str(d) for d in calls[:2]]
    for folder in batch_folders(tmp_path): assert content(folder) == content(converted / folder.name)


def write_amlsim(folder):
    "AMLSim's CSV: accounts, transactions with a cycle and a fan-in, members of alerts."
    rng, rows = np.random.default_rng(0), []
    folder.mkdir()
    for _ in range(1_500): rows.append((*rng.choice(60, 2, replace=False), round(float(rng.lognormal(5, 1)), 2), int(rng.integers(60)), False, -1))
    rows += [(a, b, 9_500.0, 30 + i // 3, True, 0) for i, (a, b) in enumerate([(1, 2)] * 3 + [(2, 3)] * 3 + [(3, 1)] * 3)]
    rows += [(10 + i, 9, 6_000.0, 40, True, 1) for i in range(8)]
    names = ["orig_acct", "bene_acct", "base_amt", "tran_timestamp", "is_sar", "alert_id"]
    table = pd.DataFrame(rows, columns=names).assign(tx_type="TRANSFER").rename_axis("tran_id").reset_index()
    table["tran_timestamp"] = [f"{pd.Timestamp('2017-01-01') + pd.Timedelta(days=d):%Y-%m-%dT%H:%M:%SZ}" for d in table.tran_timestamp]
    table.to_csv(folder / "transactions.csv", index=False)
    pd.DataFrame({"acct_id": range(60), "is_sar": [i in (1, 2, 3, 9) for i in range(60)]}).to_csv(folder / "accounts.csv", index=False)
    members = [(0, "cycle", a) for a in (1, 2, 3)] + [(1, "fan_in", a) for a in (9, *range(10, 18))]
    pd.DataFrame(members, columns=["alert_id", "reason", "acct_id"]).to_csv(folder / "alert_members.csv", index=False)
    return folder, ()


def write_samld(folder):
    "SAML-D's layout: ordinary payments and a fan-out."
    rng = np.random.default_rng(1)
    folder.mkdir()
    rows = [(f"{rng.integers(24):02}:10:00", f"2022-10-{rng.integers(1, 29):02}", *rng.choice(50, 2, replace=False),
             round(float(rng.lognormal(6, 1)), 2), "Cash Deposit", 0, "Normal_Small_Fan_Out") for _ in range(1_000)]
    rows += [("11:00:00", "2022-10-15", 7, 20 + i, 9_100.0, "ACH", 1, "Structuring") for i in range(9)]
    table = pd.DataFrame(rows, columns=["Time", "Date", "Sender_account", "Receiver_account", "Amount", "Payment_type", "Is_laundering", "Laundering_type"])
    table = table.assign(Payment_currency="UK pounds", Received_currency="UK pounds", Sender_bank_location="UK", Receiver_bank_location="UK")
    table.to_csv(folder / "SAML-D.csv", index=False)
    return folder / "SAML-D.csv", ()


def write_flat(folder):
    "A table with a row for each alert."
    rng = np.random.default_rng(2)
    folder.mkdir()
    frame = pd.DataFrame({"outcome": rng.integers(0, 2, 60), "when": [f"2025-02-{1 + i // 20:02}" for i in range(60)],
                          "risk": rng.integers(0, 9, 60), "spend": rng.lognormal(5, 1, 60).round(2)})
    frame.to_csv(folder / "alerts.csv", index=False)
    (folder / "columns.yaml").write_text("label: outcome\ndate: when\n")
    return folder / "alerts.csv", ("--columns", folder / "columns.yaml")


@pytest.mark.parametrize("source, write", [("amlsim", write_amlsim), ("samld", write_samld), ("alerts", write_flat)])
def test_every_source_by_the_command_line(source, write, tmp_path):
    path, more = write(tmp_path / "in")
    command = (*COMMAND, "--source", source, "--input", path, "--output", tmp_path / "o", *more)
    done = run_warm(*command)
    assert done.returncode == 0, done.stderr
    batches = quiet(tmp_path / "o")
    assert 0 < sum(b.counts["illicit"] for b in batches) < sum(b.counts["alerts"] for b in batches)
    assert sum(b.counts["unlabelled"] for b in batches) == 0
    own = ["ground_truth" in pq.read_schema(b.path / "clusters.parquet").names for b in batches]
    assert own == [source == "amlsim"] * len(batches)  # the only one of the three that names attempts
    before = content(tmp_path / "o")
    assert run_warm(*command).returncode == 0 and content(tmp_path / "o") == before


@pytest.mark.parametrize("change, message", [
    ({"--input": "absent.csv"}, "absent.csv: no such file"),
    ({"--input": "settings.ini"}, "settings.ini, line 1"),
    ({"--patterns": "absent.txt"}, "absent.txt"),
    ({"--output": "trained_models"}, "holds 'alert_ranker.json', which no conversion made"),
    ({"--output": "settings.ini"}, "is a file"),
    ({"--window-days": "1"}, "window_days is 1"),
    ({"--every-days": "7"}, "every_days is 7"),
    ({"--last-day": "2022-13-01"}, "last_day '2022-13-01' is not a date"),
    ({"--last-day": "2020-01-01"}, "no transaction up to 2020-01-01"),
    ({"--settle-days": "-1"}, "settle_days is (-1, -1)"),
    ({"--config": "settings.ini"}, "settings.ini"),
    ({"--currencies": "settings.ini"}, "settings.ini"),
    ({"--columns": "settings.ini"}, "columns: source amlworld has no such file"),
    ({"--memory-limit": "much"}, "much"),
])
def test_wrong_arguments_are_named(change, message, example, refused, tmp_path):
    args = {"--source": "amlworld", "--input": example[0], "--patterns": example[1], "--output": tmp_path / "o"} | change
    assert message in refused(main, *(x for pair in args.items() for x in pair))
    assert not batch_folders(tmp_path / "o") if (tmp_path / "o").exists() else True


def test_papermill_writes_the_same_bytes_and_its_pictures(example, converted, tmp_path):
    done = run_papermill(NOTEBOOK, tmp_path / "out.ipynb", "-p", "input_path", example[0], "-p", "patterns", example[1], "-p", "output", tmp_path / "o")
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "o") == content(converted)
    outputs = [o for c in nbformat.read(tmp_path / "out.ipynb", 4).cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 4
    assert "the loader has 0 remarks" in "".join(o.get("text", "") for o in outputs)


def test_wrong_parameters_stop_the_notebook(tmp_path):
    "All of them are named, before any work is done."
    done = run_papermill(NOTEBOOK, tmp_path / "out.ipynb", "-p", "output", tmp_path / "o", "-p", "input", "x", "-p", "every_days", "weekly", cwd=tmp_path)
    assert done.returncode != 0
    for message in ("input: no such parameter; did you mean", "every_days: 'weekly' is no"): assert message in done.stderr, message
    assert not (tmp_path / "o").exists()


def test_published_cut_says_what_it_is_and_stops(tmp_path):
    "IBM AMLworld as published, cut: no batch after 11 September, which sees the 10th, and the words beside every picture."
    path = published("amlworld") / "amlworld_hi_small_cut15k.parquet"
    done = run_papermill(NOTEBOOK, tmp_path / "out.ipynb", "-p", "input_path", path, "-p", "output", tmp_path / "o")
    assert done.returncode == 0, done.stderr
    assert quiet(tmp_path / "o")[-1].processing_date == date(2022, 9, 11)
    text = "".join(o.get("text", "") for c in nbformat.read(tmp_path / "out.ipynb", 4).cells if c.cell_type == "code" for o in c.outputs)
    assert "down-sampled cut" in text
    flows = pd.concat([b.money_flows for b in BatchDataLoader(tmp_path / "o")])
    assert pd.Timestamp(flows.timestamp.max(), unit="ms") < pd.Timestamp("2022-09-11")


def test_published_flat_alerts(tmp_path):
    folders = convert("alerts", published("datarobot_alerts") / "datarobot_aml_alerts.parquet", tmp_path / "o", load_config())
    assert sum(b.counts["illicit"] for b in quiet(tmp_path / "o")) == 1_026 and len(folders) == 50
