"""Laws of flow following and of features, on data that Hypothesis draws: what may be exchanged, renamed or added, and what money cannot do."""
from hypothesis import Phase, assume, given, settings, strategies as st
import numpy as np
import pandas as pd
import pytest

from aml_miner.config.model_config import load_config
from aml_miner.features.community_features import community_values
from aml_miner.features.feature_builder import FeatureBuilder
from aml_miner.features.flow_chains import amount_range, follow, make_trail
from aml_miner.features.flow_graph import DAY, FlowGraph
from aml_miner.features.flow_holding import first_in_first_out
from aml_miner.features.flow_timing import HOUR
from aml_miner.features.flow_windows import address_timeline
from aml_miner.features.graph_features import graph_values
from aml_miner.features.pattern_features import pattern_values
from aml_miner.features.smurfing_features import smurfing_values
from aml_miner.features.window_features import window_values
from aml_miner.testing.tiny_batch import tiny_tables

few = settings(max_examples=5, derandomize=True, deadline=None, database=None, phases=[Phase.explicit, Phase.generate])  # whole matrices: not shrunk
many = settings(max_examples=50, derandomize=True, deadline=None, database=None)

NAMES = ("alerts", "features", "clusters", "money_flows")
CONFIG = load_config(overrides={"feature_engineering": {
    "min_category_rows": 1,
    "groups": ["alert", "address", "position", "cluster", "flow", "window", "pattern", "graph", "community", "smurfing"]}}).feature_engineering
TABLES = tiny_tables()
BUILDER = FeatureBuilder(CONFIG).learn_vocabulary(*([TABLES[name]] for name in NAMES[:3]))
PEOPLE = sorted({*TABLES["alerts"].address, *TABLES["money_flows"].source_address, *TABLES["money_flows"].dest_address})
LAST_MS = int(TABLES["money_flows"].timestamp.max())
CENTS = (100, 2_500, 10_000, 10_300, 990_000, 1_000_000)  # some alike, some round, one just below a threshold


def graph_of(flows, n_addresses=6):
    "A graph of flows (source, dest, cents, hour); every address is alerted."
    rows = sorted((hour * HOUR, s, d, cents * 10_000) for s, d, cents, hour in flows if s != d)
    at_ms, source, dest, micro = np.array(rows, np.int64).reshape(-1, 4).T
    ids, none = np.arange(n_addresses, dtype=np.int32), np.empty(0, np.int32)
    places = np.arange(n_addresses)
    return FlowGraph(n_addresses, source.astype(np.int32), dest.astype(np.int32), micro, at_ms, 0, 9 * DAY, ids, places, places, none, none)


def flow_lists(most):
    "Flows (source, dest, cents, hour) of up to nine days."
    return st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from(CENTS), st.integers(0, 9 * 24 - 1)), max_size=most)


def crowded_flows():
    "Many flows of few addresses within hours, so that money comes home, in amounts at both sides of what counts as about the same."
    cents = st.sampled_from((8_000, 9_700, 10_000, 10_300, 12_500, 14_000))
    return st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), cents, st.integers(0, 8)), min_size=15, max_size=40)


@st.composite
def flow_tables(draw, people=PEOPLE, most=14):
    "A table of money flows of the last six days: fewer than `follow_branches`, so that no cap decides which are followed."
    one = st.tuples(st.sampled_from(people), st.sampled_from(people), st.sampled_from(CENTS), st.integers(0, 6 * 24))
    rows = draw(st.lists(one, min_size=1, max_size=most))
    return pd.DataFrame([(s, d, cents / 100, LAST_MS - hours * HOUR) for s, d, cents, hours in rows],
                        columns=["source_address", "dest_address", "amount_usd", "timestamp"])


def values_of(graph):
    return window_values(graph, CONFIG) | pattern_values(graph, CONFIG) | graph_values(graph, CONFIG) | smurfing_values(graph, CONFIG)


def build(tables, money_flows): return BUILDER.build_all_features(tables["alerts"], tables["features"], tables["clusters"], money_flows)


@few
@given(flow_tables(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_byte(flows, random):
    def shuffled(frame): return frame.iloc[random.sample(range(len(frame)), len(frame))]
    tables = {name: shuffled(frame) for name, frame in TABLES.items()}
    pd.testing.assert_frame_equal(build(tables, shuffled(flows)), build(TABLES, flows), check_exact=True)


@few
@given(flow_tables(), st.permutations([f"0x{i:02x}" for i in range(len(PEOPLE))]))
def test_addresses_may_have_any_other_names(flows, names):
    "Sums over counterparties stand in another order: the last digits of a mean may differ. Circles are left out: names settle what is equal in all else."
    new = dict(zip(PEOPLE, names)).get
    tables = dict(TABLES)
    for table in ("alerts", "features"): tables[table] = TABLES[table].assign(address=TABLES[table].address.map(lambda x: new(x, x)))
    tables["clusters"] = TABLES["clusters"].assign(
        primary_address=TABLES["clusters"].primary_address.map(lambda x: new(x, x)),
        addresses_involved=[[new(x, x) for x in addresses] for addresses in TABLES["clusters"].addresses_involved])
    renamed = flows.assign(source_address=flows.source_address.map(new), dest_address=flows.dest_address.map(new))
    X, other = (build(*args).reset_index(drop=True) for args in ((TABLES, flows), (tables, renamed)))
    named = [f.name for f in BUILDER.features if f.group == "community"]
    pd.testing.assert_frame_equal(other.drop(columns=named), X.drop(columns=named), rtol=1e-5)


@few
@given(flow_tables(), flow_tables(people=["stranger 1", "stranger 2", "stranger 3"]))
def test_flows_among_strangers_change_nothing(flows, others):
    "Strangers deal with nobody whom an alert reaches, at the moments of other flows. One feature counts all addresses of the network."
    moments = flows.timestamp[flows.source_address != flows.dest_address]
    assume(len(moments))
    others = others.assign(timestamp=np.resize(moments, len(others)))
    with_strangers, without = build(TABLES, pd.concat([others, flows])), build(TABLES, flows)
    local = [name for name in without if name != "graph_component_share"]
    pd.testing.assert_frame_equal(with_strangers[local], without[local], check_exact=True)


@many
@given(flow_lists(15), st.permutations(range(6)))
def test_numbers_of_addresses_do_not_matter(flows, new):
    "The same on the graph itself, where many more cases can be tried."
    values, renamed = values_of(graph_of(flows)), values_of(graph_of([(new[s], new[d], cents, hour) for s, d, cents, hour in flows]))
    for name in values: np.testing.assert_allclose(renamed[name][new], values[name], rtol=1e-9, err_msg=name)


@many
@given(flow_lists(15), flow_lists(15))
def test_another_part_of_the_network_changes_nothing(flows, others):
    "Nor does what it does at the moments of these flows; its last day, where it is later, would move the windows."
    hours = [hour for s, d, _, hour in flows if s != d]
    beside = [(s + 6, d + 6, cents, hours[hour % len(hours)]) for s, d, cents, hour in others if hours]
    values, more = (values_of(graph) | community_values(graph, CONFIG) for graph in (graph_of(flows), graph_of(flows + beside, 12)))
    of_alerts = {"community_alerts_share"}  # here every address is alerted
    for name in set(values) - {"graph_component_share"} - of_alerts: np.testing.assert_array_equal(more[name][:6], values[name], err_msg=name)


@many
@given(crowded_flows(), st.sampled_from([.05, .3]), st.integers(1, 8))
def test_followed_money_moves_forward_in_about_the_same_amount(flows, tolerance, hours):
    graph = graph_of(flows)
    rows = np.arange(len(graph.source))
    after = follow(make_trail(graph, tolerance), rows, hours, 10, 1000, 5)
    low, high = amount_range(graph.micro, tolerance)
    home = after.home >= 0
    back = after.home[home]
    assert (graph.dest[back] == graph.source[rows[home]]).all()
    assert (graph.at_ms[back] > graph.at_ms[home]).all() and (graph.at_ms[back] - graph.at_ms[home] <= hours * HOUR).all()
    assert ((graph.micro[back] >= low[home]) & (graph.micro[back] <= high[home])).all()
    assert ((after.length > 0) == home).all() and (after.length[home] >= 2).all() and (after.length <= 5).all()
    assert (after.hops >= 1).all() and (after.hop <= after.hops[after.first]).all()
    assert (after.address != graph.source[after.first]).all()  # money that is home is not followed on


@many
@given(flow_lists(40), st.integers(1, 60), st.integers(0, 60))
def test_longer_following_reaches_no_fewer_addresses(flows, hours, more):
    graph = graph_of(flows)
    trail, rows = make_trail(graph, .3), np.arange(len(graph.source))
    short, long = (follow(trail, rows, h, 10, 1000, 5) for h in (hours, hours + more))
    assert {*zip(short.first, short.address)} <= {*zip(long.first, long.address)}
    assert (long.home[short.home >= 0] == short.home[short.home >= 0]).all()  # what is home earliest stays so


@many
@given(flow_lists(40))
def test_no_money_is_made_or_lost_on_the_way(flows):
    "Of each address: the pieces are what it received; what left of them and its own money are what it sent."
    graph = graph_of(flows)
    ends = np.concatenate([graph.dest, graph.source]).astype(np.int64)
    is_out, at_ms, micro = np.repeat([False, True], len(graph.source)), np.tile(graph.at_ms, 2), np.tile(graph.micro, 2)
    order = np.lexsort((is_out, at_ms, ends))
    held = first_in_first_out(ends[order], at_ms[order], is_out[order], micro[order], graph.n_addresses)
    received, sent = (np.bincount(side, graph.micro, graph.n_addresses) for side in (graph.dest, graph.source))
    gone = ~np.isnan(held.hours)
    passed = np.bincount(held.who[gone], held.micro[gone], graph.n_addresses)
    np.testing.assert_array_equal(np.bincount(held.who, held.micro, graph.n_addresses), received)
    np.testing.assert_array_equal(passed + held.own, sent)
    assert (passed <= received).all() and (held.own >= 0).all() and (held.micro > 0).all() and (held.hours[gone] >= 0).all()


@many
@given(flow_lists(40), st.lists(st.integers(0, 9 * DAY), max_size=5))
@pytest.mark.parametrize("direction", ["in", "out"])
def test_windows_side_by_side_add_up(direction, flows, cuts):
    timeline = address_timeline(graph_of(flows), direction)
    owner, edges = np.arange(6), [0, *sorted(cuts), 9 * DAY]
    windows = [timeline.window(owner, until, until - since) for since, until in zip(edges, edges[1:])]
    whole = timeline.window(owner, 9 * DAY, 9 * DAY)
    np.testing.assert_array_equal(sum(behind - first for first, behind in windows), whole[1] - whole[0])
    np.testing.assert_allclose(sum(timeline.usd(*window) for window in windows), timeline.usd(*whole), rtol=1e-12)
    apart = [timeline.counterparties(owner, until, until - since) for since, until in zip(edges, edges[1:])]
    together = timeline.counterparties(owner, 9 * DAY, 9 * DAY)
    assert (np.max(apart, axis=0) <= together).all() and (together <= sum(apart)).all()


@many
@given(flow_lists(40))
def test_longer_windows_hold_no_less(flows):
    values = window_values(graph_of(flows), CONFIG)
    for side in ("in", "out"):
        for name in ("count", "sum_usd", "counterparties"):
            of_day, of_days, of_week = (values[f"window_{side}_{span}_{name}"] for span in ("24h", "3d", "7d"))
            assert not (of_day > of_days).any() and not (of_days > of_week).any()
        for shorter, longer in (("1h", "6h"), ("6h", "24h")):
            assert (values[f"window_{side}_busiest_{shorter}_count"] <= values[f"window_{side}_busiest_{longer}_count"]).all()
