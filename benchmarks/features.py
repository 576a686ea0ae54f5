"""Time and memory of building features on a full-size batch: what each group costs, how the cost grows, and what a hub does to it.

    python benchmarks/features.py [--tables groups sizes hub] [--flows 5000000] [--hub 0] [--keep FOLDER] [--plot FILE.png]
    python benchmarks/features.py FOLDER      (a batch of your own; the first table only)

Without FOLDER the batch is made: 50,000 alerts, 500,000 profiles of 100 columns, 5,000 clusters, 5 million flows with heavy-tailed
degrees, and an earlier batch whose outcomes are known. Every line is a process of its own with one thread. `CPU s` and `wall s` are of the
building alone, `peak GB` of the whole process; "pandas" is the same kind of joins as they are usually written, with the reading."""
import argparse
from datetime import date, timedelta
import json
import os
from pathlib import Path
import resource
import subprocess
import sys
import tempfile
import time

import duckdb
import numpy as np

BASE = ("alert", "evidence", "address", "activity", "position", "cluster")
NEW = ("flow", "window", "pattern", "graph", "walk", "history")
OFF = ("community", "smurfing")  # off by default, and not in the sums
SETS = {"imports": (), "alert, evidence": ("alert", "evidence"), "address, activity": ("address", "activity"),
        **{g: (g,) for g in ("position", "cluster", *NEW, *OFF)}, "base": BASE, "new": NEW, "all": (*BASE, *NEW)}
TARGETS = {"base": (6, .8), "new": (20, 2)}  # CPU s, GB
DAY = date(2025, 9, 7)
N_ALERTS, N_PROFILES, N_CLUSTERS = 50_000, 500_000, 5_000
TYPOLOGIES = ("fan_in", "fan_out", "structuring", "layering", "cycle", "mixer_contact", "dormant", "round_trip")


def text_list(values): return "[" + ", ".join(f"'{v}'" for v in values) + "]"


def uniform(salt): return f"(hash(i, {salt}) / 18446744073709551616)"


def whole(n, salt): return f"(hash(i, {salt}) % {n})::INTEGER"


def copy(con, query, path):
    con.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")


def profile_column(field, salt, day):
    "A made-up value for a column of an address profile, by its Arrow type."
    kind, u = str(field.type), uniform(salt)
    end = f"epoch_ms(DATE '{day}' + 1)"
    if field.name.endswith("_activity_timestamp"): return f"({end} - ({u} * {3e10 if 'first' in field.name else 5e8})::BIGINT)::UBIGINT"
    if field.name in ("hourly_activity", "daily_activity"):
        n = 24 if field.name[0] == "h" else 7
        return f"list_transform(range({n}), lambda h: CASE WHEN hash(i, h + {salt}) % 4 = 0 THEN hash(i, h) % 50 ELSE 0 END::USMALLINT)"
    if kind == "string": return f"{text_list(['USD', 'EUR', 'BTC', 'ETH', 'TOR'])}[1 + {whole(5, salt)}]"
    if kind == "bool": return f"{u} < 0.08"
    if kind == "uint8": return f"(hash(i, {salt}) % 7)::UTINYINT"
    if kind.startswith("decimal"): return f"(10 * pow({u} + 1e-9, -0.6))::DECIMAL(38, 18)"
    if kind.startswith("uint"): return f"pow({u} + 1e-9, -0.5)::{'UBIGINT' if kind == 'uint64' else 'UINTEGER'}"
    return f"{u}::FLOAT" if kind == "float" else f"pow({u} + 1e-9, -0.5)::DOUBLE"


def make_tables(folder: Path, day: date, seed: int) -> None:
    "Alerts, profiles and clusters of a date."
    from aml_miner.batches.schema import FEATURES
    from aml_miner.batches.native_types import native_schema
    folder.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE addresses AS SELECT i, '0x' || left(sha256('a' || i), 40) AS address FROM range({N_PROFILES}) t(i)")
        key = {"window_days": "7::SMALLINT", "processing_date": f"DATE '{day}'", "address": "address", "_version": "0::UBIGINT"}
        columns = [f"{key.get(f.name) or profile_column(f, 1000 * seed + j, day)} AS {f.name}" for j, f in enumerate(native_schema(FEATURES))]
        copy(con, f"SELECT {', '.join(columns)} FROM addresses", folder/"features.parquet")
        u = [uniform(1000 * seed + 500 + k) for k in range(9)]
        who = f"SELECT i, CASE WHEN i = 0 THEN 0 ELSE ({N_PROFILES} * pow({u[8]}, 2))::BIGINT END AS who FROM range({N_ALERTS}) t(i)"
        con.execute(f"""CREATE TABLE alerts AS SELECT 7::SMALLINT AS window_days, DATE '{day}' AS processing_date,
            printf('alert_%d_%06d', {seed}, i) AS alert_id, a.address,
            {text_list(TYPOLOGIES)}[1 + {whole(8, seed)}] AS typology_type, '' AS pattern_id, '' AS pattern_type,
            ['low', 'medium', 'high', 'critical'][1 + ({u[1]} * 4)::INT % 4] AS severity,
            'wallet' AS suspected_address_type, '' AS suspected_address_subtype, {u[2]}::FLOAT AS alert_confidence_score, '' AS description,
            (100 * pow({u[3]} + 1e-9, -0.7))::DECIMAL(38, 18) AS volume_usd,
            printf('{{"tx_count": %d, "counterparties": %d, "hop_count": %d, "time_window_hours": %.1f, "share": %.4f, "flagged": %s, "paths": ["a", "b"]}}',
                {whole(100, 1)}, {whole(40, 2)}, {whole(5, 3)}, {u[4]} * 168, {u[5]}, CASE WHEN {u[6]} < 0.3 THEN 'true' ELSE 'false' END) AS evidence_json,
            list_filter({text_list(TYPOLOGIES)}, lambda t: hash(i, t) % 4 = 0) AS risk_indicators, 0::UBIGINT AS _version,
            ({u[7]} < 0.1)::BIGINT AS ground_truth
            FROM ({who}) JOIN (SELECT i AS who, address FROM addresses) AS a USING (who)""")
        copy(con, "FROM alerts ORDER BY alert_id", folder/"alerts.parquet")
        copy(con, f"""SELECT 7::SMALLINT AS window_days, DATE '{day}' AS processing_date, printf('cluster_%05d', c) AS cluster_id,
            'same_entity' AS cluster_type, min(address) AS primary_address, '' AS pattern_id, min(alert_id) AS primary_alert_id,
            list(alert_id ORDER BY alert_id) AS related_alert_ids, list(DISTINCT address ORDER BY address) AS addresses_involved,
            count(*)::UINTEGER AS total_alerts, sum(volume_usd)::DECIMAL(38, 18) AS total_volume_usd,
            max(severity) AS severity_max, avg(alert_confidence_score)::FLOAT AS confidence_avg,
            epoch_ms(DATE '{day}')::UBIGINT AS earliest_alert_timestamp, epoch_ms(DATE '{day}')::UBIGINT AS latest_alert_timestamp, 0::UBIGINT AS _version
            FROM (SELECT *, right(alert_id, 6)::INT // 5 AS c FROM alerts) WHERE c < {N_CLUSTERS} GROUP BY c ORDER BY c""", folder/"clusters.parquet")


def make_flows(path: Path, n_flows: int, n_hub: int = 0) -> Path:
    "Flows of the seven days up to the date; a third of them repeat a pair. `n_hub` of them are the hub's, half in, half out; the hub is alerted."
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE addresses AS SELECT i::INTEGER AS id, '0x' || left(sha256('a' || i), 40) AS address FROM range({N_PROFILES}) t(i)")
        near = f"(source * 31 + (8 * {uniform(14)})::BIGINT)"
        far = f"17 + 7919 * ({N_PROFILES} * pow({uniform(12)}, 3))::BIGINT"
        con.execute(f"""CREATE TABLE flows AS SELECT i, source, (CASE WHEN {uniform(13)} < 0.33 THEN {near} ELSE {far} END % {N_PROFILES})::INTEGER AS dest
            FROM (SELECT i, least(({N_PROFILES} * pow({uniform(11)}, 3))::BIGINT, {N_PROFILES - 1}) AS source FROM range({n_flows}) t(i))""")
        if n_hub:
            con.execute(f"UPDATE flows SET source = 0, dest = 1 + hash(i, 21) % {N_PROFILES - 1} WHERE i < {n_hub // 2}")
            con.execute(f"UPDATE flows SET dest = 0, source = 1 + hash(i, 22) % {N_PROFILES - 1} WHERE i >= {n_hub // 2} AND i < {n_hub}")
        copy(con, f"""SELECT s.address AS source_address, d.address AS dest_address, (50 * pow({uniform(15)} + 1e-9, -0.7))::DECIMAL(38, 18) AS amount_usd,
            (epoch_ms(DATE '{DAY}' - 6) + ({uniform(16)} * 7 * 86400000)::BIGINT)::UBIGINT AS timestamp, 'TOR' AS asset,
            md5(i::VARCHAR) AS tx_hash, 'torus' AS network, i::UBIGINT AS block_number
            FROM flows JOIN addresses AS s ON s.id = source JOIN addresses AS d ON d.id = dest""", path)
    return path


def make_history(folder: Path, earlier: Path) -> None:
    "A history file beside the batch, which knows the earlier batch."
    from aml_miner.batches.loader import read_batch
    from aml_miner.batches.history import HistoryStore
    with HistoryStore(folder/"history.duckdb") as store: store.add(read_batch(earlier))


def make_batch(folder: Path, n_flows: int, n_hub: int = 0) -> Path:
    "The whole batch, its earlier batch and its history; made once in a kept folder."
    batch, earlier = folder/"batch", folder/"earlier"
    if not (folder/"history.duckdb").is_file():
        make_tables(batch, DAY, 1)
        make_tables(earlier, DAY - timedelta(days=20), 2)
        make_history(folder, earlier)
    flows(folder, n_flows, n_hub)
    return batch


def flows(folder: Path, n_flows: int, n_hub: int = 0) -> Path:
    path = folder/f"flows_{n_flows}_{n_hub}.parquet"
    return path if path.is_file() else make_flows(path, n_flows, n_hub)


def known_groups(config, vocabulary) -> set[str]:
    "Groups that the builder of this version builds."
    from aml_miner.features.feature_builder import matrix_features
    known = set()
    for g in (*BASE, *NEW, *OFF):
        try: matrix_features(config.model_copy(update={"groups": (g,)}), vocabulary)
        except KeyError: continue
        known.add(g)
    return known


def measure_build(folder: Path, money_flows: Path | None, groups: tuple[str, ...], threads: int) -> dict:
    "Build once in this process."
    from aml_miner.config.model_config import load_config
    from aml_miner.features.feature_builder import FeatureBuilder
    from aml_miner.batches.history import HistoryStore
    config = load_config().feature_engineering
    paths = [folder/f"{name}.parquet" for name in ("alerts", "features", "clusters")]
    vocabulary = FeatureBuilder(config).learn_vocabulary([paths[0]]).vocabulary
    groups = tuple(g for g in groups if g in known_groups(config, vocabulary))
    builder = FeatureBuilder(config.model_copy(update={"groups": groups or ("alert",)}), vocabulary, threads)
    history, shape = folder.parent/"history.duckdb", (0, 0)

    def build():
        past = None
        if history.is_file() and {"walk", "history", "graph"} & {*groups}:
            from aml_miner.batches.schema import ALERTS, BatchTable
            with HistoryStore(history) as store:
                past = store.past(("", DAY, BatchTable(ALERTS, paths[0])), config.label_delay_days, config.history_days)
        return builder.build_all_features(*paths, money_flows, past).shape

    cost = timed(build) if groups else {"shape": shape, "cpu": 0., "wall": 0.}
    return cost | {"gb": peak_gb()}


def peak_gb() -> float:
    "Of this process since it began; what getrusage tells on Linux begins with the parent's."
    status = Path("/proc/self/status")
    if status.is_file(): return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**(30 if sys.platform == "darwin" else 20)


def timed(work) -> dict:
    def cpu(): return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    before, start = cpu(), time.perf_counter()
    shape = work()
    return {"shape": shape, "cpu": cpu() - before, "wall": time.perf_counter() - start, "gb": peak_gb()}


KEY = ["window_days", "processing_date", "address"]


def pandas_base(folder: Path):
    "The joins behind base, as they are usually written."
    import pandas as pd
    alerts, profiles, clusters = (to_floats(pd.read_parquet(folder/f"{n}.parquet")) for n in ("alerts", "features", "clusters"))
    X = alerts.merge(profiles, on=KEY, how="left")
    X = X.join(pd.json_normalize(alerts.evidence_json.map(json.loads).tolist()).drop(columns="paths").add_prefix("evidence_"))
    indicators = alerts.risk_indicators.explode()
    X = X.join(pd.crosstab(indicators.index, indicators).add_prefix("indicator_").reindex(X.index, fill_value=0))
    for c in ("total_volume_usd", "tx_total_count", "unique_counterparties", "pagerank", "khop2_count", "behavioral_anomaly_score"):
        X[f"rank_{c}"] = X.merge(profiles[KEY].assign(r=profiles.groupby(KEY[:2])[c].rank(pct=True)), on=KEY, how="left").r
    X["rank_volume"] = X.groupby("typology_type").volume_usd.rank(pct=True)
    X["address_alerts"] = X.groupby(KEY).alert_id.transform("count")
    members = clusters.explode("related_alert_ids").groupby("related_alert_ids").agg(
        n=("cluster_id", "count"), alerts=("total_alerts", "max"), usd=("total_volume_usd", "max"))
    hours = pd.DataFrame(X.hourly_activity.map(lambda h: h if h is not None else [0] * 24).tolist()).to_numpy()
    X["night"] = hours[:, :6].sum(1) / hours.sum(1).clip(1)
    return X.merge(members, left_on="alert_id", right_index=True, how="left")


def pandas_all(folder: Path, money_flows: Path):
    "Those, sums of flows, windows, degrees and the history."
    import pandas as pd
    X, moved = pandas_base(folder), to_floats(pd.read_parquet(money_flows))
    end = moved.timestamp.max()
    for mine, other, side in (("source_address", "dest_address", "out"), ("dest_address", "source_address", "in")):
        for days in (1, 3, 7):
            part = moved[moved.timestamp > end - days * 86_400_000]
            sums = part.groupby(mine).agg(
                n=("amount_usd", "size"), usd=("amount_usd", "sum"), mean=("amount_usd", "mean"), max=("amount_usd", "max"), pairs=(other, "nunique"))
            X = X.merge(sums.add_suffix(f"_{side}_{days}"), left_on="address", right_index=True, how="left")
        pairs = moved.groupby([mine, other]).size().reset_index(name="n")
        repeats = pairs.assign(repeats=pairs.n > 1).groupby(mine).agg(most=("n", "max"), repeats=("repeats", "sum"))
        X = X.merge(repeats.add_suffix(f"_{side}"), left_on="address", right_index=True, how="left")
        below = moved[(moved.amount_usd >= 9000) & (moved.amount_usd < 10000)].groupby(mine).size().rename(f"below_{side}")
        X = X.merge(below, left_on="address", right_index=True, how="left")
        gap = moved.sort_values([mine, "timestamp"]).groupby(mine).timestamp.diff().groupby(moved[mine]).agg(["mean", "std"]).add_suffix(f"_gap_{side}")
        X = X.merge(gap, left_on="address", right_index=True, how="left")
    earlier, before = (to_floats(pd.read_parquet(folder.parent/"earlier"/f"{n}.parquet")) for n in ("alerts", "features"))
    X = X.merge(earlier.groupby("address").agg(earlier=("alert_id", "size"), illicit=("ground_truth", "sum")), left_on="address", right_index=True, how="left")
    return X.merge(before.drop(columns="processing_date"), on=["window_days", "address"], how="left", suffixes=("", "_before"))


def to_floats(frame):
    decimals = [c for c in frame if c.endswith("_usd") or c == "volume_usd"]
    return frame.astype({c: float for c in decimals})


RIVALS = {"pandas: base": lambda folder, money_flows: pandas_base(folder), "pandas: all": pandas_all}


def run(name: str, folder: Path, money_flows: Path | None, args) -> dict:
    "The cheapest of some runs, each in a process of its own."
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS"), "1")
    command = [sys.executable, __file__, str(folder), "--only", name, "--threads", str(args.threads)]
    if money_flows: command += ["--flows-file", str(money_flows)]
    runs = []
    for _ in range(args.repeat):
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | one)
        if done.returncode: raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return min(runs, key=lambda r: r["cpu"])


def line(name, cost, remark=""):
    print(f"| {name:22} |{cost['shape'][1]:9,} |{cost['cpu']:8.2f} |{cost['wall']:8.2f} |{cost['gb']:9.2f} | {remark:24} |", flush=True)


def head(first, second="columns"):
    print(f"\n| {first:22} |{second:>9} |{'CPU s':>8} |{'wall s':>8} |{'peak GB':>9} | {'':24} |")
    print(f"|{'-' * 24}|{'-' * 9}:|{'-' * 8}:|{'-' * 8}:|{'-' * 9}:|{'-' * 26}|", flush=True)


def group_table(folder: Path, money_flows: Path | None, args) -> None:
    "What each group costs."
    head("groups")
    made_here = (folder.parent/"earlier").is_dir()
    for name in (*SETS, *(RIVALS if made_here else ())):
        if args.sets and name not in args.sets: continue
        cost = run(name, folder, money_flows, args)
        if name != "imports" and not cost["shape"][1]: continue
        cpu, gb = TARGETS.get(name, (None, None))
        line(name, cost, f"target {cpu} CPU s, {gb} GB" if cpu else "")


def size_table(folder: Path, args) -> list[tuple[int, dict]]:
    "How the cost of all that reads flows grows with them."
    head("all that reads flows")
    costs = []
    for millions in args.sizes:
        n = round(millions * 1e6)
        costs.append((n, run("new", folder/"batch", flows(folder, n), args)))
        line(f"{n:,} flows", costs[-1][1])
    if len(costs) > 1: print(f"CPU seconds grow with flows to the power of {exponent(costs):.2f}; memory by {1e3 * slope(costs):.0f} bytes a flow")
    return costs


def exponent(costs): return np.polyfit(np.log([n for n, _ in costs]), np.log([c["cpu"] for _, c in costs]), 1)[0]


def slope(costs): return np.polyfit([n for n, _ in costs], [c["gb"] * 2**30 / 1e3 for _, c in costs], 1)[0]


def hub_table(folder: Path, args) -> None:
    "What one address with a great part of the flows does to the cost."
    head("all that reads flows")
    for n_hub in (0, args.flows // 5):
        line(f"hub of {n_hub:,}" if n_hub else "no hub", run("new", folder/"batch", flows(folder, args.flows, n_hub), args))


def plot(costs: list[tuple[int, dict]], path: Path) -> None:
    "Cost against size, on logarithmic axes."
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    n = np.array([n for n, _ in costs]) / 1e6
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for ax, what, label in ((axes[0], "cpu", "CPU seconds, one thread"), (axes[1], "gb", "peak memory, GB")):
        values = np.array([c[what] for _, c in costs])
        ax.plot(n, values, "o-", color="#0072B2", label="measured")
        ax.plot(n, values[0] * n / n[0], "--", color="#999999", label="in proportion to flows")
        ax.set(xscale="log", yscale="log", xlabel="flows, millions", ylabel=label)
        ax.set_xticks(n, [f"{x:g}" for x in n])
        ax.set_xticks([], minor=True)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
        ax.legend(frameon=False)
    fig.suptitle(f"Features of flows: CPU seconds grow with flows to the power of {exponent(costs):.2f}")
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main(argv: list[str] | None = None) -> int:
    "Command line."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a batch folder; default: make one")
    parser.add_argument("--tables", nargs="+", choices=("groups", "sizes", "hub"), default=["groups", "sizes", "hub"], help="what to print (default: all)")
    parser.add_argument("--sets", nargs="+", choices=[*SETS, *RIVALS], help="lines of the first table (default: all)")
    parser.add_argument("--flows", type=int, default=5_000_000, help="flows of the made batch")
    parser.add_argument("--hub", type=int, default=0, help="so many of them at one alerted address")
    parser.add_argument("--sizes", type=float, nargs="+", default=[1, 2, 5, 10], help="millions of flows in the second table")
    parser.add_argument("--keep", type=Path, help="folder for the made batch; used again where it exists")
    parser.add_argument("--plot", type=Path, help="PNG of the second table")
    parser.add_argument("--threads", type=int, default=1, help="DuckDB threads")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each line; the one with least CPU time is shown")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # one line, in this process, as JSON
    parser.add_argument("--flows-file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.only:
        if args.only in RIVALS: cost = timed(lambda: RIVALS[args.only](args.folder, args.flows_file).shape)
        else: cost = measure_build(args.folder, args.flows_file, SETS[args.only], args.threads)
        print(json.dumps(cost))
        return 0
    if args.folder:
        if not (args.folder/"alerts.parquet").is_file(): parser.error(f"{args.folder}: holds no alerts.parquet")
        own = args.folder/"money_flows.parquet"
        group_table(args.folder.resolve(), own if own.is_file() else None, args)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        batch = make_batch(folder, args.flows, args.hub)
        print(f"{N_ALERTS:,} alerts, {N_PROFILES:,} profiles, {N_CLUSTERS:,} clusters, {args.flows:,} flows in {folder} "
              f"after {time.perf_counter() - started:.0f} s")
        if "groups" in args.tables: group_table(batch, flows(folder, args.flows, args.hub), args)
        if "sizes" in args.tables:
            costs = size_table(folder, args)
            if args.plot: plot(costs, args.plot)
        if "hub" in args.tables: hub_table(folder, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
