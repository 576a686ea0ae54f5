"""The features of single transactions in benchmarks/: by hand, against plain loops, and what changes none of them."""
import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aml_miner.config.model_config import load_config
from aml_miner.features.flow_timing import HOUR

PATH = Path(__file__).resolve().parent.parent / "benchmarks" / "transaction_features.py"
SPANS = (("1h", 1), ("24h", 24), ("3d", 72), ("7d", 168))  # name and hours
CONFIG = load_config().feature_engineering
FEW = CONFIG.model_copy(update={"follow_branches": 3, "follow_hours": 60})


def load_script():
    "The script as a module; it is no part of the package."
    spec = importlib.util.spec_from_file_location("transaction_features_script", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()
NAMES = [f.name for f in script.transaction_features()]


def table(flows):
    "Transactions from (source, dest, USD, hours)."
    sources, dests, usd, hours = zip(*flows) if len(flows) else ((),) * 4
    return pd.DataFrame({
        "source_account": list(map(str, sources)), "target_account": list(map(str, dests)), "amount_usd": np.array(usd, float),
        "timestamp": pd.Timestamp("2025-09-01") + pd.to_timedelta(np.array(hours, float), unit="h")})


def by_row(flows):
    "Features in the order of the transactions."
    graph, rows = script.transaction_graph(table(flows))
    return script.transaction_values(graph, CONFIG).set_index(rows).sort_index()


def random_flows(n, days=9, addresses=7, seed=8):
    rng = np.random.default_rng(seed)
    ends, usd = rng.integers(0, addresses, (2, n)).tolist(), rng.choice([100., 72., 2800., 9100., 950., 33.25], n).tolist()
    rows = zip(*ends, usd, rng.choice(np.arange(0, days * 24, .5), n).tolist())
    return sorted(((s, d, amount, hour) for s, d, amount, hour in rows if s != d), key=lambda f: (f[3], f[0], f[1], f[2]))


def test_a_table_becomes_a_graph():
    graph, rows = script.transaction_graph(table([("b", "a", 5, 3), ("a", "a", 1, 2), ("a", "c", 2.5, 1)]))
    assert (rows.tolist(), graph.source.tolist(), graph.dest.tolist(), graph.micro.tolist()) == ([2, 0], [0, 1], [2, 0], [2_500_000, 5_000_000])
    assert graph.at_ms.tolist() == [1_756_684_800_000 + h * HOUR for h in (1, 3)]
    empty = script.transaction_graph(table([]))
    assert len(empty[1]) == 0 and script.transaction_values(empty[0], CONFIG).shape == (0, len(NAMES))


def test_a_table_without_what_is_needed_is_refused():
    with pytest.raises(ValueError, match="no column amount_usd"): script.transaction_graph(table([]).drop(columns="amount_usd"))
    with pytest.raises(ValueError, match="amount_usd has 1 gaps"): script.transaction_graph(table([("a", "b", None, 1)]))


def test_a_circle_of_three_paid_twice():
    story = [("hub", "x", 50, 1), ("hub", "y", 60, 2), ("hub", "ann", 1000, 3), ("ann", "bob", 980, 5), ("bob", "cy", 970, 8),
             ("cy", "ann", 960, 30), ("ann", "bob", 950, 31), ("bob", "cy", 940, 32), ("cy", "ann", 940, 33)]
    values = by_row(story)
    assert list(values) == NAMES and {str(t) for t in values.dtypes} == {"float32"}
    last = {"circle_count": 2, "pair_count": 1, "pair_wait_hours": 3, "pair_amount_ratio": 940 / 960, "back_count": 0,
            "24h_passed_ratio": 1, "3d_passed_ratio": 940 / 1910, "like_in_count": 2, "like_in_wait_hours": 1,
            "same_passed": 1, "same_sent": 0, "payers_fan_out": 1,
            "source_out_count": 1, "source_in_24h_count": 1, "source_in_3d_count": 2,
            "dest_in_count": 2, "dest_in_counterparties": 2, "dest_in_amount_ratio": 940 / 980, "dest_out_wait_hours": 2,
            "dest_in_24h_new": 1, "dest_out_7d_counterparties": 1}
    np.testing.assert_allclose([values.iloc[-1][f"transaction_{k}"] for k in last], list(last.values()), rtol=1e-6)
    assert values.transaction_payers_fan_out[3] == 3


def slow_role(past, usd, now, address, mine, theirs):
    "What an address did before, by loops; `mine` and `theirs` are the places of the ends in a flow."
    flows = [f for f in past if f[mine] == address]
    role = {"count": len(flows), "counterparties": len({f[theirs] for f in flows}), "wait_hours": wait(flows, now), "amount_ratio": usd / mean(flows)}
    for name, span in SPANS:
        recent = [f for f in flows if f[3] >= now - span]
        role |= {f"{name}_count": len(recent), f"{name}_sum_usd": sum(f[2] for f in recent)}
        if name != "1h": role[f"{name}_counterparties"] = len({f[theirs] for f in recent})
        if name == "24h": role["24h_new"] = sum(not any(g[theirs] == f[theirs] and f[3] - g[3] <= 24 for g in flows[:flows.index(f)]) for f in recent)
    return role


def slow_origins(past, flow, config):
    "Where the money of a transaction came from, by loops."
    s, d, usd, now = flow
    came = [f for f in [f for f in past if f[1] == s][-config.follow_branches:] if now - f[3] <= config.follow_hours]
    like = [f for f in came if abs(f[2] - usd) <= config.follow_tolerance * f[2]]
    return {"like_in_count": len(like), "like_in_wait_hours": wait(like, now),
            "circle_count": sum(any(g[:2] == (d, f[0]) and g[3] < f[3] for g in past) for f in came),
            "payers_fan_out": max((len({g[1] for g in past if g[0] == f[0]}) for f in came), default=0)}


def mean(flows): return sum(f[2] for f in flows) / len(flows) if flows else np.nan


def wait(flows, now): return now - max(f[3] for f in flows) if flows else np.nan


def slow(flows, i, config):
    "The features of one transaction by loops over all that are before it."
    s, d, usd, now = flows[i]
    past = [f for f in flows if f[3] < now]
    values = {"amount_usd": usd, "round": usd % config.round_amount_usd == 0, "below": any(t * .9 <= usd < t for t in config.round_thresholds_usd)}
    for name, ends in (("pair", (s, d)), ("back", (d, s))):
        same = [f for f in past if f[:2] == ends]
        values |= {f"{name}_count": len(same), f"{name}_wait_hours": wait(same, now), f"{name}_amount_ratio": usd / mean(same)}
    for name, end, address in (("sent", 0, s), ("received", 1, d), ("passed", 1, s)):
        values[f"same_{name}"] = sum(f[2] == usd and f[end] == address for f in past)
    for end, address in (("source", s), ("dest", d)):
        for direction, mine, theirs in (("in", 1, 0), ("out", 0, 1)):
            role = slow_role(past, usd, now, address, mine, theirs)
            values |= {f"{end}_{direction}_{k}": v for k, v in role.items()}
    for name in ("24h", "3d"):
        received = values[f"source_in_{name}_sum_usd"]
        values[f"{name}_passed_ratio"] = usd / received if received else np.nan
    values |= slow_origins(past, flows[i], config)
    return [values[name.removeprefix("transaction_")] for name in NAMES]


@pytest.mark.parametrize("n, days, config", [(110, 9, CONFIG), (110, 9, FEW), (60, 1, FEW), (40, 20, CONFIG), (1, 1, CONFIG)])
def test_the_same_by_plain_loops(n, days, config):
    flows = random_flows(n, days)
    graph, rows = script.transaction_graph(table(flows))
    assert rows.tolist() == list(range(len(flows)))
    expected = np.array([slow(flows, i, config) for i in rows], float).reshape(len(rows), -1)
    np.testing.assert_allclose(script.transaction_values(graph, config), expected, rtol=1e-6, atol=1e-9, equal_nan=True)


def test_nothing_from_later_and_nothing_from_beside():
    flows = random_flows(120)
    base = by_row(flows)
    for cut in (10, 50, 80):
        before = [f for f in flows if f[3] <= flows[cut][3]]
        pd.testing.assert_frame_equal(by_row(before), base.iloc[:len(before)])
    at_once = flows + [(s, d, 10**6, flows[-1][3]) for s, d in ((0, 1), (1, 0), (2, 3), (3, 4), (0, 5))]
    pd.testing.assert_frame_equal(by_row(at_once).iloc[:len(flows)], base)
    strangers = flows + [("new", "newer", 77, 3.25), ("newer", "newest", 77, 5)]
    pd.testing.assert_frame_equal(by_row(strangers).iloc[:len(flows)], base)


def test_neither_the_order_of_rows_nor_names_nor_the_date_matter():
    flows = random_flows(120)
    base = by_row(flows)
    order = np.random.default_rng(1).permutation(len(flows))
    pd.testing.assert_frame_equal(by_row([flows[i] for i in order]).set_axis(order).sort_index(), base)
    renamed = by_row([(f"z{9 - s}", f"z{9 - d}", usd, h) for s, d, usd, h in flows])
    by_name = ("like_in", "circle", "fan_out")  # among equal moments the last sixteen may be others under another name
    unaware = [c for c in base if not any(word in c for word in by_name)]
    pd.testing.assert_frame_equal(renamed[unaware], base[unaware])
    pd.testing.assert_frame_equal(by_row([(s, d, usd, h + 24) for s, d, usd, h in flows]), base)


def test_twice_the_money_doubles_the_sums_alone():
    flows = random_flows(120)
    base, doubled = by_row(flows), by_row([(s, d, 2 * usd, h) for s, d, usd, h in flows])
    for c in base:
        if c in ("transaction_below", "transaction_round"): continue
        pd.testing.assert_series_equal(doubled[c], base[c] * (2 if c.endswith("_usd") else 1))


def test_the_script_tells_what_each_feature_means(capsys):
    script.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(NAMES) and all(name in text for name, text in zip(NAMES, lines[1:]))
