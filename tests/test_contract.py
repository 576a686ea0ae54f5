"""Each check of the data contract finds the fault that is planted for it; a clean directory has none."""
from datetime import date, timedelta
from decimal import Decimal
import json

import numpy as np
import pandas as pd
import pytest

from aml_miner.batches.contract import check_batches, main
from aml_miner.batches.contract_checks import CARRIED, CHECK_SEVERITIES
from aml_miner.batches.contract_findings import Tally
from aml_miner.batches.contract_queries import CHECKS
from aml_miner.testing.tiny_batch import tiny_batch
from conftest import ROOT, published

MINUTES = 1_023_457  # milliseconds by which the tiny batch's flows leave the full hours
TWICE = lambda t: pd.concat([t, t])  # noqa: E731


def day_name(i): return str(date(2025, 9, 1) + timedelta(i))


def day(root, i=0, name=None, **changes):
    "A clean day, with changes of its tables after it was made clean."
    def clean(table):
        change = changes.pop(table, lambda t: t)
        if not callable(change): return change
        def tables(frame):
            if table == "money_flows": frame = frame.assign(timestamp=frame.timestamp - MINUTES)
            if table == "alerts": frame = frame.assign(address=frame.address.replace("gina", "quiet"),
                alert_confidence_score=(frame.alert_confidence_score + i / 1000).clip(0, 1))
            return change(frame)
        return tables
    tables = {table: clean(table) for table in ("alerts", "features", "clusters", "money_flows", "address_labels")}
    return tiny_batch(root / (name or day_name(i)), changes.pop("processing_date", day_name(i)), seed=i, **tables, **changes)


def many(copies, change=lambda t, i: t):
    "Alerts in some copies, each with ids, volumes and changes of its own."
    def repeat(t):
        parts = [t.assign(alert_id=[f"{a}_{i}_{n}" if i else a for n, a in enumerate(t.alert_id)],
            volume_usd=[v + Decimal(i) for v in t.volume_usd]) for i in range(copies)]
        return pd.concat([change(p, i) for i, p in enumerate(parts)], ignore_index=True)
    return repeat


def many_flows(copies, change=lambda t, i: t):
    "Flows in some copies, seconds apart."
    return lambda t: pd.concat([change(t.assign(timestamp=t.timestamp - 1_001 * i, tx_hash=t.tx_hash + f"_{i}"), i) for i in range(copies)], ignore_index=True)


def crowd(*columns):
    "Rows in four copies, each of other addresses."
    return lambda t: pd.concat([t.assign(**{c: t[c] + (str(i) if i else "") for c in columns}) for i in range(4)], ignore_index=True)


def put(column, value, row=0):
    "A table with another value in one row."
    return lambda t: t.assign(**{column: [value if i == row else v for i, v in enumerate(t[column])]})


def dates(root, n, step=1, **changes):
    "Clean days, whose tables change by date: table -> function of the date's number, which gives a change or None."
    for i in range(n): day(root, i * step, **{table: c for table, change in changes.items() if (c := change(i))})


def settle(illicit, licit, copies=4):
    "Alerts of which so many are illicit, so many licit, and the others open."
    return lambda t: (a := many(copies)(t)).assign(ground_truth=pd.array([1] * illicit + [0] * licit + [None] * (len(a) - illicit - licit), "Int64"))


def volumes(root):
    "Sixteen dates, on which alerts, flows, amounts and kinds change."
    kind = {i: "early" if i < 8 else "late" for i in range(16)} | {11: "cycle"}
    dates(root, 16,
          alerts=lambda i: many(20 if i == 5 else 4, lambda t, k: t.assign(typology_type=t.typology_type if k == 0 else kind[i])),
          money_flows=lambda i: many_flows(12 if i == 6 else 3, lambda t, k: t.assign(amount_usd=[v * (1000 if i == 7 else 1) for v in t.amount_usd])))


def labels(shares, **more):
    "Dates, weeks apart, with shares of open, and of illicit among settled alerts."
    def plant(root):
        for i, (still_open, illicit) in enumerate(shares):
            settled = round(48 * (1 - still_open))
            day(root, 7 * i, alerts=settle(round(settled * illicit), settled - round(settled * illicit)), **more)
    return plant


def periods(root):
    "Weekly dates of four months, one of which has lost half."
    dates(root, 16, 7, alerts=lambda i: many(8 if 5 <= i < 9 else 20), money_flows=lambda i: many_flows(3 if 5 <= i < 9 else 10))


def leaky(root):
    "Labels that the description and a code give away."
    def plant(t):
        t = many(20, lambda p, i: p.assign(address=p.address + str(i)))(t)
        rng = np.random.default_rng(0)
        truth = rng.random(len(t)) < .3
        return t.assign(ground_truth=truth.astype(int), description=np.where(truth, "case confirmed", "case dismissed"),
                        pattern_type=np.where(truth & (rng.random(len(t)) < .6), "S", "none"))
    day(root, alerts=plant)


def paid_by(root):
    "A day beside transactions whose label is their kind of payment."
    day(root)
    rng = np.random.default_rng(0)
    paid = rng.choice(["cash", "card", "wire"], 400)
    pd.DataFrame({"tx_id": range(400), "timestamp": pd.Timestamp("2025-09-01") + pd.to_timedelta(rng.integers(0, 40_000, 400), "min"),
                  "source_account": rng.integers(0, 300, 400).astype(str), "target_account": "x", "amount_usd": rng.random(400), "payment_format": paid,
                  "is_laundering": (paid == "cash").astype("int8")}).to_parquet(root / "transactions.parquet")


def outcomes(*lines, head="processing_date,alert_id,event,time,reviewer,minutes,read_because,inclusion_probability"):
    "A day beside a file of outcomes."
    def plant(root):
        day(root)
        (root / "outcomes.csv").write_text("\n".join([head, *lines]) + "\n")
    return plant


READ = "2025-09-01,a01,closed_false,2025-09-01T15:00:00Z,Ann,9,queue,1"


def spell(t): return t.assign(address=t.address.str.upper())


FAULTS = {
    "batch_unreadable": lambda d: day(d, clusters=b"PAR1"),
    "column_unusable": lambda d: day(d, alerts=lambda t: t.drop(columns="severity")),
    "key_missing": lambda d: day(d, alerts=put("address", "")),
    "key_repeated": lambda d: day(d, alerts=TWICE),
    "amount_impossible": lambda d: day(d, alerts=put("volume_usd", Decimal(-5))),
    "value_out_of_range": lambda d: day(d, alerts=put("alert_confidence_score", 87.5)),
    "severity_unknown": lambda d: day(d, alerts=put("severity", "urgent")),
    "severity_missing": lambda d: day(d, alerts=put("severity", "")),
    "dates_mixed": lambda d: day(d, alerts=put("processing_date", date(2025, 9, 2))),
    "meta_disagrees": lambda d: day(d, meta=lambda m: m | {"counts": m["counts"] | {"alerts": 3}}),
    "no_checksum": lambda d: day(d, meta={"sha256": None}),
    "columns_absent": lambda d: day(d, alerts=lambda t: t.drop(columns="description")),
    "json_unreadable": lambda d: day(d, alerts=put("evidence_json", "{'a': 1}")),
    "cluster_alert_absent": lambda d: day(d, clusters=put("related_alert_ids", ["a01", "z99"])),
    "alerts_without_profile": lambda d: day(d, features=lambda t: t.iloc[1:]),
    "labels_of_addresses": lambda d: day(d, alerts=lambda t: t.drop(columns="ground_truth")),
    "flow_after_date": lambda d: day(d, money_flows=lambda t: t.assign(timestamp=t.timestamp + 3 * 86_400_000)),
    "amount_absurd": lambda d: day(d, money_flows=put("amount_usd", Decimal(45 * 10**14))),
    "time_too_early": lambda d: day(d, money_flows=put("timestamp", 0)),
    "id_scientific": lambda d: day(d, money_flows=put("source_address", "8.72471E+09")),
    "id_decimal": lambda d: day(d, money_flows=put("dest_address", "8724710026.0")),
    "id_blank": lambda d: day(d, features=put("address", "alice ")),
    "id_placeholder": lambda d: day(d, money_flows=put("source_address", "NULL")),
    "text_garbled": lambda d: day(d, alerts=put("description", "JÃ¤rn AB")),
    "volume_zero": lambda d: day(d, alerts=lambda t: many(3)(t).assign(volume_usd=Decimal(0))),
    "flow_zero": lambda d: day(d, money_flows=lambda t: many_flows(3)(t).assign(amount_usd=Decimal(0))),
    "flow_to_itself": lambda d: day(d, money_flows=lambda t: many_flows(3)(t).assign(dest_address=lambda t: t.source_address)),
    "flow_outside_window": lambda d: day(d, money_flows=many_flows(4, lambda t, i: t.assign(timestamp=t.timestamp - 40 * i * 86_400_000))),
    "time_unit": lambda d: day(d, money_flows=lambda t: many_flows(2)(t).assign(timestamp=lambda t: t.timestamp * 1000)),
    "time_default": lambda d: day(d, features=put("first_activity_timestamp", 0)),
    "time_midnight": lambda d: day(d, money_flows=lambda t: many_flows(2)(t).assign(timestamp=lambda t: t.timestamp // 86_400_000 * 86_400_000)),
    "time_full_hour": lambda d: day(d, money_flows=lambda t: many_flows(2)(t).assign(timestamp=lambda t: t.timestamp // 86_400_000 * 86_400_000 + 7_200_000)),
    "flow_network": lambda d: day(d, money_flows=put("network", "ethereum")),
    "label_network": lambda d: day(d, address_labels=put("network", "ethereum")),
    "profile_times": lambda d: day(d, features=put("last_activity_timestamp", 1_600_000_000_000)),
    "profile_sums": lambda d: day(d, features=put("total_volume_usd", Decimal(1))),
    "cluster_of_one": lambda d: day(d, clusters=lambda t: pd.concat([t.assign(cluster_id=t.cluster_id + str(i), related_alert_ids=[["a01"]] * 4,
    total_alerts=1) for i in range(5)])),
    "alerts_without_flows": lambda d: day(d, alerts=many(5, lambda t, i: t.assign(address=t.address + "x" * i))),
    "no_flows": lambda d: day(d, money_flows=None),
    "address_case": lambda d: day(d, alerts=spell),
    "address_form": lambda d: day(d, features=lambda t: t.assign(address="00" + t.address)),
    "alert_repeated": lambda d: day(d, alerts=lambda t: pd.concat([t, t.assign(alert_id=t.alert_id + "x")])),
    "flow_repeated": lambda d: day(d, money_flows=TWICE),
    "flow_same_time": lambda d: day(d, money_flows=lambda t: many_flows(2)(t).assign(timestamp=lambda t: t.timestamp.iloc[1])),
    "flow_same_clock": lambda d: day(d, money_flows=lambda t: many_flows(2)(t).assign(timestamp=lambda t: t.timestamp // 86_400_000 * 86_400_000 + 44_248_843)),
    "flow_same_amount": lambda d: day(d, money_flows=lambda t: many_flows(2)(t).assign(amount_usd=Decimal(9999))),
    "alert_same_volume": lambda d: day(d, alerts=lambda t: many(2)(t).assign(volume_usd=Decimal(9999))),
    "flow_dominates": lambda d: day(d, money_flows=put("amount_usd", Decimal(10) ** 11)),
    "flow_stale": lambda d: day(d, money_flows=lambda t: t.assign(timestamp=t.timestamp - 20 * 86_400_000)),
    "profile_below_flows": lambda d: day(d, features=crowd("address"), money_flows=lambda t: TWICE(crowd("source_address", "dest_address")(t))),
    "profile_above_flows": lambda d: day(d, features=lambda t: crowd("address")(t).assign(total_in_usd=Decimal(10 ** 7)),
    money_flows=crowd("source_address", "dest_address")),
    "label_conflict": lambda d: day(d, alerts=put("ground_truth", 0, row=5)),
    "cluster_count": lambda d: day(d, clusters=put("total_alerts", 7)),
    "alerts_unclustered": lambda d: day(d, alerts=many(9)),
    "batch_repeated": lambda d: (day(d, name="a"), day(d, name="b")),
    "windows_apart": lambda d: [day(d, name=str(w), alerts=lambda t, w=w: t[t.window_days == w]) for w in (7, 30)],
    "path_disagrees": lambda d: day(d, 1, name="2025-09-01"),
    "network_unknown": lambda d: day(d, meta={"network": None}, money_flows=None, address_labels=None),
    "networks_share_addresses": lambda d: (day(d), day(d, 1, meta={"network": "ethereum"})),
    "address_spellings": lambda d: (day(d), day(d, 1, alerts=lambda t: t.assign(address=[a if a == "quiet" else a.title() for a in t.address]))),
    "alert_id_reused": lambda d: (day(d), day(d, 1, alerts=put("address", "erin", row=8), clusters=lambda t: t),
    day(d, 2, alerts=put("address", "bob", row=8))),
    "day_copied": lambda d: (day(d), day(d, 0, name=day_name(1), processing_date=day_name(1))),
    "schema_changes": lambda d: (day(d), day(d, 1, features=lambda t: t.drop(columns="pagerank"))),
    "category_spellings": lambda d: day(d, alerts=put("risk_indicators", ["RAPID"])),
    "category_new": volumes, "category_gone": volumes, "mix_jumps": volumes, "alerts_jump": volumes, "flows_jump": volumes, "amounts_jump": volumes,
    "constant_column": lambda d: day(d, features=lambda t: pd.concat([t.assign(address=t.address + str(i)) for i in range(20)]).assign(pagerank=.5)),
    "score_constant": lambda d: day(d, alerts=lambda t: many(6)(t).assign(severity="high")),
    "date_absurd": lambda d: day(d, processing_date="2150-01-01", money_flows=None),
    "date_ahead": lambda d: day(d, processing_date="2099-01-01"),
    "dates_missing": lambda d: [day(d, i) for i in (0, 1, 2, 3, 5)],
    "alerts_period": periods, "flows_period": periods,
    "no_labels": lambda d: day(d, alerts=lambda t: t.assign(ground_truth=pd.array([None] * 12, "Int64"))),
    "one_class": lambda d: day(d, alerts=settle(0, 40)),
    "labels_never_settle": labels([(.8, .2)] * 9),
    "labels_lost": labels([(.1, .2), (.9, .2), (.1, .2), (.3, .2)]),
    "labels_at_once": labels([(0, .2)] * 3),
    "illicit_jumps": labels([(0, .9 if i == 3 else .2) for i in range(8)]),
    "illicit_ends": labels([(0, .3)] * 4 + [(0, 0)] * 3),
    "transactions_give_label": paid_by,
    "outcomes_unreadable": outcomes(READ, READ + ",1"),
    "outcome_impossible": outcomes(READ, READ.replace("closed_false", "closed"), READ.replace(",queue,1", ",queue,2")),
    "outcome_of_no_alert": outcomes(READ, READ.replace("a01", "A01")),
    "outcome_of_no_batch": outcomes(READ, READ.replace("2025-09-01,", "2025-08-31,")),
    "outcome_repeated": outcomes(READ, READ),
    "outcome_contradicts": outcomes(READ, READ.replace("closed_false", "reported")),
    "outcome_without_chance": outcomes(READ.replace("queue,1", "exploration,")),
    "label_given_away": leaky, "label_sure_value": leaky,
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    "What a planted fault leads to; faults that share a directory are planted once."
    known = {}
    def of(name):
        plant = FAULTS[name]
        if plant not in known:
            folder = tmp_path_factory.mktemp("planted")
            plant(folder)
            known[plant] = {f.check.name: f for f in check_batches(folder).findings}
        return known[plant]
    return of


def test_each_check_has_a_fault():
    assert {c.name for c in CHECKS} - set(FAULTS) == {"other_fault", "other_remark"}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_found(name, findings):
    finding = findings(name).get(name)
    assert finding, f"found were {', '.join(findings(name)) or 'none'}"
    assert finding.bad > 0 and finding.example not in ("", "None") and finding.severity in CHECK_SEVERITIES


def test_clean_directory_has_no_finding(tmp_path):
    dates(tmp_path, 9)
    contract = check_batches(tmp_path)
    assert contract.lines() == [contract.summary]
    assert contract.asked >= {c.name for c in CARRIED}


def test_clean_outcomes_have_no_finding_and_are_labels(tmp_path):
    unlabelled = lambda t: t.assign(ground_truth=None)
    for name in ("without", "with"): day(tmp_path / name, alerts=unlabelled)
    (tmp_path / "with" / "outcomes.csv").write_text("processing_date,alert_id,event,time,reviewer\n2025-09-01,a01,reported,2025-09-02T09:00:00Z,Ann\n")
    found = {name: {f.check.name for f in check_batches(tmp_path / name).findings} for name in ("without", "with")}
    assert found["without"] - found["with"] == {"no_labels"} and not found["with"] - found["without"]


def test_sample_has_no_error_or_warning():
    contract = check_batches(ROOT / "data" / "sample")
    assert not contract.at_least("warning"), contract.lines()


def test_what_no_line_knows_is_told():
    tally = Tally()
    tally.carry(["is being replaced while it is read; wait until its writer is done"], "a", {}, fault=True)
    tally.carry(["the moon is full"], "b", {}, fault=False)
    assert [(f.check.name, f.severity) for f in tally.findings()] == [("other_fault", "error"), ("other_remark", "note")]


def test_exit_code_is_that_of_the_severity(tmp_path, capsys):
    day(tmp_path / "clean"), day(tmp_path / "warned", money_flows=TWICE), day(tmp_path / "noted", money_flows=None), day(tmp_path / "bad",
        alerts=put("severity", "urgent"))
    codes = {name: [main(["--data-dir", str(tmp_path / name), "--fail-on", least]) for least in CHECK_SEVERITIES] for name in ("clean", "noted", "warned",
        "bad")}
    assert codes == {"clean": [0, 0, 0], "noted": [3, 0, 0], "warned": [3, 3, 0], "bad": [2, 2, 2]}
    assert main(["--data-dir", str(tmp_path / "nowhere")]) == 2
    assert "severity_unknown" in capsys.readouterr().out


def test_json_has_every_check_and_nothing_of_today(tmp_path):
    day(tmp_path / "d", processing_date="2099-01-01", name="2099-01-01")
    assert main(["--data-dir", str(tmp_path / "d"), "--json", str(tmp_path / "a.json"), "--all"]) == 0
    report = json.loads((tmp_path / "a.json").read_text())
    names = [c["check"] for c in report["checks"]]
    assert set(names) == {c.name for c in CHECKS if c.compared} and "date_ahead" not in names
    main(["--data-dir", str(tmp_path / "d"), "--json", str(tmp_path / "b.json")])
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_texts_of_a_batch_stay_texts(tmp_path):
    day(tmp_path, money_flows=put("source_address", "<b>\x1b[31m\n8\x00"))
    contract = check_batches(tmp_path)
    lines, page, markdown = "\n".join(contract.lines()), contract._repr_html_(), contract.to_markdown()
    assert all("id_blank" in text for text in (lines, page, markdown))
    assert not any(sign in text for text in (lines, page, markdown) for sign in ("\x1b", "\x00")) and "<b>" not in page + markdown


def test_published_batches_have_what_they_have():
    weekly = {f.check.name: f for f in check_batches(published("torus_weekly_batches")).findings}
    assert {"alerts_period", "illicit_ends", "illicit_jumps", "mix_jumps", "category_gone"} <= set(weekly)
    assert "2025-05-19" in weekly["illicit_ends"].example and not any(f.severity == "error" for f in weekly.values())
    example = {f.check.name: f for f in check_batches(published("schema_example")).findings}
    assert {"alerts_without_profile", "profile_below_flows"} <= set(example) and example["alerts_without_profile"].bad == 14
