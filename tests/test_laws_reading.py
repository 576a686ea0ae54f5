"""Laws of reading: what was written is read, a day is read as it was meant or not at all, and every row is written or refused."""

import csv
from datetime import date
import io

from hypothesis import given, settings, strategies as st
import pytest

from aml_miner.batches.schema import connect
from aml_miner.transactions.column_maps import TransactionMap
from aml_miner.transactions.file_kinds import FileLayout, count_csv_records, count_records
from aml_miner.transactions.mapped import read_mapped
from aml_miner.transactions.source_files import Field, stage_source
from aml_miner.transactions.source_times import read_times
from aml_miner.transactions.table import SourceError, read_transactions
from aml_miner.transactions.values import ValueFormat

FEW = settings(max_examples=40, deadline=None, derandomize=True, database=None)
TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufeff"), max_size=12)
CELL = TEXT | st.sampled_from(['"', 'a"b', "x;y", "1,5", "two\nlines", "#1", "'", "007", "1e5", "NULL", " "])


@pytest.fixture(scope="module")
def folder(tmp_path_factory): return tmp_path_factory.mktemp("reading")


def write(path, rows, separator=",", newline="\n"):
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator=newline).writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


@FEW
@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=20), separator=st.sampled_from(",;\t|"), newline=st.sampled_from(["\n", "\r\n"]))
def test_texts_are_read_as_they_were_written(folder, rows, separator, newline):
    path = write(folder / "t.csv", [("a", "b"), *rows], separator, newline)
    layout = FileLayout(separator)
    assert count_csv_records(path, layout) == len(rows)
    with connect() as con:
        stage_source(con, path, [Field("a", "optional", ("a",)), Field("b", "optional", ("b",))], folder, layout=layout)
        # DuckDB's trim takes blanks off, and blanks alone; no other white space
        assert con.execute("SELECT a, b FROM staged ORDER BY tx_id").fetchall() == [tuple(x.strip(" ") or None for x in row) for row in rows]


@FEW
@given(rows=st.lists(st.tuples(CELL, CELL, CELL), max_size=20), newline=st.sampled_from(["\n", "\r\n"]), ends=st.booleans())
def test_two_counts_agree_with_the_writer(folder, rows, newline, ends):
    path = write(folder / "c.csv", [("a", "b", "c"), *rows], newline=newline)
    if not ends: path.write_bytes(path.read_bytes().removesuffix(newline.encode()))
    assert count_records(path) == count_csv_records(path) == len(rows)


ORDERS = ["%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y%m%d", "%d %b %Y", "%b %d, %Y", "%d%m%Y"]


@FEW
@given(days=st.lists(st.dates(date(1990, 1, 1), date(2090, 12, 31)), min_size=1, max_size=12), order=st.sampled_from(ORDERS))
def test_a_day_is_read_as_it_was_meant_or_not_at_all(folder, days, order):
    path = write(folder / "d.csv", [("day",), *((d.strftime(order),) for d in days)], ";")
    with connect() as con:
        staged = stage_source(con, path, [Field("day", "text", ("day",))], folder, layout=FileLayout(";"))
        named, _ = read_times(staged, ["day"], order)
        assert [t.date() for t, in con.execute(f"SELECT {named} FROM staged ORDER BY tx_id").fetchall()] == days
        try: guessed, _ = read_times(staged, ["day"])
        except SourceError as e: assert "both fit every row" in str(e)
        else: assert [t.date() for t, in con.execute(f"SELECT {guessed} FROM staged ORDER BY tx_id").fetchall()] == days


@FEW
@given(amounts=st.lists(st.decimals(-10**9, 10**9, places=2), min_size=1, max_size=12), decimal=st.sampled_from(".,"), grouped=st.booleans())
def test_a_number_is_what_was_written(folder, amounts, decimal, grouped):
    swap = {".": ",", ",": "."}
    def written(x): return f"{x:,.2f}".translate(str.maketrans(".,", decimal + swap[decimal])) if grouped else f"{x:.2f}".replace(".", decimal)
    path = write(folder / "n.csv", [("n",), *((written(x),) for x in amounts)], ";")
    with connect() as con:
        values = ValueFormat(decimal, swap[decimal] if grouped else "")
        stage_source(con, path, [Field("n", "number", ("n",), values=values)], folder, layout=FileLayout(";"))
        assert [n for n, in con.execute("SELECT n FROM staged ORDER BY tx_id").fetchall()] == [float(x) for x in amounts]


MAP = TransactionMap(timestamp="day", timestamp_format="%Y-%m-%d", source_account="from", target_account="to", amount="sum", all_in="USD",
                     labels={"flag": "sar"})
GOOD = {"day": ["2025-01-31", "2025-02-01 10:30"], "from": ["A", "007", "#9"], "to": ["B", "12E4"], "sum": ["1", "2.50", "0"], "sar": ["0", "1", ""]}
BAD = {"day": ["31/01/2025", "", "9999-12-31"], "from": ["", "8.7E+09", "nan"], "to": ["1.0", " "], "sum": ["1,5", "-1", "inf", ""], "sar": ["2", "maybe"]}


@FEW
@given(rows=st.lists(st.fixed_dictionaries({c: st.sampled_from(GOOD[c] + BAD[c]) for c in GOOD}), min_size=1, max_size=15), extra=st.integers(0, 2))
def test_every_row_is_written_or_refused(folder, rows, extra):
    "Also those that have a field too many; who is refused is who has a value that does not fit."
    path = write(folder / "m.csv", [list(GOOD), *([row[c] for c in GOOD] for row in rows), *(["2025-01-31", "A", "B", "1", "0", "more"] for _ in range(extra))])
    bad = [i for i, row in enumerate(rows) if any(row[c] in BAD[c] for c in GOOD)]
    try: description = read_mapped(path, folder / "m.parquet", MAP, refused=folder / "refused.csv")
    except SourceError as e:
        assert len(bad) == len(rows) and "no transactions" in str(e)
        return
    assert (description["rows"], description["transactions"], description["refused"]) == (len(rows) + extra, len(rows) - len(bad), len(bad) + extra)
    kept = [i + 1 for i in range(len(rows)) if i not in bad]
    assert sorted(read_transactions(folder / "m.parquet").df().tx_id) == kept
    with (folder / "refused.csv").open(newline="") as f: lines = [int(r["line"]) for r in csv.DictReader(f)]
    assert lines == sorted(lines) and {i + 2 for i in bad} | {len(rows) + 2 + k for k in range(extra)} == set(lines)
