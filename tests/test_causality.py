"""What a feature may know: the flows up to the processing date, and of earlier batches the alerts and the outcomes that were settled by then.

Nothing later moves any value."""
from dataclasses import replace

import pandas as pd
import pytest

from aml_miner.batches.history import batch_pasts
from aml_miner.batches.schema import ALERTS, MONEY_FLOWS, BatchTable
from aml_miner.config.model_config import load_config
from aml_miner.features.cluster_builder import ClusterFeatureBuilder
from aml_miner.features.feature_builder import FeatureBuilder
from aml_miner.features.spec import GROUPS
from aml_miner.training.alert_data import read_batches

DELAY, TODAY = 5, 12  # days until an outcome is known; the batch that is looked at


@pytest.fixture(scope="module")
def config():
    return load_config(overrides={"feature_engineering": {"groups": list(GROUPS), "label_delay_days": DELAY}}).feature_engineering


@pytest.fixture(scope="module")
def batches(sample):
    return read_batches(sample)[:TODAY + 4]


@pytest.fixture(scope="module", params=[FeatureBuilder, ClusterFeatureBuilder])
def builder(request, config, batches):
    return request.param(config).learn_from(batches[:TODAY])


def with_table(batch, table, frame):
    return replace(batch, tables=batch.tables | {table.name: BatchTable(table, frame)})


def turned(batch):
    "The batch with every label the other way round."
    alerts = batch.tables["alerts"].to_pandas()
    return with_table(batch, ALERTS, alerts.assign(ground_truth=1 - alerts.ground_truth.fillna(0)))


def built(builder, batches, config):
    "The matrix of today's batch, with what it may know of all the others."
    return builder.build(batches[TODAY], batch_pasts(batches, config)[TODAY])


@pytest.fixture(scope="module")
def expected(builder, batches, config):
    return built(builder, batches, config)


def test_later_flows_change_nothing(builder, batches, config, expected):
    today = batches[TODAY]
    flows, end = today.tables["money_flows"].to_pandas(), pd.Timestamp(today.processing_date) + pd.Timedelta(days=1)
    later = flows.assign(timestamp=int(end.timestamp() * 1000) + flows.timestamp % 86_400_000, amount_usd=flows.amount_usd * 7)
    back = later.rename(columns={"source_address": "dest_address", "dest_address": "source_address"})
    changed = [*batches[:TODAY], with_table(today, MONEY_FLOWS, pd.concat([later, flows, back])), *batches[TODAY + 1:]]
    pd.testing.assert_frame_equal(built(builder, changed, config), expected)


def test_an_earlier_flow_does_change_something(builder, batches, config, expected):
    flows = batches[TODAY].tables["money_flows"].to_pandas()
    back = flows.rename(columns={"source_address": "dest_address", "dest_address": "source_address"}).assign(amount_usd=flows.amount_usd * 7)
    changed = [*batches[:TODAY], with_table(batches[TODAY], MONEY_FLOWS, pd.concat([flows, back])), *batches[TODAY + 1:]]
    X = built(builder, changed, config)
    moved = {f.group for f in builder.features if not X[f.name].equals(expected[f.name])}
    assert {"flow", "window", "pattern", "graph", "community", "smurfing"} <= moved


def test_later_alerts_and_labels_change_nothing(builder, batches, config, expected):
    addresses = batches[TODAY].tables["alerts"].to_pandas().address
    later = []
    for b in batches[TODAY + 1:]:  # all of them on today's addresses, all of them illicit
        alerts = b.tables["alerts"].to_pandas()
        later.append(with_table(b, ALERTS, alerts.assign(address=[addresses.iloc[i % len(addresses)] for i in range(len(alerts))], ground_truth=1)))
    pd.testing.assert_frame_equal(built(builder, [*batches[:TODAY + 1], *later], config), expected)
    pd.testing.assert_frame_equal(built(builder, batches[:TODAY + 1], config), expected)


def test_labels_that_are_not_settled_change_nothing(builder, batches, config, expected):
    first_open = next(i for i, b in enumerate(batches) if (batches[TODAY].processing_date - b.processing_date).days < DELAY)
    assert first_open < TODAY
    changed = [*batches[:first_open], *map(turned, batches[first_open:])]  # today's own labels among them
    pd.testing.assert_frame_equal(built(builder, changed, config), expected)


def test_a_settled_label_does_change_something(builder, batches, config, expected):
    last_settled = max(i for i, b in enumerate(batches) if (batches[TODAY].processing_date - b.processing_date).days >= DELAY)
    changed = [*batches[:last_settled], turned(batches[last_settled]), *batches[last_settled + 1:]]
    X = built(builder, changed, config)
    moved = {f.group for f in builder.features if not X[f.name].equals(expected[f.name])}
    assert moved == {"walk", "community", "history"}


def test_every_group_knows_something(builder, expected):
    known = expected.notna().any()
    assert {f.group for f in builder.features if known[f.name]} == {f.group for f in builder.features}
