"""What was known of a single transaction at its moment: what its two ends did in the hours and days before, how it compares, and whether the money comes back.

    python benchmarks/transaction_features.py

prints the meaning of each feature; `benchmarks/transactions.py` tells what they are worth. An alert is read a day later; a transaction can be judged at once,
from itself and what came *before* it. Before is meant strictly: transactions of the same millisecond (the same minute, where a bank writes minutes) do not
see each other, so the order in which they are written down plays no part."""
from dataclasses import replace

import numpy as np
import pandas as pd

from aml_miner.config.model_config import FeatureEngineering
from aml_miner.features.flow_graph import DAY, FlowGraph
from aml_miner.features.flow_timing import HOUR
from aml_miner.features.flow_windows import NEVER_MS, FlowTimeline, address_timeline, as_timeline, divide, newcomers
from aml_miner.features.spec import Feature, define
from aml_miner.features.window_features import just_below


SPANS = {"1h": HOUR, "24h": DAY, "3d": 3 * DAY, "7d": 7 * DAY}  # milliseconds before the transaction


def _role(end: str, direction: str) -> str:
    who, did = {"source": "the source", "dest": "the receiver"}[end], {"in": "received", "out": "sent"}[direction]
    lines = [f"count | count | flows that {who} {did} so far", f"counterparties | count | different counterparties of the flows that {who} {did} so far",
             f"wait_hours | hours | since the last flow that {who} {did}", f"amount_ratio | ratio | this amount over the mean that {who} {did} so far",
             f"24h_new | count | counterparties of what {who} {did} in the last 24 hours, without a flow in the 24 hours before"]
    for name in SPANS:
        lines += [f"{name}_count | count | flows that {who} {did} in the last {name}", f"{name}_sum_usd | USD | money that {who} {did} in the last {name}"]
        if name != "1h": lines.append(f"{name}_counterparties | count | different counterparties of what {who} {did} in the last {name}")
    return "\n".join(f"transaction_{end}_{direction}_{line}" for line in lines)


_OWN = """
transaction_amount_usd | USD | the amount
transaction_round | 0/1 | the amount is round
transaction_below | 0/1 | the amount is just below a reporting threshold
transaction_pair_count | count | flows from the same source to the same receiver so far
transaction_pair_wait_hours | hours | since the last of them
transaction_pair_amount_ratio | ratio | this amount over their mean
transaction_back_count | count | flows in the opposite direction so far: the money comes back
transaction_back_wait_hours | hours | since the last of them
transaction_back_amount_ratio | ratio | this amount over their mean
transaction_same_sent | count | flows of exactly this amount that the source sent before
transaction_same_received | count | flows of exactly this amount that the receiver received before
transaction_same_passed | count | flows of exactly this amount that the source received before
transaction_24h_passed_ratio | ratio | this amount over what the source received in the last 24 hours
transaction_3d_passed_ratio | ratio | this amount over what the source received in the last 3 days
transaction_like_in_count | count | of the last flows that the source received, those of about this amount: money passed on
transaction_like_in_wait_hours | hours | since the last of them
transaction_circle_count | count | of the last flows that the source received, those from an address that the receiver had paid before: a circle of three
transaction_payers_fan_out | count | most receivers so far of an address among the last that paid the source
"""


def transaction_features() -> tuple[Feature, ...]:
    "Definitions of the features of single transactions; their group is `transaction`, which is no group of alerts."
    roles = [_role(end, direction) for end in ("source", "dest") for direction in ("out", "in")]
    return tuple(replace(f, group="transaction", depends_on="earlier transactions") for f in define("window", _OWN.strip() + "\n" + "\n".join(roles)))


def transaction_graph(
    transactions: pd.DataFrame,  # source_account, target_account, amount_usd, timestamp; any order, complete
) -> tuple[FlowGraph, np.ndarray]:  # the graph; for each of its flows, the position in the table
    """The flows of a table of transactions. Raises ValueError naming a column that is absent or has gaps.
    Transfers from an account to itself move nothing and are not in the graph; their features are unknown."""
    columns = ["source_account", "target_account", "amount_usd", "timestamp"]
    for c in columns:
        if c not in transactions: raise ValueError(f"transactions: no column {c}; needed are {', '.join(columns)}")
        if transactions[c].isna().any(): raise ValueError(f"transactions: column {c} has {transactions[c].isna().sum():,} gaps; every transaction needs one")
    ends = pd.concat([transactions.source_account, transactions.target_account], ignore_index=True).astype(str)
    codes, names = pd.factorize(ends, sort=True)
    source, dest = codes.reshape(2, -1).astype(np.int32)
    micro = np.floor(transactions.amount_usd.astype(float).to_numpy() * 1e6 + .5).astype(np.int64)
    at_ms = transactions.timestamp.astype("datetime64[ms]").astype(np.int64).to_numpy()
    order = np.lexsort((micro, dest, source, at_ms))
    rows = order[source[order] != dest[order]]
    since = int(at_ms.min(initial=NEVER_MS)) // DAY * DAY
    until = max(int(at_ms.max(initial=0)) // DAY * DAY + DAY, since)
    none, nowhere = np.empty(0, np.int32), np.empty(0, np.int64)
    return FlowGraph(len(names), source[rows], dest[rows], micro[rows], at_ms[rows], since, until, none, nowhere, nowhere, none, none), rows


def end_values(
    timeline: FlowTimeline,  # what addresses received, or what they sent
    owner: np.ndarray,  # int64 (n,), one address of each transaction
    when_ms: np.ndarray,  # int64 (n,), its moment
    micro: np.ndarray,  # int64 (n,), its amount
) -> dict[str, np.ndarray]:  # name without the role -> (n,)
    "What addresses did before moments."
    start, here = timeline.starts[owner], timeline.before(owner, when_ms)
    count = here - start
    values = {"count": count, "counterparties": newcomers(timeline, NEVER_MS - 1, start, here),
              "wait_hours": np.where(count, when_ms - timeline.at_ms[here - 1], np.nan) / HOUR if len(owner) else np.empty(0),
              "amount_ratio": divide(micro / 1e6 * count, timeline.usd(start, here))}
    for name, span in SPANS.items():
        first = timeline.before(owner, when_ms - span)
        values |= {f"{name}_count": here - first, f"{name}_sum_usd": timeline.usd(first, here)}
        if name != "1h": values[f"{name}_counterparties"] = timeline.counterparties(owner, when_ms, span)
        if name == "24h": values["24h_new"] = newcomers(timeline, span, first, here)
    return values


def _ends(graph: FlowGraph) -> dict[str, np.ndarray]:
    timelines = {direction: address_timeline(graph, direction) for direction in ("out", "in")}
    columns: dict[str, np.ndarray] = {}
    for end, side in (("source", graph.outgoing), ("dest", graph.incoming)):
        owner, order = side.address.astype(np.int64), side.order
        for direction, timeline in timelines.items():
            for name, values in end_values(timeline, owner, graph.at_ms[order], graph.micro[order]).items():
                columns[f"transaction_{end}_{direction}_{name}"] = column = np.empty(len(order))
                column[order] = values
    return columns


def earlier(
    keys: np.ndarray,  # int64 (n,), key under which each flow can be found
    asked: np.ndarray,  # int64 (n,), key that each flow asks for
    graph: FlowGraph,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # count; hours since the last one; sum in USD
    "The flows under a key before the moment of each flow."
    if not len(keys): return np.zeros(0, np.int64), np.empty(0), np.empty(0)
    known, group = np.unique(keys, return_inverse=True)
    timeline = as_timeline(group, np.zeros(len(keys), np.int64), graph.micro, graph.at_ms, len(known))
    place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    owner = np.where(known[place] == asked, place, -1)
    start, here = np.where(owner < 0, 0, timeline.starts[place]), timeline.before(owner, graph.at_ms)
    count = here - start
    return count, np.where(count, graph.at_ms - timeline.at_ms[here - 1], np.nan) / HOUR, timeline.usd(start, here)


def _alike(graph: FlowGraph) -> dict[str, np.ndarray]:
    "What happened before among the flows that share a key with this one: the pair of addresses, the pair turned round, or an address with an amount."
    source, dest, usd = graph.source.astype(np.int64), graph.dest.astype(np.int64), graph.micro / 1e6
    pair = source * graph.n_addresses + dest
    columns: dict[str, np.ndarray] = {}
    for name, asked in (("pair", pair), ("back", dest * graph.n_addresses + source)):
        count, wait, total = earlier(pair, asked, graph)
        columns |= {f"transaction_{name}_count": count, f"transaction_{name}_wait_hours": wait, f"transaction_{name}_amount_ratio": divide(usd * count, total)}
    amounts, amount = np.unique(graph.micro, return_inverse=True)
    sent, received = source * len(amounts) + amount, dest * len(amounts) + amount
    for name, keys, asked in (("sent", sent, sent), ("received", received, received), ("passed", received, sent)):
        columns[f"transaction_same_{name}"] = earlier(keys, asked, graph)[0]
    return columns


def _origins(graph: FlowGraph, config: FeatureEngineering) -> dict[str, np.ndarray]:
    """Where the money came from: of what the source received within `follow_hours`, the last `follow_branches` flows, looked at one by one.
    The cap keeps an address with a million flows at the cost of sixteen."""
    n, order = len(graph.source), graph.outgoing.order
    source, dest, micro, at = (x[order].astype(np.int64) for x in (graph.source, graph.dest, graph.micro, graph.at_ms))
    received, sent = address_timeline(graph, "in"), address_timeline(graph, "out")
    pairs, first_ms = _first_of_pairs(graph)
    here, start = received.before(source, at), received.starts[source]
    like, circle, fan_out, wait = np.zeros(n), np.zeros(n), np.zeros(n), np.full(n, np.nan)
    for back in range(1, config.follow_branches + 1):
        mine = np.flatnonzero(here - back >= start)
        place = here[mine] - back
        recent = at[mine] - received.at_ms[place] <= config.follow_hours * HOUR
        mine, place = mine[recent], place[recent]
        if not len(mine): break
        payer, came_ms, came = received.other[place].astype(np.int64), received.at_ms[place], received.micro[place]
        alike = np.abs(came - micro[mine]) <= config.follow_tolerance * came
        like[mine] += alike
        wait[mine] = np.where(alike & np.isnan(wait[mine]), (at[mine] - came_ms) / HOUR, wait[mine])
        circle[mine] += _paid_before(pairs, first_ms, dest[mine] * graph.n_addresses + payer, came_ms)
        receivers = newcomers(sent, NEVER_MS - 1, sent.starts[payer], sent.before(payer, at[mine]))
        fan_out[mine] = np.maximum(fan_out[mine], receivers)
    origins = {"like_in_count": like, "like_in_wait_hours": wait, "circle_count": circle, "payers_fan_out": fan_out}
    back_in_order = np.argsort(order, kind="stable")
    return {f"transaction_{name}": values[back_in_order] for name, values in origins.items()}


def _first_of_pairs(graph: FlowGraph) -> tuple[np.ndarray, np.ndarray]:
    "Keys of the pairs, ascending, and the time of their first flow."
    keys, first = np.unique(graph.source.astype(np.int64) * graph.n_addresses + graph.dest, return_index=True)
    return keys, graph.at_ms[first]


def _paid_before(pairs: np.ndarray, first_ms: np.ndarray, asked: np.ndarray, when_ms: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
    return (pairs[place] == asked) & (first_ms[place] < when_ms)


def transaction_values(
    graph: FlowGraph,  # the alerted addresses play no part
    config: FeatureEngineering,  # thresholds, round amounts, how money is followed
) -> pd.DataFrame:  # float32 (n_flows, n_features), in the order of the graph's flows
    "The features of every flow, from itself and the flows before it. Counts and sums over nothing are 0, ratios and times `NaN`."
    unit = max(round(config.round_amount_usd * 1e6), 1)
    own = {"transaction_amount_usd": graph.micro / 1e6, "transaction_round": (graph.micro % unit == 0) & (graph.micro > 0),
           "transaction_below": just_below(graph.micro, config)}
    columns = own | _alike(graph) | _origins(graph, config) | _ends(graph)
    for name in ("24h", "3d"): columns[f"transaction_{name}_passed_ratio"] = divide(graph.micro / 1e6, columns[f"transaction_source_in_{name}_sum_usd"])
    return pd.DataFrame({f.name: columns[f.name].astype(np.float32) for f in transaction_features()})


def main():
    pd.options.display.max_colwidth, pd.options.display.width = None, None
    print(pd.DataFrame([(f.name, f.unit, f.description) for f in transaction_features()], columns=["name", "unit", "meaning"]).to_string(index=False))


if __name__ == "__main__": main()
