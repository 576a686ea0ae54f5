"""Laws of the feature matrix that cut across the notebooks: no leak, no dependence on order, threads, process or producer."""
from datetime import timedelta
import hashlib
import json
import os
from pathlib import Path
import subprocess
import sys

import lightgbm as lgb
from conftest import published
import numpy as np
import pandas as pd
import pytest

from aml_miner.batches.loader import BatchDataLoader
from aml_miner.batches.native_types import native_table
from aml_miner.batches.schema import TABLES
from aml_miner.config.model_config import load_config
from aml_miner.features.feature_builder import FeatureBuilder
from aml_miner.features.vocabulary import Vocabulary, is_forbidden_key
from aml_miner.testing.tiny_batch import tiny_batch, tiny_tables
from aml_miner.utils.files import project_root

NAMES = ("alerts", "features", "clusters", "money_flows")
CONFIG = load_config(overrides={"feature_engineering": {"min_category_rows": 1}}).feature_engineering


def learned(tables=None) -> FeatureBuilder:
    tables = tables or tiny_tables()
    return FeatureBuilder(CONFIG).learn_vocabulary(*([tables[n]] for n in NAMES[:3]))


def build(tables, builder=None, **changes):
    tables = tables | changes
    return (builder or learned()).build_all_features(*(tables.get(n) for n in NAMES))


def digest(X: pd.DataFrame) -> str:
    "SHA-256 over index, names, types and bytes of every column."
    seen = hashlib.sha256("|".join(map(str, [*X.index, *X.columns, *X.dtypes])).encode())
    for c in X: seen.update((X[c].cat.codes if X[c].dtype == "category" else X[c]).to_numpy().tobytes())
    return seen.hexdigest()


@pytest.fixture(scope="module")
def tables(): return tiny_tables()


@pytest.fixture(scope="module")
def X(tables): return build(tables)


# What must never be a feature: (table, column, another value for a row)
FORBIDDEN = [
    ("alerts", "description", lambda i: f"illicit {i}"), ("alerts", "pattern_id", lambda i: f"p{i}"), ("alerts", "_version", lambda i: i + 7),
    ("alerts", "ground_truth", lambda i: i % 2), ("features", "community_id", lambda i: i * 31), ("features", "_version", lambda i: i + 7),
    ("clusters", "pattern_id", lambda i: f"p{i}"), ("clusters", "_version", lambda i: i + 7), ("clusters", "cluster_id", lambda i: f"other {9 - i}"),
    ("clusters", "ground_truth", lambda i: i % 2), ("money_flows", "tx_hash", lambda i: f"0xff{i}"), ("money_flows", "network", lambda i: "bittensor"),
    ("money_flows", "block_number", lambda i: i * 977), ("money_flows", "asset", lambda i: "TAO"),
]


@pytest.mark.parametrize("table, column, value", FORBIDDEN, ids=[f"{t}.{c}" for t, c, _ in FORBIDDEN])
def test_identifiers_labels_and_versions_change_nothing(tables, X, table, column, value):
    changed = tables[table].assign(**{column: [value(i) for i in range(len(tables[table]))]})
    assert digest(build(tables, **{table: changed})) == digest(X)
    assert digest(build(tables, learned(tables | {table: changed}))) == digest(X)  # nor does the vocabulary look at it
    if column not in ("asset", "network"): assert not [c for c in X if column.strip("_") in c]


def test_no_identifier_or_date_is_a_column(X):
    banned = {"alert_id", "address", "processing_date", "window_days", "cluster_id", "tx_hash", "block_number", "ground_truth", "risk_level", "trust_level"}
    for column in X: assert not banned & {column, *(column.removeprefix(p) for p in ("alert_", "address_", "cluster_", "flow_"))}, column
    assert not [c for c in X if c.endswith("timestamp")]


def test_address_labels_are_not_even_an_argument(tables, X):
    assert digest(build(tables | {"address_labels": tables["address_labels"].head(0)})) == digest(X)


def test_names_of_addresses_and_alerts_do_not_matter(tables, X):
    "Other names for addresses, alerts and transactions: the same rows, by their old order."
    def name(x): return x if pd.isna(x) else f"{x}_renamed"  # keeps the sort order of the keys
    renamed = {n: f.copy() for n, f in tables.items()}
    for table, columns in {"alerts": ["address", "alert_id"], "features": ["address"], "clusters": ["primary_address", "primary_alert_id", "cluster_id"],
                           "money_flows": ["source_address", "dest_address", "tx_hash"]}.items():
        for c in columns: renamed[table][c] = renamed[table][c].map(name)
    for c in ("related_alert_ids", "addresses_involved"): renamed["clusters"][c] = renamed["clusters"][c].map(lambda xs: [name(x) for x in xs])
    other = build(renamed, learned())
    pd.testing.assert_frame_equal(other.reset_index(drop=True), X.reset_index(drop=True))


def test_a_batch_moved_in_time_has_the_same_features(tables, X):
    "No absolute time gets in: everything 364 days later, the same matrix."
    days = 364
    moved = {}
    for name, frame in tables.items():
        frame = frame.copy()
        if "processing_date" in frame: frame["processing_date"] = [d + timedelta(days=days) for d in frame.processing_date]
        for c in frame.columns[frame.columns.str.contains("timestamp")]: frame[c] = frame[c] + days * 86_400_000
        moved[name] = frame
    pd.testing.assert_frame_equal(build(moved, learned()).reset_index(drop=True), X.reset_index(drop=True))


def test_an_outcome_hidden_in_the_evidence_gets_no_column(tables):
    "Keys that name labels, identifiers and points in time are left out, whatever they hold."
    keys = ["ground_truth", "label", "is_sar", "alert_id", "block_number", "first_seen_timestamp", "created_at", "event_time", "illicit"]
    assert all(map(is_forbidden_key, keys))
    alerts = tables["alerts"].assign(evidence_json=[json.dumps({k: i % 2 for k in keys} | {"fine": i}) for i in range(12)])
    builder = FeatureBuilder(CONFIG).learn_vocabulary([alerts])
    assert [n for n in builder.feature_names if n.startswith("evidence_")] == ["evidence_fine"]


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_row_order_and_threads_do_not_matter(tables, X, threads, seed):
    shuffled = {n: f.sample(frac=1, random_state=seed * 10 + i) for i, (n, f) in enumerate(tables.items())}
    builder = FeatureBuilder(CONFIG, learned(shuffled).vocabulary, threads)
    assert digest(build(shuffled, builder)) == digest(X)


_PROCESS = """
import sys; sys.path.insert(0, {tests!r})
from test_features import *
print(digest(build(tiny_tables())))
"""


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_another_process_and_folder_give_the_same_bytes(X, tmp_path, hash_seed):
    root = str(project_root(Path(__file__).parent))
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": root, "TZ": "Asia/Tokyo"}
    code = _PROCESS.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(X)


def test_many_flows_sum_exactly_whatever_their_order(tables):
    "Thirty thousand flows of odd amounts, shuffled, one and two threads: the same bytes."
    rng = np.random.default_rng(5)
    people = np.array(["alice", "bob", "carol", "dave", "erin", "mixer", "exchange", *map(str, range(40))])
    n, start = 30_000, tables["money_flows"].timestamp.max() - 5 * 86_400_000
    flows = pd.DataFrame({
        "source_address": rng.choice(people, n), "dest_address": rng.choice(people, n),
        "amount_usd": np.exp(rng.normal(6, 4, n)).clip(1e-6, 1e11), "timestamp": start + rng.integers(0, 4 * 86_400_000, n)})
    first = digest(build(tables, money_flows=flows))
    for seed in (1, 2):
        builder = FeatureBuilder(CONFIG, learned().vocabulary, seed)
        assert digest(build(tables, builder, money_flows=flows.sample(frac=1, random_state=seed))) == first


def test_flows_of_the_future_do_not_count(tables, X):
    end = 1_756_771_200_000  # 2025-09-02 00:00 UTC
    now = build(tables, money_flows=pd.concat([tables["money_flows"], tables["money_flows"].head(5).assign(timestamp=end - 1)]))
    later = build(tables, money_flows=pd.concat([tables["money_flows"], tables["money_flows"].head(5).assign(timestamp=end)]))
    assert digest(later) == digest(X) != digest(now)


def test_an_address_with_very_many_flows(tables):
    "Two hundred thousand flows of one address with as many counterparties."
    n = 200_000
    at = tables["money_flows"].timestamp[1]
    flows = pd.DataFrame({"source_address": [f"payer {i}" for i in range(n)], "dest_address": "alice", "amount_usd": 9_999.99, "timestamp": at + np.arange(n)})
    row = build(tables, money_flows=flows).iloc[0]
    assert (row.flow_in_count, row.flow_in_counterparties, row.flow_in_below_share, row.flow_in_std_usd) == (n, n, 1, pytest.approx(0, abs=.05))


@pytest.mark.parametrize("rows", [[0], [3, 11], [4, 5, 9]])
def test_a_request_for_some_alerts(tables, X, rows):
    "The same values but for the named columns that are defined on the whole batch."
    builder = learned()
    part = build(tables, builder, alerts=tables["alerts"].iloc[rows])
    own = [c for c in X if c not in builder.batch_features]
    pd.testing.assert_frame_equal(part[own], X.loc[part.index, own])
    assert len(builder.batch_features) < 20


def wide(tables):
    "A producer who writes floats, JSON texts, integers for flags, other names and columns of his own."
    t = {n: f.copy() for n, f in tables.items()}
    for name, frame in t.items():
        for column in TABLES[name].columns:
            if column.name not in frame: continue
            if column.kind == "usd": frame[column.name] = frame[column.name].astype(float)
            if column.kind in ("numbers", "texts"): frame[column.name] = frame[column.name].map(json.dumps)
            if column.kind == "flag" and name == "features": frame[column.name] = frame[column.name].astype(float)
            if column.kind == "count": frame[column.name] = frame[column.name].astype(float if frame[column.name].isna().any() else "int64")
        frame["extra"] = "his own"
        t[name] = frame[frame.columns[::-1]]
    t["alerts"]["severity"] = t["alerts"].severity.str.upper()
    t["money_flows"] = t["money_flows"].rename(columns={"source_address": "from_address", "dest_address": "to_address"})
    return t


def test_producers_differ_and_the_matrix_does_not(tables, X, tmp_path):
    pd.testing.assert_frame_equal(build(wide(tables), learned()), X)
    assert learned(wide(tables)).vocabulary == learned().vocabulary
    folder = tiny_batch(tmp_path/"it's a batch")
    files = {n: folder/f"{n}.parquet" for n in NAMES}
    pd.testing.assert_frame_equal(build(files), build({n: native_table(TABLES[n], tables[n]).to_pandas() for n in NAMES}))


def test_a_narrow_producer_leaves_nan_and_the_same_columns(tables, X):
    required = {n: [c.name for c in TABLES[n].columns if c.required] for n in NAMES}
    narrow = build({n: tables[n][required[n]] for n in NAMES})
    assert narrow.columns.equals(X.columns) and narrow.dtypes.equals(X.dtypes) and narrow.index.equals(X.index)
    both = narrow.notna() & X.notna()
    assert both.alert_volume_usd.all() and both.flow_in_count.all() and not both.address_pagerank.any()
    null = build({n: tables[n].assign(**{c: None for c in tables[n] if c not in required[n]}) for n in NAMES})
    pd.testing.assert_frame_equal(null, narrow)


def test_the_vocabulary_of_a_model_is_enough_to_build_again(tables, X):
    stored = json.loads(json.dumps(learned().vocabulary.to_dict()))
    assert digest(build(tables, FeatureBuilder(CONFIG, Vocabulary.from_dict(stored)))) == digest(X)


def test_lightgbm_takes_the_matrix_and_keeps_the_names(tables):
    strange = tables["alerts"].assign(risk_indicators=[['a"b', "a:b", "a,b", "{x}", "[y]", "доля"]] * 12,
                                      evidence_json=json.dumps({'a"b': 1, "a:b": 2, "a b": 3, "[z]": [1]}))
    builder = FeatureBuilder(CONFIG).learn_vocabulary([strange])
    matrix = build(tables, builder, alerts=strange)
    y = np.arange(len(matrix)) % 2
    model = lgb.train({"objective": "binary", "verbose": -1, "min_data_in_leaf": 1, "num_threads": 1}, lgb.Dataset(matrix, y), 3)
    assert model.feature_name() == list(matrix.columns) == builder.feature_names
    assert np.array_equal(lgb.Booster(model_str=model.model_to_string()).predict(matrix), model.predict(matrix))


REAL = ("torus_batches", "torus_weekly_batches", "schema_example")


@pytest.mark.parametrize("name", REAL)
def test_published_batches(name):
    folders = sorted(p.parent for p in published(name).glob("*/alerts.parquet"))
    chosen = folders[:3] + folders[-2:]
    builder = FeatureBuilder(load_config().feature_engineering).learn_vocabulary(*([f/f"{n}.parquet" for f in chosen] for n in NAMES[:3]))
    for folder in chosen:
        matrix = builder.build_all_features(*(folder/f"{n}.parquet" for n in NAMES))
        assert list(matrix.columns) == builder.feature_names and matrix.index.is_unique
        assert len(matrix) == len(pd.read_parquet(folder/"alerts.parquet", columns=["alert_id"]))
        assert not np.isinf(matrix.select_dtypes("number").to_numpy()).any()
        assert matrix.severity.between(1, 4).all() and matrix.alert_confidence_score.between(0, 1).all()
        assert matrix.flow_counterparties.notna().all() and (matrix.flow_counterparties > 0).any()


def test_amounts_without_a_sane_price(sample):
    "One token priced at a quadrillion stops no batch, and sums beyond 64 bits do not turn negative."
    batch = BatchDataLoader(sample).load_batch(sample / "2025-09-21")
    flows = batch.tables["money_flows"].to_pandas()
    config = load_config(overrides={"feature_engineering": {"groups": ["flow", "window", "pattern", "graph", "community", "smurfing"]}}).feature_engineering
    builder = FeatureBuilder(config).learn_from([batch])
    tables = [batch.tables[t] for t in ("alerts", "features", "clusters")]
    usual = builder.build_all_features(*tables, flows)
    for amounts in ([1e15, *flows.amount_usd[1:]], [1e12] * len(flows)):
        X = builder.build_all_features(*tables, flows.assign(amount_usd=amounts))
        assert (X[[c for c in X if "sum_usd" in c]].fillna(0) >= 0).all().all()
        assert X[[f.name for f in builder.features if f.unit == "0 to 1"]].fillna(0).stack().between(0, 1.0001).all()
    np.testing.assert_allclose(X.window_in_3d_sum_usd, X.window_in_3d_count * 1e12, rtol=1e-6)
    assert X.window_in_3d_count.equals(usual.window_in_3d_count)
