"What a batch directory can do to the loader: broken files, wrong values, other producers' habits."
import json
import random
import shutil
import struct
from datetime import date
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from conftest import published
import pytest

from aml_miner.batches.checks import BatchError
from aml_miner.batches.loader import BatchDataLoader, list_batches, read_batch
from aml_miner.batches.native_types import native_table
from aml_miner.batches.schema import SEVERITY_COLUMNS, TABLES
from aml_miner.testing.tiny_batch import tiny_batch, tiny_tables
from aml_miner.utils.files import sha256_file



def refuse(folder, **changes):
    "The faults of the tiny batch with changes, none of which may come from anything but the changes."
    with pytest.raises(BatchError) as caught: read_batch(tiny_batch(folder, **changes))
    error = caught.value
    assert isinstance(error, ValueError) and str(folder) in str(error)
    assert all(f in str(error) for f in error.faults)
    return error.faults


def put(column, rows, value):
    "A change of some rows of one column."
    def change(frame):
        values = frame[column].astype(object).tolist()
        for i in rows: values[i] = value
        return frame.assign(**{column: pd.Series(values, dtype=object, index=frame.index)})
    return change


def as_type(name, column, type_, values=None):
    "A change of the stored type of a column."
    def change(frame):
        table = native_table(TABLES[name], frame)
        array = pa.array(values, type_) if values is not None else table[column].cast(type_)
        return table.set_column(table.column_names.index(column), column, array)
    return change


USD = pa.float64()
NAN, INF = float("nan"), float("inf")
alerts_usd = [float(v) for v in tiny_tables()["alerts"].volume_usd]
flows_usd = [float(v) for v in tiny_tables()["money_flows"].amount_usd]
A01 = "window_days=7, processing_date=2025-09-01, alert_id='a01', typology_type='fan_in'"

# what to change in the tiny batch -> what the one fault must say: file, column, rows, example
FAULTS = {
    "no alerts": (dict(alerts=None), ["alerts.parquet: absent"]),
    "no features": (dict(features=None), ["features.parquet: absent"]),
    "no clusters": (dict(clusters=None), ["clusters.parquet: absent"]),
    "no severity column": (dict(alerts=lambda a: a.drop(columns="severity")), ["alerts.parquet: required column severity is absent"]),
    "no sender column": (dict(money_flows=lambda f: f.drop(columns="source_address")),
                         ["money_flows.parquet: required column source_address or from_address is absent"]),
    "text amounts": (dict(alerts=as_type("alerts", "volume_usd", pa.string())),
                     ["alerts.parquet, column volume_usd: 12 rows of type VARCHAR, expected DECIMAL or DOUBLE", "for example '12000.5", A01]),
    "text dates": (dict(features=as_type("features", "processing_date", pa.string())),
                   ["features.parquet, column processing_date: 9 rows of type VARCHAR, expected DATE or TIMESTAMP", "'2025-09-01' at", "address='alice'"]),
    "number for a text": (dict(alerts=as_type("alerts", "severity", pa.int64(), [3] * 12)),
                          ["column severity: 12 rows of type INTEGER, expected VARCHAR", "for example 3 at", A01]),
    "number for a list": (dict(features=as_type("features", "hourly_activity", pa.int64(), [3] * 9)),
                          ["features.parquet, column hourly_activity: 9 rows of type INTEGER, expected LIST or VARCHAR"]),
    "alerts twice": (dict(alerts=lambda a: pd.concat([a, a.iloc[[1, 0]]])),
                     ["alerts.parquet, columns window_days, processing_date, alert_id, typology_type: 2 rows repeating a key", f"{A01} (2 times)"]),
    "profile twice": (dict(features=lambda f: pd.concat([f, f.iloc[[8, 8]]])),
                      ["features.parquet, columns window_days, processing_date, address: 2 rows repeating a key",
                       "window_days=30, processing_date=2025-09-01, address='alice' (3 times)"]),
    "cluster twice": (dict(clusters=lambda c: pd.concat([c, c.iloc[[2]]])),
                      ["clusters.parquet, columns window_days", "1 row repeating a key", "'c3' (2 times)"]),
    "negative alert": (dict(alerts=put("volume_usd", [0, 3], Decimal("-0.01"))),
                       ["alerts.parquet, column volume_usd: 2 rows negative, for example -0.01 at", A01]),
    "negative flow": (dict(money_flows=put("amount_usd", [2], Decimal(-5))),
                      ["money_flows.parquet, column amount_usd: 1 row negative, for example -5 at ",
                       "at tx_hash='0x0002', source_address='bob', dest_address='alice'"]),
    "negative cluster": (dict(clusters=put("total_volume_usd", [0], Decimal(-1))),
                         ["clusters.parquet, column total_volume_usd: 1 row negative", "cluster_id='c1'"]),
    "negative profile": (dict(features=put("khop2_volume_usd", [1], Decimal(-1))),
                         ["features.parquet, column khop2_volume_usd: 1 row negative", "address='bob'"]),
    "minus infinite flow": (dict(money_flows=as_type("money_flows", "amount_usd", USD, [-INF, *flows_usd[1:]])),
                            ["column amount_usd: 1 row not finite, for example -inf"]),
    "NaN alert": (dict(alerts=as_type("alerts", "volume_usd", USD, [NAN, *alerts_usd[1:]])), ["column volume_usd: 1 row not finite, for example nan at", A01]),
    "huge alerts": (dict(alerts=put("volume_usd", range(7), Decimal("1000000000000.01"))),
                    ["column volume_usd: 7 rows above 1,000,000,000,000 US dollars, which each counts as, for example 1000000000000.01 at", A01]),
    "infinite flows": (dict(money_flows=as_type("money_flows", "amount_usd", USD, [INF] * 8 + flows_usd[8:])),
                       ["column amount_usd: 8 rows above 1,000,000,000,000"]),
    "NaN flow": (dict(money_flows=as_type("money_flows", "amount_usd", USD, [NAN, *flows_usd[1:]])),
                 ["column amount_usd: 1 row not finite, for example nan at tx_hash='0x0000'"]),
    "date 9999": (dict(alerts=put("processing_date", [3], date(9999, 12, 31))),
                  ["alerts.parquet, column processing_date: 1 row not of 1990-01-01 to 2099-12-31, for example 9999-12-31 at window_days=7", "alert_id='a04'"]),
    "seconds": (dict(money_flows=lambda f: f.assign(timestamp=f.timestamp // 1000)),
                ["money_flows.parquet, column timestamp: 14 rows of 14 no UTC milliseconds", "for example 1754992800 at", "; as seconds they would be"]),
    "old flows": (dict(money_flows=lambda f: f.assign(timestamp=f.timestamp - 90 * 86_400_000)), ["none of 14 rows in the 30 days to the end of 2025-09-01"]),
    "profile clock": (dict(features=lambda f: f.assign(last_activity_timestamp=f.last_activity_timestamp * 1000)),
                      ["features.parquet, column last_activity_timestamp: 9 rows of 9", "; as microseconds they would be"]),
    "column twice": (dict(alerts=lambda a: native_table(TABLES["alerts"], a).append_column("SEVERITY", pa.array(["low"] * 12))),
                     ["alerts.parquet: columns 'severity' and 'SEVERITY' differ in nothing but letter case"]),
    "other case": (dict(money_flows=lambda f: native_table(TABLES["money_flows"], f).rename_columns({"amount_usd": "Amount_USD"})),
                   ["money_flows.parquet: required column amount_usd is absent; there is 'Amount_USD', and names"]),
    "confidence above 1": (dict(alerts=put("alert_confidence_score", [0], 1.5)),
                           ["alerts.parquet, column alert_confidence_score: 1 row outside [0, 1], for example 1.5 at", A01]),
    "confidence below 0": (dict(clusters=put("confidence_avg", [1, 2], -.25)),
                           ["clusters.parquet, column confidence_avg: 2 rows outside [0, 1], for example -0.25", "'c2'"]),
    "infinite confidence": (dict(alerts=put("alert_confidence_score", [0], INF)), ["1 row outside [0, 1], for example inf"]),
    "confidence of a label": (dict(address_labels=put("confidence_score", [0], 7.)),
                              ["address_labels.parquet, column confidence_score: 1 row outside", "address='mixer'"]),
    "severity": (dict(alerts=put("severity", [2, 3], "urgent")),
                 ["alerts.parquet, column severity: 2 rows not one of low, medium, high, critical, for example 'urgent' at", "alert_id='a03'"]),
    "severity of a cluster": (dict(clusters=put("severity_max", [0], "1")), ["clusters.parquet, column severity_max: 1 row not one of"]),
    "risk level": (dict(address_labels=put("risk_level", [0], "severe")),
                   ["address_labels.parquet, column risk_level: 1 row not one of low", "for example 'severe' at network='torus'"]),
    "label 2": (dict(alerts=put("ground_truth", [0, 1, 2], 2)), ["alerts.parquet, column ground_truth: 3 rows not 0, 1 or null, for example 2 at", A01]),
    "label 0.5": (dict(alerts=as_type("alerts", "ground_truth", pa.float64(), [.5] + [1.] * 11)),
                  ["column ground_truth: 1 row not 0, 1 or null, for example 0.5 at", A01]),
    "label -1": (dict(alerts=put("ground_truth", [0], -1)), ["column ground_truth: 1 row not 0, 1 or null, for example -1"]),
    "text label": (dict(alerts=as_type("alerts", "ground_truth", pa.string(), ["yes"] * 12)), ["column ground_truth: 12 rows of type VARCHAR", "'yes'"]),
    "flag 3": (dict(features=as_type("features", "is_whale", pa.int8(), [3] + [0] * 8)),
               ["features.parquet, column is_whale: 1 row not 0, 1 or null, for example 3"]),
    "null key": (dict(alerts=put("address", [4], None)), ["alerts.parquet, column address: 1 row null, for example None at", "alert_id='a05'"]),
    "empty key": (dict(features=put("address", [3], "")), ["features.parquet, column address: 1 row empty or beginning with a blank, for example ''"]),
    "blank key": (dict(alerts=put("alert_id", [0], "  ")),
                  ["alerts.parquet, column alert_id: 1 row empty or beginning with a blank, for example '  ' at window_days=7"]),
    "null sender": (dict(money_flows=put("source_address", [0], None)), ["money_flows.parquet, column source_address: 1 row null", "tx_hash='0x0000'"]),
    "null cluster": (dict(clusters=put("cluster_id", [0], None)), ["clusters.parquet, column cluster_id: 1 row null"]),
    "null date": (dict(alerts=put("processing_date", [0], None)), ["alerts.parquet, column processing_date: 1 row null", "alert_id='a01'"]),
    "null window": (dict(features=put("window_days", [0], None)), ["features.parquet, column window_days: 1 row null", "address='alice'"]),
    "all addresses null": (dict(alerts=as_type("alerts", "address", pa.null(), [None] * 12)), ["alerts.parquet, column address: 12 rows null"]),
    "all addresses null, typed": (dict(alerts=as_type("alerts", "address", pa.float64(), [None] * 12)),
                                  ["alerts.parquet, column address: 12 rows null, all of them"]),
    "window 0": (dict(clusters=put("window_days", [3], 0)),
                 ["clusters.parquet, column window_days: 1 row not a whole number of days from 1 to 36,500, for example 0"]),
    "window 7.5": (dict(clusters=as_type("clusters", "window_days", pa.float64(), [7.5, 7, 7, 30])), ["column window_days: 1 row not a whole number", "7.5"]),
    "two dates": (dict(alerts=put("processing_date", [11], date(2025, 9, 2))),
                  ["alerts.parquet, column processing_date: 1 row of another date than 2025-09-01, for example 2025-09-02 at window_days=30, alert_id='a10'"]),
    "date of the clusters": (dict(clusters=put("processing_date", range(4), date(2024, 9, 1))),
                             ["clusters.parquet, column processing_date: 4 rows of another date than 2025-09-01, for example 2024-09-01 at ",
                              " at window_days=7, cluster_id='c1'"]),
    "empty file": (dict(alerts=b""), ["alerts.parquet: cannot be read as parquet"]),
    "no parquet": (dict(money_flows=b"a,b\n1,2\n" * 100), ["money_flows.parquet: cannot be read as parquet"]),
    "META no JSON": (dict(meta="{'a': 1}"), ["META.json: cannot be read as JSON"]),
    "META a list": (dict(meta="[]"), ["META.json: holds [], expected an object"]),
    "META not UTF-8": (dict(meta=b"{\"network\": \"\xe9\"}"), ["META.json: cannot be read as JSON"]),
    "META nested": (dict(meta="{\"a\":" * 100_000), ["META.json: cannot be read as JSON"]),
    "META count": (dict(meta=lambda m: m | {"counts": m["counts"] | {"features": 8}}), ["META.json, counts.features: 8, but features.parquet has 9 rows"]),
    "META count a text": (dict(meta={"counts": {"alerts": "12"}}), ["META.json, counts: {'alerts': '12'}, expected an object of row counts"]),
    "META checksum": (dict(meta=lambda m: m | {"sha256": m["sha256"] | {"alerts.parquet": "0" * 64}}),
                      ["META.json, sha256.alerts.parquet: 000000000000..., but the file's is"]),
    "META checksum short": (dict(meta={"sha256": {"alerts.parquet": "00"}}),
                            ["META.json, sha256: {'alerts.parquet': '00'}, expected an object of 64 hex digits"]),
    "META date": (dict(meta={"processing_date": "2025-09-02"}), ["META.json, processing_date: 2025-09-02, but the tables have 2025-09-01"]),
    "META no date": (dict(meta={"processing_date": "yesterday"}), ["META.json, processing_date: 'yesterday', expected a date"]),
    "META network": (dict(meta={"network": ["torus"]}), ["META.json, network: ['torus'], expected a text"]),
    "META absent file": (dict(money_flows=None, meta=lambda m: m | {"counts": m["counts"] | {"money_flows": 14}}),
                         ["META.json: names money_flows.parquet, which is absent"]),
    "META absent required file": (dict(clusters=None, meta=lambda m: m | {"counts": m["counts"] | {"clusters": 4}}),
                                  ["clusters.parquet: absent, and a batch needs it"]),
    "META path": (dict(meta={"sha256": {"../other/alerts.parquet": "0" * 64}}),
                  ["META.json, sha256: '../other/alerts.parquet' is not the name of a file in the batch folder"]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_alone(tmp_path, name):
    changes, parts = FAULTS[name]
    faults = refuse(tmp_path/"2025-09-01", **changes)
    assert len(faults) == 1, faults
    assert [p for p in parts if p not in faults[0]] == [], faults[0]


def test_the_tiny_batch_itself_is_fine(tmp_path):
    batch = read_batch(tiny_batch(tmp_path))
    assert batch.counts["alerts"] == 12 and batch.sha256["alerts.parquet"] == sha256_file(tmp_path/"alerts.parquet")
    assert sorted(batch.sha256) == sorted(t.file for t in TABLES.values())


def test_faults_of_several_tables_come_together(tmp_path):
    names = ["negative alert", "severity of a cluster", "flag 3", "no parquet", "confidence of a label"]
    changes = {k: v for n in names for k, v in FAULTS[n][0].items()}
    both = lambda a: put("severity", [5], "worst")(put("volume_usd", [0, 3], Decimal("-0.01"))(a))
    faults = refuse(tmp_path, **(changes | dict(alerts=both, meta={"network": 1})))
    assert len(faults) == 7, faults
    for n in names: assert any(all(p in f for p in FAULTS[n][1]) for f in faults), n
    assert any("'worst'" in f for f in faults) and any("META.json, network: 1" in f for f in faults)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_parquet(tmp_path, share):
    folder = tiny_batch(tmp_path, meta=None)
    path = folder/"features.parquet"
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * share)])
    with pytest.raises(BatchError, match="features.parquet: cannot be read as parquet"): read_batch(folder)


def test_damaged_footer_is_no_crash(tmp_path):
    folder = tiny_batch(tmp_path, meta=None)
    path = folder/"clusters.parquet"
    good = path.read_bytes()
    size = struct.unpack("<I", good[-8:-4])[0]
    rng = random.Random(0)
    for _ in range(25):
        bad = bytearray(good)
        for _ in range(3): bad[len(good) - 8 - rng.randrange(1, size)] = rng.randrange(256)
        path.write_bytes(bytes(bad))
        try: read_batch(folder)
        except BatchError as e: assert "clusters.parquet" in str(e)


def test_one_flipped_byte_is_found_by_the_checksum(tmp_path):
    folder = tiny_batch(tmp_path)
    path = folder/"money_flows.parquet"
    bytes_ = bytearray(path.read_bytes())
    bytes_[100] ^= 1
    path.write_bytes(bytes(bytes_))
    with pytest.raises(BatchError, match="META.json, sha256.money_flows.parquet"): read_batch(folder)


def test_checksum_in_capitals_and_unknown_entries_are_fine(tmp_path):
    tiny_batch(tmp_path, meta=lambda m: {"sha256": {k: v.upper() for k, v in m["sha256"].items()} | {"extra.parquet": "0" * 64, "alerts.parquet": None},
                                         "counts": {"something": 3, "alerts": None}, "network": None, "future": [1]})
    assert read_batch(tmp_path).network == "torus"  # of its flows


def test_meta_never_reads_outside_of_the_batch(tmp_path):
    secret = tmp_path/"secret.parquet"
    secret.write_bytes(b"secret")
    faults = refuse(tmp_path/"batch", meta={"sha256": {"../secret.parquet": "0" * 64, str(secret): "0" * 64}})
    assert len(faults) == 2 and not any(sha256_file(secret)[:8] in f for f in faults)


def test_links_out_of_the_directory(tmp_path):
    outside = tiny_batch(tmp_path/"outside")
    data = tmp_path/"data"
    tiny_batch(data/"a")
    (data/"linked").symlink_to(outside, target_is_directory=True)
    assert [b.path.name for b in BatchDataLoader(data)] == ["a"]
    (data/"a"/"money_flows.parquet").unlink()
    (data/"a"/"money_flows.parquet").symlink_to(outside/"money_flows.parquet")
    with pytest.raises(BatchError, match="money_flows.parquet: is a link out of"): list(BatchDataLoader(data))
    (data/"a"/"money_flows.parquet").unlink()
    (data/".store").mkdir()
    shutil.copy(outside/"money_flows.parquet", data/".store"/"m")
    (data/"a"/"money_flows.parquet").symlink_to(data/".store"/"m")
    assert list_batches(data).money_flows.tolist() == [14]
    (data/"a"/"money_flows.parquet").unlink()
    (data/"a"/"money_flows.parquet").symlink_to(data/"nothing")
    with pytest.raises(BatchError, match="money_flows.parquet: is not a file"): list(BatchDataLoader(data))


def test_a_folder_instead_of_a_file(tmp_path):
    tiny_batch(tmp_path, money_flows=None)
    (tmp_path/"money_flows.parquet").mkdir()
    with pytest.raises(BatchError, match="money_flows.parquet: is not a file but a folder"): read_batch(tmp_path)


@pytest.mark.parametrize("name", ["it's", 'a "b"', "ünï 日本", "a b", "x[1]*?", "key=value", "window_days=9", "%s {} {0}", "-- ;drop", "<red>"])
def test_paths(tmp_path, name):
    root = tmp_path/name
    tiny_batch(root/name)
    tiny_batch(root/name.replace("[1]", "1"), "2025-09-02")
    batches = list(BatchDataLoader(root))
    assert [len(b.alerts) for b in batches] == [12] * len(batches)
    assert batches[0].alerts.window_days.tolist() == tiny_tables()["alerts"].window_days.tolist()


def test_order_is_that_of_the_tables_dates(tmp_path):
    for folder, day in [("z", "2025-01-01"), ("2025-01-01", "2025-03-01"), ("net/2025-02-02/7", "2025-02-01"), ("a", "2025-02-01")]:
        tiny_batch(tmp_path/folder, day, meta=None, alerts=(lambda a: a.head(11)) if folder == "a" else (lambda a: a))
    for folder in (".hidden", "_old", "x.tmp", "2025~", "sub/.hidden"): tiny_batch(tmp_path/folder, "2025-05-01")
    loader = BatchDataLoader(tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in loader.find_batches()] == ["z", "a", "net/2025-02-02/7", "2025-01-01"]
    assert [b.processing_date for b in loader] == [date(2025, 1, 1), date(2025, 2, 1), date(2025, 2, 1), date(2025, 3, 1)]
    assert loader.load_batch("net/2025-02-02/7").network == "net"


def test_labels_are_required_of_the_directory_only(tmp_path):
    open_ = dict(alerts=lambda a: a.assign(ground_truth=None))
    tiny_batch(tmp_path/"a", "2025-09-01", **open_)
    loader = BatchDataLoader(tmp_path, require_labels=True)
    assert loader.load_batch("a").counts["unlabelled"] == 12
    with pytest.raises(BatchError, match="no label"): list(loader)
    tiny_batch(tmp_path/"b", "2025-09-02")
    assert len(list(loader)) == 2
    tiny_batch(tmp_path/"c", "2025-09-03", **open_)
    assert [b.counts["unlabelled"] for b in loader] == [12, 2, 12]
    shutil.rmtree(tmp_path/"c")
    without = dict(alerts=lambda a: a.drop(columns="ground_truth"), address_labels=None)
    for name, day in [("a", "2025-09-01"), ("b", "2025-09-02")]: tiny_batch(tmp_path/name, day, **without)
    assert [b.label_source for b in BatchDataLoader(tmp_path)] == ["none", "none"]
    with pytest.raises(BatchError, match="no label"): list(loader)


def test_address_labels_stand_in_only_for_an_absent_column(tmp_path):
    labels = lambda frame: frame.assign(risk_level=frame.risk_level.str.upper())
    derived = read_batch(tiny_batch(tmp_path, alerts=lambda a: a.drop(columns="ground_truth"), address_labels=labels))
    truth = derived.alerts.groupby("address").ground_truth.first()
    assert truth.dropna().astype(int).to_dict() == {"carol": 1, "dave": 1, "erin": 0} and derived.label_source == "address_labels"
    assert "4 illicit, 1 licit, 7 unknown" in derived.notes[-1]
    assert derived.tables["alerts"].to_pandas().ground_truth.isna().all()
    kept = read_batch(tiny_batch(tmp_path, alerts=lambda a: a.assign(ground_truth=None), address_labels=labels))
    assert kept.alerts.ground_truth.isna().all() and kept.label_source == "alerts"
    other = read_batch(tiny_batch(tmp_path, alerts=lambda a: a.drop(columns="ground_truth"), meta={"network": "bitcoin"}))
    assert other.counts["unlabelled"] == 12


NOTES = {
    "evidence": (dict(alerts=put("evidence_json", [0, 1], "{broken")),
                 "alerts.parquet, column evidence_json: 2 rows not a JSON object, for example '{broken' at " + A01),
    "evidence list": (dict(alerts=put("evidence_json", [0], "[1]")), "alerts.parquet, column evidence_json: 1 row not a JSON object"),
    "list text": (dict(clusters=as_type("clusters", "addresses_involved", pa.string(), ["[\"alice\"]", "[", "", None])),
                  "clusters.parquet, column addresses_involved: 1 row not readable as a JSON list, for example '['"),
    "reference": (dict(clusters=put("related_alert_ids", [0], ["a01", "b77", "b78"])),
                  "clusters.parquet, column related_alert_ids: 2 references to an alert that is not in the batch, for example 'b77' in cluster 'c1'"),
    "other window": (dict(clusters=put("window_days", [3], 90)), "2 references to an alert that is not in the batch, for example 'a01' in cluster 'c4'"),
    "no alert": (dict(clusters=put("related_alert_ids", [1], None)),
                 "clusters.parquet, column related_alert_ids: 1 cluster without an alert, for example 'c2'"),
    "huge alert": (dict(alerts=put("volume_usd", [0], Decimal("1000000000000.01"))),
                   "column volume_usd: 1 row above 1,000,000,000,000 US dollars, which each counts as, for example 1000000000000.01 at " + A01),
    "huge net outflow": (dict(features=put("net_flow_usd", [0], Decimal(-2 * 10**12))), "column net_flow_usd: 1 row above 1,000,000,000,000 US dollars"),
    "infinite alert": (dict(alerts=as_type("alerts", "volume_usd", USD, [*alerts_usd[:11], INF])),
                       "alerts.parquet, column volume_usd: 1 row above 1,000,000,000,000 US dollars, which each counts as, for example inf at window_days=30"),
    "infinite profile": (dict(features=as_type("features", "max_tx_usd", USD, [INF] + [1.] * 8)), "column max_tx_usd: 1 row above 1,000,000,000,000"),
    "absurd flow": (dict(money_flows=as_type("money_flows", "amount_usd", USD, [1.15e59, *flows_usd[1:]])),
                    "money_flows.parquet, column amount_usd: 1 row above 1,000,000,000,000 US dollars, which each counts as, for example 1.15e+59 at"),
    "every flow twice": (dict(money_flows=lambda f: pd.concat([f, f])), "money_flows.parquet: 14 rows saying the same as another one, for example at tx_hash="),
    "flow at 0": (dict(money_flows=put("timestamp", [0, 1], 0)),
                  "money_flows.parquet, column timestamp: 2 rows before 1990, for example 0 at tx_hash='0x0000'"),
    "upper-case label column": (dict(clusters=lambda c: native_table(TABLES["clusters"], c.assign(x=None)).rename_columns({"x": "Ground_Truth"})),
                                "clusters.parquet: column ground_truth is absent; there is 'Ground_Truth'"),
    "other network": (dict(meta={"network": "bsc"}), "money_flows.parquet, column network: 'torus', in a batch of 'bsc'"),
    "late flow": (dict(money_flows=put("timestamp", [0], 1756771200000)),
                  "money_flows.parquet, column timestamp: 1 row after the end of 2025-09-01, for example 1756771200000"),
    "no severity": (dict(alerts=put("severity", [0], None)), "alerts.parquet, column severity: 1 row null or empty"),
    "label twice": (dict(address_labels=lambda a: pd.concat([a, a.head(1)])), "address_labels.parquet, columns network, address, label: 1 row repeating a key"),
    "columns": (dict(features=lambda f: f.drop(columns=["pagerank", "kcore"])), "features.parquet: 2 columns absent: pagerank, kcore"),
    "no META": (dict(meta=None), "no checksums in META.json to hold the files against"),
    "no checksums": (dict(meta={"sha256": {}}), "no checksums in META.json to hold the files against"),
    "a checksum less": (dict(meta=lambda m: m | {"sha256": m["sha256"] | {"alerts.parquet": None}}),
                        "no checksums in META.json to hold alerts.parquet against"),
}


@pytest.mark.parametrize("name", NOTES)
def test_notes(tmp_path, name):
    changes, text = NOTES[name]
    notes = read_batch(tiny_batch(tmp_path, **changes)).notes
    assert len([n for n in notes if "'gina'" not in n]) == 1 and any(text in n for n in notes), notes


def test_empty_tables(tmp_path):
    empty = read_batch(tiny_batch(tmp_path, clusters=lambda c: c.head(0), money_flows=lambda f: f.head(0)))
    assert len(empty.clusters) == 0 and len(empty.money_flows) == 0 and "related_alert_ids" in empty.clusters
    nothing = {name: (lambda f: f.head(0)) for name in ("alerts", "features", "clusters")}
    assert str(read_batch(tiny_batch(tmp_path, **nothing)).processing_date) == "2025-09-01"
    undated = tiny_batch(tmp_path/"x", **nothing, meta=None)
    with pytest.raises(BatchError, match="neither META.json nor the path tells the processing date"): read_batch(undated)
    assert str(read_batch(tiny_batch(tmp_path/"2025-09-05", **nothing, meta=None)).processing_date) == "2025-09-05"


def to_float(table, rng):
    return pa.table({f.name: table[f.name].cast(pa.float64()) if pa.types.is_decimal(f.type) else table[f.name] for f in table.schema})


def to_json_lists(table, rng):
    lists = {f.name: pa.array([None if v is None else json.dumps(v) for v in table[f.name].to_pylist()], pa.string())
             for f in table.schema if pa.types.is_list(f.type)}
    return pa.table({n: lists.get(n, table[n]) for n in table.column_names})


def to_capitals(table, rng):
    return pa.table({n: pc.utf8_upper(table[n]) if n in SEVERITY_COLUMNS else table[n] for n in table.column_names})


def to_other_names(table, rng):
    return table.rename_columns([{"source_address": "from_address", "dest_address": "to_address"}.get(n, n) for n in table.column_names])


def to_other_order(table, rng):
    return table.select(rng.sample(table.column_names, len(table.column_names)))


def with_more_columns(table, rng):
    return table.append_column('x"; DROP', pa.array([[{"a": 1}]] * len(table))).append_column("window", pa.nulls(len(table)))


def to_number_flags(table, rng):
    t = rng.choice([pa.int8(), pa.float32(), pa.uint64()])
    flag = lambda f: pa.types.is_boolean(f.type) or f.name == "ground_truth"
    return pa.table({f.name: table[f.name].cast(t) if flag(f) else table[f.name] for f in table.schema})


def to_wide_integers(table, rng):
    t = rng.choice([pa.int64(), pa.float64()])
    small = lambda f: pa.types.is_integer(f.type) and f.type.bit_width < 64
    return pa.table({f.name: table[f.name].cast(t) if small(f) else table[f.name] for f in table.schema})


def to_timestamps(table, rng):
    t = rng.choice([pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("us", "UTC")])
    return pa.table({f.name: table[f.name].cast(pa.timestamp("ms")).cast(t) if pa.types.is_date(f.type) else table[f.name] for f in table.schema})


def to_other_texts(table, rng):
    t = rng.choice(["large", "dictionary", "binary"])
    def change(a): return a.cast(pa.large_string()) if t == "large" else a.dictionary_encode() if t == "dictionary" else a.cast(pa.binary())
    return pa.table({f.name: change(table[f.name]) if pa.types.is_string(f.type) else table[f.name] for f in table.schema})


HABITS = [to_json_lists, to_float, to_capitals, to_other_names, to_other_order, with_more_columns, to_number_flags, to_wide_integers, to_timestamps,
          to_other_texts]


def write_variant(folder, source, habits, rng):
    "Write a batch again as another producer would."
    folder.mkdir()
    for table in TABLES.values():
        data = pq.read_table(source/table.file)
        for habit in habits: data = habit(data, rng)
        pq.write_table(data, folder/table.file, row_group_size=rng.choice([1, 5, 1000]), compression=rng.choice(["snappy", "zstd", "none"]),
                       write_statistics=rng.random() < .5, use_dictionary=rng.random() < .5)
    return folder


@pytest.mark.parametrize("seed", range(30))
def test_every_producer_gives_the_same_tables(tmp_path, seed):
    rng = random.Random(seed)
    source = tiny_batch(tmp_path/"native", meta=None)
    habits = [HABITS[seed]] if seed < len(HABITS) else [h for h in HABITS if rng.random() < .5]
    native, other = read_batch(source), read_batch(write_variant(tmp_path/"other", source, habits, rng))
    assert (native.counts, native.notes, native.windows) == (other.counts, other.notes, other.windows)
    for name in TABLES:
        a, b = native.tables[name].to_pandas(), other.tables[name].to_pandas()
        assert list(a.columns) == TABLES[name].names()
        pd.testing.assert_frame_equal(a, b, obj=f"{name} after {[h.__name__ for h in habits]}")


@pytest.mark.parametrize("kind", ["absent", "null", "NaN"])
def test_absent_and_all_null_columns_read_the_same(tmp_path, kind):
    optional = {name: [c.name for c in t.columns if not c.required and c.name in tiny_tables()[name]] for name, t in TABLES.items()}
    def change(name):
        def to(frame):
            table = native_table(TABLES[name], frame)
            if kind == "absent": return table.drop_columns(optional[name])
            for c in optional[name]:
                values = pa.nulls(len(frame)) if kind == "null" else pa.array([NAN] * len(frame), pa.float64(), from_pandas=False)
                table = table.set_column(table.column_names.index(c), c, values)
            return table
        return to
    batch = read_batch(tiny_batch(tmp_path, **{name: change(name) for name in TABLES}))
    for name, frame in {"alerts": batch.tables["alerts"].to_pandas(), "features": batch.features, "clusters": batch.clusters}.items():
        assert frame[optional[name]].isna().all().all(), name
        assert frame[[c.name for c in TABLES[name].columns if c.required]].notna().all().all()
    assert batch.counts["unlabelled"] == 12


def test_nan_is_unknown_among_known_values(tmp_path):
    some = lambda good: [NAN if i % 3 == 0 else good for i in range(12)]
    batch = read_batch(tiny_batch(
        tmp_path, alerts=as_type("alerts", "alert_confidence_score", pa.float32(), some(.5)),
        features=as_type("features", "median_tx_in_usd", USD, some(2.5)[:9]),
        clusters=as_type("clusters", "total_volume_usd", USD, some(1.)[:4])))
    assert batch.alerts.alert_confidence_score.isna().sum() == 4 and batch.features.median_tx_in_usd.isna().sum() == 3
    assert batch.clusters.total_volume_usd.isna().tolist() == [True, False, False, True]
    truth = as_type("alerts", "ground_truth", pa.float64(), some(1.))
    assert read_batch(tiny_batch(tmp_path, alerts=truth)).counts["unlabelled"] == 4
    faults = refuse(tmp_path, alerts=as_type("alerts", "alert_confidence_score", pa.float32(), [NAN, 5.] + [.5] * 10))
    assert len(faults) == 1 and "1 row outside [0, 1], for example 5.0" in faults[0] and "alert_id='a02'" in faults[0]


@pytest.mark.parametrize("decimal", [pa.decimal128(10, 2), pa.decimal128(18, 9), pa.decimal128(38, 30), pa.decimal32(9, 2), pa.decimal64(18, 6)])
def test_decimals_of_any_width(tmp_path, decimal):
    values = [Decimal(v) for v in (1, 2, "2.25", 4, 5, 6, 7, 8, 9, 10, 11, 12)]
    batch = read_batch(tiny_batch(tmp_path, alerts=as_type("alerts", "volume_usd", decimal, values)))
    assert batch.alerts.volume_usd.tolist() == [float(v) for v in values]
    with pytest.raises(BatchError, match="1 row negative, for example -2.25"):
        read_batch(tiny_batch(tmp_path, alerts=as_type("alerts", "volume_usd", decimal, [-values[2], *values[1:]])))


def test_nothing_depends_on_the_working_directory(tmp_path, monkeypatch):
    tiny_batch(tmp_path/"data"/"2025-09-01")
    monkeypatch.chdir(tmp_path)
    here = BatchDataLoader("data")
    monkeypatch.chdir("/")
    assert list(BatchDataLoader(tmp_path/"data"))[0].sha256 == list(here)[0].sha256


def test_properties_read_again_and_share_nothing(tmp_path):
    batch = read_batch(tiny_batch(tmp_path, money_flows=None))
    alerts = batch.alerts
    alerts["ground_truth"] = 9
    assert batch.alerts.ground_truth.max() == 1 and batch.money_flows is None
    with pytest.raises(AttributeError): batch.network = "x"


@pytest.mark.parametrize("folder, batches, alerts, illicit", [
    ("schema_example", 1, 200, 10), ("torus_batches", 1, 1173, 204), ("torus_weekly_batches", 26, 9751, 1269)])
def test_real_batches(folder, batches, alerts, illicit):
    frame = list_batches(published(folder))
    assert (len(frame), frame.alerts.sum(), frame.illicit.sum()) == (batches, alerts, illicit)
    assert frame.processing_date.is_monotonic_increasing
