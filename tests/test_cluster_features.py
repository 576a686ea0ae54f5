"""Laws of the cluster matrix: no identifier or label gets in, nothing depends on order, threads, process, producer or other clusters."""
from datetime import timedelta
import hashlib
import json
import os
from pathlib import Path
import subprocess
import sys

from conftest import published
import numpy as np
import pandas as pd
import pytest

from aml_miner.batches.loader import read_batch
from aml_miner.config.model_config import load_config
from aml_miner.features.cluster_builder import ClusterFeatureBuilder
from aml_miner.features.vocabulary import Vocabulary
from aml_miner.testing.tiny_batch import tiny_tables
from aml_miner.utils.files import project_root
from test_features import FORBIDDEN, wide

NAMES = ("alerts", "features", "clusters", "money_flows")
CONFIG = load_config(overrides={"feature_engineering": {"min_category_rows": 1}}).feature_engineering


def learned(tables=None) -> ClusterFeatureBuilder:
    tables = tables or tiny_tables()
    return ClusterFeatureBuilder(CONFIG).learn_vocabulary(*([tables[n]] for n in NAMES[:3]))


def build(tables, builder=None, **changes):
    tables = tables | changes
    return (builder or learned()).build_all_features(*(tables.get(n) for n in NAMES))


def digest(X: pd.DataFrame) -> str:
    "SHA-256 over names, types and bytes of every column."
    seen = hashlib.sha256("|".join(map(str, [*X.columns, *X.dtypes])).encode())
    for c in X: seen.update((X[c].cat.codes if X[c].dtype == "category" else X[c]).to_numpy().tobytes())
    return seen.hexdigest()


@pytest.fixture(scope="module")
def tables(): return tiny_tables()


@pytest.fixture(scope="module")
def X(tables): return build(tables)


ALWAYS = [f for f in FORBIDDEN if f[1] != "cluster_id"] + [("clusters", "cluster_id", lambda i: f"z{i}")]  # other names in the same order


@pytest.mark.parametrize("table, column, value", ALWAYS, ids=[f"{t}.{c}" for t, c, _ in ALWAYS])
def test_identifiers_labels_and_versions_change_nothing(tables, X, table, column, value):
    changed = tables[table].assign(**{column: [value(i) for i in range(len(tables[table]))]})
    assert digest(build(tables, **{table: changed})) == digest(X)
    assert digest(build(tables, learned(tables | {table: changed}))) == digest(X)


def test_no_identifier_date_or_label_is_a_column(X):
    banned = {"id", "cluster_id", "alert_id", "address", "primary_address", "processing_date", "window_days", "tx_hash", "block_number", "ground_truth",
              "version", "pattern_id", "community_id", "primary_alert_id", "risk_level", "label"}
    for column in X: assert not banned & {column, *(column.removeprefix(p) for p in ("cluster_", "alerts_", "addresses_", "flows_"))}, column
    assert not [c for c in X if c.endswith("timestamp") or "ground_truth" in c]


def test_address_labels_do_not_matter(tables, X):
    assert digest(build(tables | {"address_labels": tables["address_labels"].assign(risk_level="critical")})) == digest(X)


def test_names_of_addresses_and_alerts_do_not_matter(tables, X):
    names = sorted({*tables["features"].address, *tables["alerts"].address, *tables["alerts"].alert_id})
    other = {n: hashlib.sha256(n.encode()).hexdigest() for n in names}
    renamed = {n: f.copy() for n, f in tables.items()}
    for table, columns in {"alerts": ["address", "alert_id"], "features": ["address"], "clusters": ["primary_address", "primary_alert_id"],
                           "money_flows": ["source_address", "dest_address"]}.items():
        for c in columns: renamed[table][c] = renamed[table][c].map(lambda x: other.get(x, x))
    for c in ("related_alert_ids", "addresses_involved"): renamed["clusters"][c] = renamed["clusters"][c].map(lambda xs: [other[x] for x in xs])
    assert digest(build(renamed, learned(renamed))) == digest(X)


def test_a_batch_moved_in_time_has_the_same_features(tables, X):
    moved = {}
    for name, frame in tables.items():
        frame = frame.copy()
        if "processing_date" in frame: frame["processing_date"] = [d + timedelta(days=364) for d in frame.processing_date]
        for c in frame.columns[frame.columns.str.contains("timestamp")]: frame[c] = frame[c] + 364 * 86_400_000
        moved[name] = frame
    assert digest(build(moved, learned(moved))) == digest(X)


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_row_order_and_threads_do_not_matter(tables, X, threads, seed):
    shuffled = {n: f.sample(frac=1, random_state=seed * 10 + i) for i, (n, f) in enumerate(tables.items())}
    for c in ("related_alert_ids", "addresses_involved"): shuffled["clusters"][c] = [list(reversed(x)) for x in shuffled["clusters"][c]]
    assert digest(build(shuffled, ClusterFeatureBuilder(CONFIG, learned(shuffled).vocabulary, threads))) == digest(X)


_PROCESS = """
import sys; sys.path.insert(0, {tests!r})
from test_cluster_features import *
print(digest(build(tiny_tables())))
"""


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_another_process_and_folder_give_the_same_bytes(X, tmp_path, hash_seed):
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(project_root(Path(__file__).parent)), "TZ": "Asia/Tokyo"}
    code = _PROCESS.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(X)


def test_many_flows_sum_exactly_whatever_their_order(tables):
    rng = np.random.default_rng(5)
    people = np.array(["alice", "bob", "carol", "dave", "erin", "mixer", "exchange", *map(str, range(40))])
    n, start = 30_000, tables["money_flows"].timestamp.max() - 5 * 86_400_000
    flows = pd.DataFrame({
        "source_address": rng.choice(people, n), "dest_address": rng.choice(people, n),
        "amount_usd": np.exp(rng.normal(6, 4, n)).clip(1e-6, 1e11), "timestamp": start + rng.integers(0, 4 * 86_400_000, n)})
    first = digest(build(tables, money_flows=flows))
    for seed in (1, 2):
        assert digest(build(tables, ClusterFeatureBuilder(CONFIG, learned().vocabulary, seed), money_flows=flows.sample(frac=1, random_state=seed))) == first


def test_flows_of_the_future_do_not_count(tables, X):
    end = 1_756_771_200_000  # 2025-09-02 00:00 UTC
    now, later = (build(tables, money_flows=pd.concat([tables["money_flows"], tables["money_flows"].head(5).assign(timestamp=t)])) for t in (end - 1, end))
    assert digest(later) == digest(X) != digest(now)


def test_a_cluster_alone_scores_as_among_others(tables, X):
    "Neither other clusters nor alerts outside of the cluster reach a row."
    for i in range(len(X)):
        cluster = tables["clusters"].iloc[[i]]
        inside = tables["alerts"].alert_id.isin(cluster.related_alert_ids.iloc[0]) & (tables["alerts"].window_days == cluster.window_days.iloc[0])
        pd.testing.assert_frame_equal(build(tables, clusters=cluster, alerts=tables["alerts"][inside]), X.iloc[[i]])


def test_producers_differ_and_the_matrix_does_not(tables, X):
    pd.testing.assert_frame_equal(build(wide(tables), learned()), X)


def test_the_vocabulary_of_a_model_is_enough_to_build_again(tables, X):
    stored = json.loads(json.dumps(learned().vocabulary.to_dict()))
    assert digest(build(tables, ClusterFeatureBuilder(CONFIG, Vocabulary.from_dict(stored)))) == digest(X)


def test_a_large_cluster_of_hubs(tables):
    "Two thousand addresses in a cluster, and a hub that is in a thousand clusters: no flow is joined with a flow."
    n = 2000
    people, day = [f"p{i:04}" for i in range(n)], tables["clusters"].processing_date.iloc[0]
    rng = np.random.default_rng(1)
    flows = pd.DataFrame({"source_address": rng.choice(people, 50_000), "dest_address": rng.choice([*people, "p0000"], 50_000), "amount_usd": 10.0,
                          "timestamp": tables["money_flows"].timestamp.iloc[1]})
    clusters = pd.DataFrame({"window_days": 7, "processing_date": day, "cluster_id": [f"k{i:04}" for i in range(1001)], "related_alert_ids": [[]] * 1001,
                             "addresses_involved": [people] + [["p0000", people[i + 1]] for i in range(1000)]})
    row = build(tables, clusters=clusters, money_flows=flows).iloc[0]
    moved = flows[flows.source_address != flows.dest_address]
    assert row.flows_inside_count == len(moved) and row.flows_inside_volume_share == 1
    assert row.flows_inside_pairs == len(moved.drop_duplicates(["source_address", "dest_address"]))


REAL = ("torus_batches", "torus_weekly_batches", "schema_example")


@pytest.mark.parametrize("name", REAL)
def test_published_batches(name):
    folders = sorted(p.parent for p in published(name).glob("*/alerts.parquet"))
    batches = [read_batch(f) for f in folders[:3] + folders[9:10] + folders[-2:]]
    builder = ClusterFeatureBuilder(load_config().feature_engineering).learn_from(batches)
    for batch in batches:
        matrix = builder.build(batch)
        assert list(matrix.columns) == builder.feature_names and matrix.index.is_unique and len(matrix) == batch.counts["clusters"]
        assert not np.isinf(matrix.select_dtypes("number").to_numpy()).any()
        if not len(matrix): continue
        assert (matrix.alerts_count > 0).all() and (matrix.flows_counterparties > 0).any()
        assert matrix.flows_inside_density.dropna().between(0, 1).all()
