"""What a notebook cannot see of the monitoring rules: published data, fresh processes, little memory, a hub, every row order."""
import hashlib

from conftest import ROOT, published, run_module
import pandas as pd
import pytest

from aml_miner.batches.schema import connect
from aml_miner.config.model_config import load_config
from aml_miner.monitoring.rules import RULES, find_alerts, rule_table
from aml_miner.monitoring.tables import small_transactions
from aml_miner.transactions.amlsim import read_amlsim
from aml_miner.transactions.amlworld import read_amlworld
from aml_miner.transactions.table import read_transactions

LAST = "2022-09-11"  # processing date that sees the transactions to 10 September 2022; what follows is almost only laundering
THIN = {"window_days": 10,  # for data with one payment an account
        "structuring": {"min_payments": 1}, "rapid_movement": {"hours": 96, "min_usd": 500, "min_share": 0.5, "max_share": 2},
        **{fan: {"min_counterparties": 2, "min_usd_each": 100, "min_usd": 1000} for fan in ("fan_in", "fan_out")},
        "volume_spike": {"min_history_days": 1, "min_active_days": 1, "multiple": 2, "min_usd": 1000},
        "counterparty_burst": {"min_new": 2, "min_history_days": 1, "multiple": 1},
        **{change: {"min_usd": 100, "min_history_days": 1, "min_history_payments": 1} for change in ("currency_change", "format_change")},
        **{chain: {"min_usd_each": 100, "min_usd": 500, "min_share": 0.5, "max_share": 1.2, "min_steps": 2} for chain in ("layering", "cycle")},
        "scatter_gather": {"min_usd_each": 100, "min_usd": 500, "min_share": 0.5, "max_share": 1.2, "min_between": 2},
        "mixer_contact": {"min_others": 2}}


def run(source, window_days=10, threads=1, memory_limit=None, overrides=None, **days):
    "Alerts of a table or parquet file, and the table of the rules where there are labels."
    with connect(threads, memory_limit) as con:
        read_transactions(source, con)
        settings = load_config(overrides={"monitoring": overrides or {}}).monitoring
        alerts = find_alerts(con, settings, window_days=window_days, **days).df()
        labelled = con.execute("SELECT count(is_laundering) FROM transactions").fetchall()[0][0]
        return alerts, rule_table(alerts, con, window_days) if labelled else None


def same(a, b): pd.testing.assert_frame_equal(a.reset_index(drop=True), b.reset_index(drop=True), check_dtype=len(a) > 0, check_column_type=len(a) > 0)


@pytest.fixture(scope="module")
def amlworld(tmp_path_factory):
    "The down-sampled cut of AMLworld, to 10 September 2022."
    path = tmp_path_factory.mktemp("amlworld") / "transactions.parquet"
    read_amlworld(published("amlworld") / "amlworld_hi_small_cut15k.parquet", path)
    table = pd.read_parquet(path)
    return table[table.timestamp < LAST].reset_index(drop=True)


@pytest.mark.parametrize("window_days", [3, 10])
@pytest.mark.parametrize("overrides", [None, THIN], ids=["default", "thin"])
def test_alerts_name_their_transactions(amlworld, window_days, overrides):
    "On published data: the transactions of an alert lie in its window, concern its account, and end on the day before its date."
    alerts, table = run(amlworld, window_days, overrides=overrides)
    named = alerts[["account", "processing_date", "tx_ids", "first_ms", "last_ms"]].reset_index().explode("tx_ids")
    behind = named.merge(amlworld, left_on="tx_ids", right_on="tx_id")
    assert len(behind) == alerts.tx_ids.map(len).sum() > 0
    assert ((behind.source_account == behind.account) ^ (behind.target_account == behind.account)).all()
    assert (behind.timestamp < behind.processing_date).all()
    assert (behind.timestamp >= behind.processing_date - pd.Timedelta(days=window_days)).all()
    ends = behind.groupby("index").timestamp.agg(["min", "max"]).apply(lambda x: x.astype("datetime64[ms]").astype("int64"))
    whole = alerts[alerts.tx_ids.map(len) < 300]
    assert (ends.loc[whole.index, "min"] == whole.first_ms).all() and (ends["max"] == alerts.last_ms).all()
    assert not alerts.duplicated(["rule", "account", "processing_date"]).any()
    gap = alerts.sort_values(["rule", "account", "processing_date"]).groupby(["rule", "account"]).processing_date.diff().dropna()
    assert (gap >= pd.Timedelta(days=7)).all()
    assert table.alerts.iloc[-1] == len(alerts) == table.alerts.iloc[:-1].sum()


def test_what_alerts_do_not_depend_on(amlworld):
    "Labels, what happens later, the order of the rows, the number of threads, the first day that is asked for."
    alerts, _ = run(amlworld, overrides=THIN)
    blind = amlworld.assign(is_laundering=None, attempt_id=None, typology=None)
    same(alerts, run(blind, overrides=THIN)[0])
    same(alerts, run(amlworld.assign(is_laundering=1 - amlworld.is_laundering), overrides=THIN)[0])
    same(alerts, run(amlworld.sample(frac=1, random_state=3), threads=4, overrides=THIN)[0])
    for day in ("2022-09-03", "2022-09-06", "2022-09-09"):
        until = alerts[alerts.processing_date <= day]
        assert 0 < len(until) < len(alerts)
        same(until, run(amlworld[amlworld.timestamp < day], overrides=THIN)[0])
        same(until, run(amlworld, overrides=THIN, last_day=day)[0])
        same(alerts[alerts.processing_date >= day], run(amlworld, overrides=THIN, first_day=day)[0])


def test_amlworld_figures(amlworld):
    "The down-sampled cut: hardly any false alert at a bank's thresholds; at low ones a third, and a fifth of the laundering accounts."
    _, table = run(amlworld)
    assert table.loc["all rules", "share_false"] < 0.05 and table.loc["all rules", "recall"] > 0.07
    _, table = run(amlworld, overrides=THIN)
    assert 0.2 < table.loc["all rules", "share_false"] < 0.4 and table.loc["all rules", "recall"] > 0.18
    assert (table.only_here[:-1].sum() == table.only_here.iloc[-1]) and (table.found <= table.found.iloc[-1]).all()


def test_amlsim_needs_another_scale_of_money(tmp_path):
    "Payments of 10 to 600: silent at a bank's amounts but for the rule that counts counterparties; with one factor a few per cent are right."
    read_amlsim(published("amlsim") / "amlsim_ibm_20K_cycle200_transactions.parquet", tmp_path / "t.parquet")
    alerts, _ = run(tmp_path / "t.parquet", 30)
    assert set(alerts.rule) == {"counterparty_burst"}
    _, table = run(tmp_path / "t.parquet", 30, overrides={"usd_factor": 0.02})
    assert 0.9 < table.loc["all rules", "share_false"] < 0.98 and table.loc["all rules", "recall"] > 0.1


def hub(n, accounts=400, days=30):
    "n transactions of which every fourth has to do with one account, and every amount is odd in cents."
    rows = []
    for i in range(n):
        a, b = (0 if i % 8 == 0 else 1 + i * 7919 % accounts), (0 if i % 8 == 4 else 1 + (i * 104_729 + 13) % accounts)
        usd, currency = 0.01 + i * 977 % 1_200_000 / 100, "Euro" if i % 50 == 3 else "US Dollar"
        rows.append((i * 31 % days, i * 7 % 1440 / 60, f"a{a}", f"a{b}", usd, currency, ("ach", "wire", "Cash")[i % 3]))
    return small_transactions(rows)


def test_little_memory_and_a_hub():
    "The same alerts with 60 MB; the tx_ids of the hub are capped and its sums are not."
    table = hub(20_000)
    alerts, _ = run(table, 30)
    same(alerts, run(table, 30, memory_limit="60MB")[0])
    assert set(alerts.rule) >= {"rapid_movement", "fan_in", "fan_out", "structuring"}
    busiest = alerts[(alerts.account == "a0") & (alerts.rule == "fan_in")].iloc[-1]
    assert len(busiest.tx_ids) == 300 and alerts.tx_ids.map(len).max() == 300
    sent = table[(table.target_account == "a0") & (table.source_account != "a0") & (table.amount_usd >= 500) & (table.timestamp < busiest.processing_date)
                 & (table.timestamp >= busiest.processing_date - pd.Timedelta(days=7))]
    assert busiest.amount_usd == pytest.approx(sent.amount_usd.sum(), abs=1e-6) and len(sent) > 300
    latest = sent.sort_values(["timestamp", "tx_id"]).tx_id[-300:]
    assert list(busiest.tx_ids) == sorted(latest)


FRESH = """import sys
sys.path[:0] = [sys.argv[1]]
from test_monitoring import hub, run
sys.stdout.write(run(hub(3_000), 30, threads=int(sys.argv[2]))[0].to_json(orient="records"))"""


def test_fresh_processes_say_the_same(tmp_path):
    "Other hash seeds, time zones, working directories and threads."
    answers = set()
    for seed, zone, threads in (("1", "UTC", 1), ("2", "Asia/Tokyo", 3)):
        done = run_module("-c", FRESH, ROOT / "tests", threads, cwd=tmp_path, PYTHONHASHSEED=seed, TZ=zone)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout) > 10_000
        answers.add(hashlib.sha256(done.stdout.encode()).hexdigest())
    assert len(answers) == 1


def test_amounts_that_add_up_to_a_threshold_exactly():
    "A hundred cents are a dollar: sums are exact where floating-point numbers would fall short."
    def total(usd):
        payments = small_transactions([(i // 20, 9, f"v{i}", "kit", usd) for i in range(100)])
        return run(payments, 30, overrides={"enabled": ["fan_in"], "fan_in": {"min_usd_each": 0.1, "min_usd": 10}})[0]

    assert sum([0.1] * 100) != 10
    assert len(total(0.1)) == 1 and len(total(0.09)) == 0


STORIES = [*[(d, 9, "smurf", "shop", 9_100 + d) for d in range(4)], (0, 9, "x", "mule", 9_876.5), (1, 9, "mule", "y", 9_543.21),
           *[(d, 10, f"v{d}", "kit", 2_345.6) for d in range(6)], *[(d, 10, "lit", f"w{d}", 2_345.6) for d in range(6)],
           *[(d, 11, "leo", "shop", 3_000) for d in range(4)],
           *[(d, 12, "eve", "shop", 33.3) for d in range(8)], (8, 12, "x", "eve", 25_000.5), (0, 8, "tom", "shop", 5), (70, 8, "tom", "y", 7_777.7),
           *[(d, 13, "ida", "shop", 21.5) for d in range(8)], *[(9, 13, "ida", f"n{i}", 80.8) for i in range(7)],
           *[(d, 14, "max", "shop", 45.6) for d in range(8)], (9, 14, "max", "z", 6_543.2, "Euro", "cheque"),
           *[(10 + i, 8, a, b, 14_321 - 100 * i) for i, (a, b) in enumerate(zip("ABCD", "BCDA"))],
           *[(12, 8 + i, "X", f"m{i}", 4_111 + i) for i in range(3)], *[(13, 8 + i, f"m{i}", "Y", 4_001 + i) for i in range(3)],
           *[(1, i, f"u{i}", "mixer", 777) for i in range(6)], *[(2, i, "mixer", f"t{i}", 750) for i in range(6)], (4, 9, "mixer", "una", 1_500)]


@pytest.mark.parametrize("name", list(RULES))
def test_one_rule_alone_gives_what_it_gives_among_all(name):
    "No rule leaves anything behind that changes the next; only the sign that several rules agree depends on the others."
    table = small_transactions(STORIES)
    together = run(table, 30)[0].query("rule == @name").drop(columns="risk_indicators")
    assert len(together)
    same(together, run(table, 30, overrides={"enabled": [name]})[0].drop(columns="risk_indicators"))
