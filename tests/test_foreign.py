"""Files that others made, as they come, read by a column map: every row is written or refused, and labels are right by a second count with pandas.
They lie beside the project and are read, never copied; a test is skipped where they are absent."""
import json
import shutil

from conftest import published, run_warm
import pandas as pd
import pytest

from aml_miner.batches.loader import BatchDataLoader
from aml_miner.conversion.convert import convert
from aml_miner.conversion.propose import propose
from aml_miner.transactions.column_maps import AlertMap, read_map
from aml_miner.transactions.mapped import read_mapped
from aml_miner.transactions.table import SourceError, read_transactions

SWEDISH_ALERTS = """id: alert_id
address: user_id
date: created_at
typology: trigger_reason
severity: severity
severities: {HÖG: high, MEDEL: medium, LÅG: low}
label: status
positive: [RAPPORTERAD]
negative: [AVSLUTAD]
unknown: [NY]
"""
TRIAGE = """timestamp: transaction_timestamp
source_account: sender_account_id
target_account: {first_of: [receiver_account_id, counterparty_id]}
amount: amount
currency: currency
payment_format: transaction_type
id: transaction_id
"""
BY_FLAG = "labels: {flag: is_labelled_suspicious, attempt_id: scenario_id, typology: typology_label}\n"
BY_CASES = """labels:
  cases:
    file: cases.parquet
    case: case_id
    opened: created_at
    links:
      - {file: case_alerts.parquet, from: case_id, to: alert_id}
      - {file: alerts.parquet, from: alert_id, to: account_id}
    events: {file: EVENTS, case: case_id, event: new_status, time: action_timestamp}
    positive: [closed - reported]
    negative: [closed - no action]
    open: [open]
"""


def foreign(name):
    "A folder of files that others made."
    folder = published("foreign") / name
    if not folder.is_dir(): pytest.skip(f"no {name} in {folder.parent}")
    return folder


def read(tmp_path, source, columns, **settings):
    "What came of a file by a map: the description and the transactions."
    (tmp_path / "map.yaml").write_text(columns)
    description = read_mapped(source, tmp_path / "transactions.parquet", tmp_path / "map.yaml", **settings)
    return description, read_transactions(tmp_path / "transactions.parquet").df()


def confirmed(proposal, **answers):
    "A proposed map after a human has filled in what it leaves open; anything else stays as proposed."
    for line in [line for line in proposal.splitlines() if '"?"' in line and not line.startswith("#")]:
        key = line.split(":")[0]
        proposal = proposal.replace(line, f"{key}: {answers.pop(key)}")
    assert not answers, answers
    return proposal


def test_transfers_of_reports_without_accounts(tmp_path):
    source = foreign("sars") / "transfers.csv"
    lines = pd.read_csv(source, dtype=str, keep_default_na=False)
    columns = confirmed(propose(source), all_in="USD")   # one line to fill in: nothing in the file names the currency
    with pytest.raises(SourceError, match=r"line \d+, column begin_date: is empty"): read(tmp_path, source, columns)
    description, table = read(tmp_path, source, columns, refused=tmp_path / "refused.csv")
    dated = lines[lines.begin_date != ""]
    assert (description["rows"], description["transactions"], description["refused"]) == (len(lines), len(dated), len(lines) - len(dated))
    assert set(pd.read_csv(tmp_path / "refused.csv").line) == {i + 2 for i in lines.index[lines.begin_date == ""]}
    ordered = table.sort_values("tx_id")
    assert ordered.timestamp.tolist() == pd.to_datetime(dated.begin_date, format="%b %d, %Y").tolist()
    assert ordered.amount.tolist() == dated.amount_transactions.astype(float).tolist()   # 5.689852347E7 is a number
    assert (ordered.source_account.tolist(), ordered.target_account.tolist()) == (dated.originator_bank_id.tolist(), dated.beneficiary_bank_id.tolist())
    assert table.is_laundering.isna().all()   # all were reported, and none is known to be laundering


def test_swedish_transactions_and_alerts(tmp_path):
    folder = foreign("swedish")
    columns = propose(folder / "transactions.csv")
    (tmp_path / "rates.yaml").write_text("SEK: 0.105\n")
    description, table = read(tmp_path, folder / "transactions.csv", columns, currencies=tmp_path / "rates.yaml")
    lines = pd.read_csv(folder / "transactions.csv")
    assert (description["rows"], description["transactions"], description["refused"]) == (len(lines), len(lines), 0)
    assert table.sort_values("tx_id").amount_usd.tolist() == pytest.approx((lines.amount * 0.105).round(2).tolist(), abs=0.011)
    (tmp_path / "alerts.yaml").write_text(SWEDISH_ALERTS)
    folders = convert("alerts", folder / "alerts.csv", tmp_path / "out", files={"columns": tmp_path / "alerts.yaml"})
    alerts, lines = pd.concat([b.alerts for b in BatchDataLoader(folders[0].parent)]), pd.read_csv(folder / "alerts.csv")
    assert sorted(alerts.alert_id) == sorted(lines.alert_id) and alerts.ground_truth.isna().all()   # NY: nobody has decided
    severity = {"HÖG": "high", "MEDEL": "medium", "LÅG": "low"}
    assert alerts.set_index("alert_id").severity.to_dict() == lines.set_index("alert_id").severity.map(severity).to_dict()
    (tmp_path / "alerts.yaml").write_text(SWEDISH_ALERTS.replace("HÖG", "Hög"))
    with pytest.raises(SourceError, match="column severity: 'HÖG'"):
        convert("alerts", folder / "alerts.csv", tmp_path / "no", files={"columns": tmp_path / "alerts.yaml"})
    (tmp_path / "proposed.yaml").write_text(propose(folder / "alerts.csv", "alerts"))
    proposed = read_map(AlertMap, tmp_path / "proposed.yaml")
    assert (proposed.label, proposed.severities) == (None, {word: level for word, level in severity.items() if word in {*lines.severity}})


def test_labels_that_one_column_gives_away(tmp_path):
    source = foreign("samld_like") / "aml_dataset.csv"
    lines = pd.read_csv(source, dtype=str)
    columns = propose(source)
    assert "Is_laundering: 0 (" in columns and "flag: Is_laundering" not in columns
    description, table = read(tmp_path, source, columns + "labels: {flag: Is_laundering, typology: Laundering_type}\n")
    assert (description["rows"], description["transactions"], description["refused"]) == (len(lines), len(lines), 0)
    table = table.sort_values("tx_id")
    assert table.is_laundering.tolist() == lines.Is_laundering.astype(int).tolist()
    assert table.timestamp.dt.strftime("%Y-%m-%d %H:%M").tolist() == (lines.Date + " " + lines.Time).tolist()
    told = pd.DataFrame({"by": table.payment_format, "label": table.is_laundering}).groupby("by").label.mean()
    assert set(told) <= {0.0, 1.0}   # the leak that the contract names: no model is needed for it


def test_an_export_of_amlsim(tmp_path):
    folder = foreign("amlsim_export")
    lines = pd.read_csv(folder / "transactions.csv")
    columns = confirmed(propose(folder / "transactions.csv"), all_in="USD")
    description, table = read(tmp_path, folder / "transactions.csv", columns + "labels: {flag: is_sar, attempt_id: alert_id}\n")
    assert (description["rows"], description["transactions"], description["refused"]) == (len(lines), len(lines), 0)
    table = table.sort_values("tx_id")
    assert table.is_laundering.astype(bool).tolist() == lines.is_sar.tolist()
    assert table.attempt_id[table.is_laundering == 1].astype(int).tolist() == lines.alert_id[lines.is_sar].tolist()
    assert table.attempt_id[table.is_laundering == 0].isna().all()
    # accounts that are closed in the year 4748: no day of an outcome
    shutil.copy(folder / "accounts.csv", tmp_path)   # beside the map, for this test only
    known = "labels: {accounts: {file: accounts.csv, account: acct_id, since: close_dt}}\n"
    lines.head(100).to_csv(tmp_path / "some.csv", index=False)
    with pytest.raises(SourceError, match="column close_dt: '4748-11-28T00:00:00Z' is no day from 1900 to 2100"):
        read(tmp_path, tmp_path / "some.csv", columns + known)


def test_flags_and_cases_of_another_schema(tmp_path):
    folder = foreign("case_triage")
    lines = pd.read_parquet(folder / "transactions.parquet")
    columns = propose(folder / "transactions.parquet")
    assert "target_account: {first_of: [receiver_account_id, counterparty_id]}" in columns and '"?"' not in columns
    description, table = read(tmp_path, folder / "transactions.parquet", columns + BY_FLAG)
    assert (description["rows"], description["transactions"], description["refused"]) == (len(lines), len(lines), 0)
    table = table.sort_values("tx_id")
    assert table.is_laundering.astype(bool).tolist() == lines.is_labelled_suspicious.tolist()
    assert table.target_account.tolist() == lines.receiver_account_id.fillna(lines.counterparty_id).tolist()
    assert table.typology.fillna("").tolist() == lines.typology_label.where(lines.is_labelled_suspicious).fillna("").tolist()


def test_outcomes_as_events(tmp_path):
    folder = foreign("case_triage")
    for name in ("cases", "case_alerts", "alerts"): (tmp_path / f"{name}.parquet").symlink_to(folder / f"{name}.parquet")
    (tmp_path / "events.parquet").symlink_to(folder / "case_lifecycle_events.parquet")
    cases, links, alerts = (pd.read_parquet(folder / f"{n}.parquet") for n in ("cases", "case_alerts", "alerts"))
    pd.read_parquet(folder / "transactions.parquet").head(1000).to_parquet(tmp_path / "some.parquet")
    description, _ = read(tmp_path, tmp_path / "some.parquet", TRIAGE + BY_CASES.replace("EVENTS", "events.parquet"))
    accounts = set(links[links.case_id.isin(cases.case_id)].merge(alerts[["alert_id"]].assign(who=alerts.account_id), on="alert_id").who)
    assert description["account_labels"] == {"accounts": len(accounts), "illicit": 0, "licit": 0, "open": len(accounts), "rows": {"cases.parquet": len(cases)}}
    # the same log after somebody has decided: every third case was reported, every third closed, some of those opened again
    log = pd.read_parquet(folder / "case_lifecycle_events.parquet")[["case_id", "new_status", "action_timestamp"]]
    def event(rows, word, day): return log.iloc[rows].assign(new_status=word, action_timestamp=f"2025-{day}T10:00:00Z")
    later = [event(range(0, 53, 3), "closed - reported", "04-20"), event(range(1, 53, 3), "closed - no action", "04-10"),
             event(range(1, 53, 6), "open", "04-12")]
    pd.concat([*later, log]).to_parquet(tmp_path / "decided.parquet")
    columns = TRIAGE + BY_CASES.replace("EVENTS", "decided.parquet")
    _, _ = read(tmp_path, folder / "transactions.parquet", columns)
    outcomes = pd.read_parquet(tmp_path / "account_labels.parquet")
    label = {c: 1 if i % 3 == 0 else 0 if i % 6 == 4 else -1 for i, c in enumerate(log.case_id)}
    expected = links.assign(who=links.alert_id.map(alerts.set_index("alert_id").account_id), label=links.case_id.map(label))[["who", "label"]]
    assert sorted(zip(outcomes.account, outcomes.label.fillna(-1).astype(int))) == sorted({*expected.itertuples(index=False, name=None)})
    assert set(outcomes.known_on.astype(str)[outcomes.label == 1]) == {"2025-04-20"}
    # in batches: illicit where a reported case looks back over the window, licit where a closed one speaks of every day on which the account moved money
    (tmp_path / "map.yaml").write_text(columns)
    (tmp_path / "settings.yaml").write_text("monitoring: {enabled: [structuring, fan_in, rapid_movement]}\n")
    source = folder / "transactions.parquet"
    done = run_warm("-m", "aml_miner.conversion.convert", "--source", "transactions", "--input", source, "--columns", tmp_path / "map.yaml",
                      "--output", tmp_path / "out", "--every-days", "7", "--config", tmp_path / "settings.yaml", "--last-day", "2025-03-10")
    assert done.returncode in (0, 1), done.stderr
    moves = read_transactions(tmp_path / "transactions.parquet").df()
    state = json.loads((tmp_path / "out" / "conversion.json").read_text())
    window, checked = state["settings"]["window_days"], 0
    spans = {account: rows for account, rows in outcomes.assign(**{c: pd.to_datetime(outcomes[c]) for c in ("since", "until")}).groupby("account")}
    for batch in BatchDataLoader(tmp_path / "out"):
        end = pd.Timestamp(batch.processing_date)
        start = end - pd.Timedelta(days=window)
        inside = moves[(moves.timestamp >= start) & (moves.timestamp < end)]
        for address, truth in zip(batch.alerts.address, batch.alerts.ground_truth):
            rows = spans.get(address, outcomes.head(0))
            over = rows[(rows.since < end) & ~(rows.until < start)] if len(rows) else rows
            days = inside[(inside.source_account == address) | (inside.target_account == address)].timestamp.dt.normalize().unique()
            covered = all(((over.label == 0) & (over.since <= d) & (over.until >= d)).any() for d in days) if len(over) else False
            expected_label = 1 if (over.label == 1).any() else None if over.label.isna().any() or not covered else 0
            assert (None if pd.isna(truth) else int(truth)) == expected_label, (batch.processing_date, address)
            checked += expected_label is not None
    assert checked > 5


def test_a_cut_of_amlworld_by_a_proposed_map(tmp_path):
    source = published("amlworld") / "amlworld_hi_small_cut15k.parquet"
    lines, columns = pd.read_parquet(source), propose(source)
    assert "source_account: [from_bank, from_account]" in columns or not lines.groupby("from_account").from_bank.nunique().gt(1).any()
    description, table = read(tmp_path, source, columns + "labels: {flag: is_laundering, attempt_id: attempt_id, typology: typology}\n")
    assert (description["rows"], description["transactions"], description["refused"]) == (len(lines), len(lines), 0)
    table = table.sort_values("tx_id")
    assert table.is_laundering.tolist() == lines.is_laundering.tolist() and table.attempt_id.nunique() == lines.attempt_id[lines.is_laundering == 1].nunique()
    assert (table.amount.tolist(), table.amount_received.tolist()) == (lines.amount_paid.tolist(), lines.amount_received.tolist())


def test_a_sample_of_amlsim_with_a_list_of_known_accounts(tmp_path):
    folder = published("amlsim")
    source, nodes = folder / "amlsim_ibm_20K_cycle200_transactions.parquet", pd.read_parquet(folder / "amlsim_ibm_20K_cycle200_nodes.parquet")
    guilty = nodes.nodeid[nodes.isFraud == 1].astype(int)
    guilty.to_frame("account").to_csv(tmp_path / "known.csv", index=False)
    columns = confirmed(propose(source), timestamp_format="days", start="2017-01-01", all_in="USD")
    lines = pd.read_parquet(source)
    description, table = read(tmp_path, source, columns + "labels: {accounts: {file: known.csv, account: account, others: licit}}\n")
    assert (description["rows"], description["transactions"], description["refused"]) == (len(lines), len(lines), 0)
    assert table.timestamp.min() == pd.Timestamp("2017-01-01") + pd.Timedelta(days=int(lines.time.min()))
    outcomes = pd.read_parquet(tmp_path / "account_labels.parquet")
    everybody = {*map(str, lines.sourceNodeId.astype(int)), *map(str, lines.targetNodeId.astype(int))} | {*map(str, guilty)}
    assert outcomes.set_index("account").label.to_dict() == {a: int(a in {*map(str, guilty)}) for a in everybody}


def test_alerts_of_a_card_issuer_by_a_proposed_map(tmp_path):
    source = published("datarobot_alerts") / "datarobot_aml_alerts.parquet"
    lines, columns = pd.read_parquet(source), propose(source, "alerts")
    assert "SAR: 0 (8,974), 1 (1,026)" in columns and "\nlabel:" not in columns
    for name, text, known in (("told", columns + "label: SAR\n", lines.SAR.tolist()), ("untold", columns, None)):
        (tmp_path / "map.yaml").write_text(text)
        folders = convert("alerts", source, tmp_path / name, files={"columns": tmp_path / "map.yaml"})
        alerts = pd.concat([b.alerts for b in BatchDataLoader(folders[0].parent)])
        assert len(alerts) == len(lines)
        assert alerts.ground_truth.isna().all() if known is None else sorted(alerts.ground_truth) == sorted(known)
