"Batches as others write them: letter case, networks that nothing names, folders of parts, dates that cannot be, two windows of a date."
from datetime import date
import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aml_miner.batches.checks import BatchError
from aml_miner.batches.history import HistoryStore, batch_pasts
from aml_miner.batches.loader import BatchDataLoader, far_date, folder_network, read_batch, read_batches
from aml_miner.batches.schema import TABLES
from aml_miner.config.model_config import load_config
from aml_miner.features.cluster_builder import ClusterFeatureBuilder
from aml_miner.features.feature_builder import FeatureBuilder
from aml_miner.scoring.score_batch import find_batch
from aml_miner.testing.tiny_batch import tiny_batch, tiny_tables

ALL_WORDS = load_config(overrides={"feature_engineering": {"min_category_rows": 1}}).feature_engineering


@pytest.mark.parametrize("builder", [FeatureBuilder, ClusterFeatureBuilder])
def test_words_that_differ_in_case_have_columns_of_their_own(tmp_path, builder):
    "Risk indicators, evidence keys, typologies, cluster types: none takes the place of another one, and each value stands where it belongs."
    evidence = [json.dumps({"amountUsd" if i % 2 else "amountUSD": i, "Hops" if i % 3 else "hops": [0] * i}) for i in range(12)]
    cased = dict(alerts=lambda a: a.assign(risk_indicators=[["RAPID"] if i % 2 else ["rapid"] for i in range(12)], evidence_json=evidence,
                                           typology_type=[t.title() if i % 2 else t for i, t in enumerate(a.typology_type)]),
                 clusters=lambda c: c.assign(cluster_type=["Cycle", "cycle", "CYCLE", "cycle"]))
    batch = read_batch(tiny_batch(tmp_path, **cased))
    X = builder(ALL_WORDS).learn_from([batch]).build(batch)
    assert len({c.lower() for c in X}) == X.shape[1]
    if builder is not FeatureBuilder: return
    flags = [c for c in X if c.startswith("indicator_")]
    assert len(flags) == 2 and (X[flags].sum(axis=1) == 1).all() and X[flags].sum().tolist() == [6, 6]
    amounts = [c for c in X if c.lower().startswith("evidence_amountusd")]
    assert len(amounts) == 2 and (X[amounts].notna().sum(axis=1) == 1).all() and sorted(X[amounts].max(axis=1)) == list(range(12))


def test_tables_whose_columns_differ_in_case_are_refused_wherever_they_come_in(tmp_path):
    alerts, rest = tiny_tables()["alerts"], [tiny_tables()[n] for n in ("features", "clusters", "money_flows")]
    batch = read_batch(tiny_batch(tmp_path/"a"))
    builder = FeatureBuilder(ALL_WORDS).learn_from([batch])
    for name in ("Address", "ADDRESS"):
        with pytest.raises(ValueError, match=f"alerts: columns 'address' and '{name}' differ in nothing but letter case"):
            builder.build_all_features(alerts.assign(**{name: "x"}), *rest)
    pq.write_table(pa.table({"Address": ["x"] * 12, "address": ["y"] * 12}), tmp_path/"odd.parquet")
    with pytest.raises(ValueError, match="alerts.parquet: columns 'Address' and 'address' differ"): builder.build_all_features(tmp_path/"odd.parquet", *rest)


LOWER = lambda s: s.map(lambda a: "0x" + a.encode().hex())
CHECKSUM = lambda s: s.map(lambda a: "0x" + "".join(c.upper() if i % 2 else c for i, c in enumerate(a.encode().hex())))
LISTS = lambda change: lambda s: s.map(lambda many: change(pd.Series(many, dtype=object)).tolist())


@pytest.mark.parametrize(("table", "note"), {
    "money_flows": "money_flows.parquet: 5 of 6 alerted addresses without a flow, 4 of them there in another letter case",
    "address_labels": "address_labels.parquet: 5 of 6 alerted addresses without a label, 3 of them there in another letter case",
    "features": "features.parquet: 5 of 6 alerted addresses without a profile, 4 of them there in another letter case",
    "clusters": "clusters.parquet: 5 of 6 alerted addresses without a cluster, 4 of them there in another letter case",
    "": ""}.items())
def test_addresses_in_another_letter_case_are_counted(tmp_path, table, note):
    of = lambda name: CHECKSUM if name == table else LOWER
    batch = read_batch(tiny_batch(
        tmp_path,
        alerts=lambda t: t.assign(address=LOWER(t.address)),
        features=lambda t: t.assign(address=of("features")(t.address)),
        money_flows=lambda t: t.assign(source_address=of("money_flows")(t.source_address), dest_address=of("money_flows")(t.dest_address)),
        address_labels=lambda t: t.assign(address=of("address_labels")(t.address)),
        clusters=lambda t: t.assign(addresses_involved=LISTS(of("clusters"))(t.addresses_involved))))
    cased = [n for n in batch.notes if "letter case" in n]
    assert len(cased) == bool(table) and all(n.startswith(note) for n in cased), batch.notes


def test_the_network_comes_from_whatever_names_it(tmp_path):
    nameless = dict(money_flows=lambda f: f.assign(network=None), address_labels=lambda a: a.assign(network=""))
    named = {
        "META.json": dict(meta={"network": "bsc"}, **nameless),
        "x/network=bsc/date=2025-09-01/window_days=7": dict(meta=None, **nameless),
        "bsc/2025-09-01/7": dict(meta=None, **nameless),
        "by its flows": dict(meta=None, money_flows=lambda f: f.assign(network="bsc")),
        "by its labels": dict(meta=None, money_flows=None, address_labels=lambda a: a.assign(network="bsc")),
    }
    for folder, changes in named.items():
        batch = read_batch(tiny_batch(tmp_path/folder, **changes))
        assert (folder, batch.network, folder_network(tmp_path/folder)) == (folder, "bsc", "bsc")
        assert not any("network unknown" in n for n in batch.notes)
    silent = read_batch(tiny_batch(tmp_path/"silent", meta=None, **nameless))
    assert silent.network == "" and any("network unknown: neither META.json nor path, flows or address labels name it" in n for n in silent.notes)
    two = read_batch(tiny_batch(tmp_path/"two", meta=None, money_flows=lambda f: f.assign(network=["bsc", "eth"] * 7), address_labels=None))
    assert two.network == "" and any("network unknown: money_flows.parquet names 'bsc', 'eth'" in n for n in two.notes)


def test_what_happened_on_one_chain_is_no_past_of_another(tmp_path):
    on = lambda chain: dict(meta=None, alerts=lambda a: a.assign(description=chain), money_flows=lambda f: f.assign(network=chain), address_labels=None)
    for chain in ("bsc", "eth"):
        for day in ("2025-08-01", "2025-09-01"): tiny_batch(tmp_path/f"{chain}/{day}", day, **on(chain))
    batches = read_batches(tmp_path)
    assert [b.network for b in batches] == ["bsc", "eth"] * 2
    pasts = batch_pasts(batches, load_config().feature_engineering)
    assert [len(p.alerts) for p in pasts] == [0, 0, 12, 12] and [p.n_batches for p in pasts] == [0, 0, 1, 1]


def test_two_batches_of_a_date_whose_networks_nothing_tells_are_refused(tmp_path):
    nameless = dict(meta=None, money_flows=None, address_labels=None)
    tiny_batch(tmp_path/"chain a/export", **nameless)
    tiny_batch(tmp_path/"chain b/export", alerts=lambda a: a.assign(description="b"), **nameless)
    with pytest.raises(BatchError, match="chain b/export repeats .*chain a/export: the same date 2025-09-01 and window 7, and nothing tells the"):
        read_batches(tmp_path)


def test_a_history_learns_the_network_of_what_it_kept_without(tmp_path):
    data = tmp_path/"data"
    silent = dict(meta=None, address_labels=None, money_flows=lambda f: f.assign(network=None))
    for day in ("2025-09-01", "2025-09-02"): tiny_batch(data/day, day, **silent)
    with HistoryStore(tmp_path/"h.duckdb") as store:
        assert store.update(data) == 2 and store.update(data) == 0 and {*store.batches().network} == {""}
        tiny_batch(data/"2025-09-02", "2025-09-02", meta={"network": "bsc"}, address_labels=None)
        assert store.update(data) == 1 and store.update(data) == 0 and {*store.batches().network} == {"", "bsc"}


def as_parts(path):
    table = pq.read_table(path)
    path.unlink()
    path.mkdir()
    for i in range(2): pq.write_table(table.slice(i * 6, 6), path/f"part-0000{i}-x.snappy.parquet")
    (path/"_SUCCESS").touch()


@pytest.mark.parametrize("name", [t.file for t in TABLES.values()])
def test_a_folder_of_parts_is_told(tmp_path, name):
    as_parts(tiny_batch(tmp_path/"2025-09-01", meta=None)/name)
    assert len(BatchDataLoader(tmp_path).find_batches()) == 1
    with pytest.raises(BatchError, match=f"{name}: is not a file but a folder of 2 parts in parquet"): list(BatchDataLoader(tmp_path))
    (tmp_path/"2025-09-01"/name/"_delta_log").mkdir()
    with pytest.raises(BatchError, match=f"{name}: is not a file but a folder, a Delta table"): read_batch(tmp_path/"2025-09-01")


@pytest.mark.parametrize(("log", "what"), [("_delta_log", "alerts is a folder, a Delta table"), (None, "alerts is a folder of 1 part in parquet"),
                                           ("metadata", "alerts is a folder, an Iceberg table")])
def test_a_directory_of_tables_that_is_no_batch_is_told(tmp_path, log, what):
    (tmp_path/"lake"/"alerts").mkdir(parents=True)
    pq.write_table(pa.table({"a": [1]}), tmp_path/"lake"/"alerts"/"part-0.parquet")
    if log: (tmp_path/"lake"/"alerts"/log).mkdir()
    with pytest.raises(BatchError, match=f"no batch: .*; {what}"): BatchDataLoader(tmp_path/"lake").find_batches()


@pytest.mark.parametrize("day", [date(9999, 12, 31), date(1970, 1, 1), date(1899, 12, 30), date(1, 1, 1)])
def test_a_date_that_means_none_is_never_the_newest(tmp_path, day):
    tiny_batch(tmp_path/"good")
    put = lambda t: t.assign(processing_date=day)
    tiny_batch(tmp_path/"odd", meta=None, alerts=put, features=put, clusters=put)
    with pytest.raises(BatchError, match=f"processing_date: 12 rows not of 1990-01-01 to 2099-12-31, for example {day}"): read_batch(tmp_path/"odd")
    with pytest.raises(BatchError): list(BatchDataLoader(tmp_path))
    if day.year == 9999:
        with pytest.raises(BatchError, match="9999-12-31"): read_batch(find_batch(tmp_path))
    else: assert find_batch(tmp_path).name == "good"
    nothing = {name: (lambda f: f.head(0)) for name in ("alerts", "features", "clusters")}
    with pytest.raises(BatchError, match="neither META.json nor the path"): read_batch(tiny_batch(tmp_path/str(day), **nothing, meta=None))
    with pytest.raises(BatchError, match=f"META.json, processing_date: '{day}', expected a date from 1990-01-01"):
        read_batch(tiny_batch(tmp_path/"empty", **nothing, meta={"processing_date": str(day)}))


def test_a_date_far_from_the_others_is_said():
    assert far_date([date(2024, 9, 1), date(2025, 9, 2)]) is None and far_date([]) is None and far_date([date(2025, 9, 1)] * 2) is None
    assert far_date([date(2025, 9, 1), date.max]) is None
    assert far_date([date(2026, 9, 3), date(2024, 1, 1), date(2025, 9, 1),
                     date.max]) == "the newest date 2026-09-03 is 367 days after the one before it, 2025-09-01"


def test_two_windows_of_a_date_are_never_one(tmp_path):
    "In one table both are scored; in two folders the choice is left to whoever asks, and history and training take both."
    for window in (7, 30):
        mine = lambda t, w=window: t[t.window_days == w]
        tiny_batch(tmp_path/f"torus/2025-09-01/{window}", alerts=mine, features=mine, clusters=mine, meta={"window_days": window})
    with pytest.raises(BatchError, match="2 batches are of the newest date 2025-09-01: torus/2025-09-01/30, torus/2025-09-01/7; name the folder"):
        find_batch(tmp_path)
    assert find_batch(tmp_path/"torus/2025-09-01/30").name == "30"
    batches = read_batches(tmp_path)
    assert [len(FeatureBuilder(ALL_WORDS).learn_from(batches).build(b)) for b in batches] in ([10, 2], [2, 10])
    with HistoryStore() as store:
        for batch in batches: store.add(batch)
        assert sorted(store.batches().window_days) == [7, 30] and store.batches().n_alerts.sum() == 12


def test_an_absurd_flow_counts_as_a_trillion_in_whatever_form_it_comes(tmp_path):
    columns = {}
    for name, usd in {"trillion": 1e12, "quadrillion": 4.5e15, "uint256": 1.15e59, "infinite": float("inf")}.items():
        put = lambda f, usd=usd: f.assign(amount_usd=[usd if i == 4 else float(v) for i, v in enumerate(f.amount_usd)])
        frame = put(tiny_tables()["money_flows"])
        batch = read_batch(tiny_batch(tmp_path/name, money_flows=pa.Table.from_pandas(frame, preserve_index=False)))
        assert sum("above 1,000,000,000,000 US dollars" in n for n in batch.notes) == (usd > 1e12)
        columns[name] = FeatureBuilder(ALL_WORDS).learn_from([batch]).build(batch)
        assert batch.money_flows.amount_usd.max() == 1e12
    for name in ("quadrillion", "uint256", "infinite"): pd.testing.assert_frame_equal(columns[name], columns["trillion"])
    shutil.rmtree(tmp_path)
    assert np.isfinite(columns["uint256"].select_dtypes("number").max().max())
