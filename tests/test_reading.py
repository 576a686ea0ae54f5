"""Files as people have them, through the conversion: read as they are written, or refused with file, line, column, value and what would fit."""
import bz2
import gzip
import json
import lzma
import zipfile

import pandas as pd
import pyarrow as pa
import pytest

from aml_miner.batches.loader import read_batches
from aml_miner.conversion.convert import convert
from aml_miner.transactions.table import SourceError

MAP = "label: sar\nid: case_no\ndate: opened\naddress: customer\nvolume_usd: amount\n"
ROWS = ("case_no,opened,customer,sar,amount\n"
        "0007,2025-03-01,000123,0,120.50\n"
        "#12,2025-03-01,Müller,1,9800\n"
        "12E4,2025-03-02,945324E7,0,40\n"
        "0007,2025-03-02,94532400,1,77\n")
EXPECTED = [("0007", "000123", 0), ("#12", "Müller", 1), ("12E4", "945324E7", 0), ("0007", "94532400", 1)]


def alerts_of(folder, source, columns=MAP, **settings):
    "Alerts of the batches that a file becomes: id, address, label."
    (folder / "map.yaml").write_text(columns)
    out = folder / "out"
    convert("alerts", source, out, files={"columns": folder / "map.yaml"}, **settings)
    batches = read_batches(out)
    sources = [json.loads((b.path / "META.json").read_text())["source"] for b in batches]
    assert all(s["rows"] == s["written"] + s["refused"] for s in sources) and sources[0]["written"] == sum(b.counts["alerts"] for b in batches)
    alerts = pd.concat([b.alerts for b in batches])
    return [(a, b, None if pd.isna(c) else int(c)) for a, b, c in alerts[["alert_id", "address", "ground_truth"]].itertuples(index=False)]


def zipped(text):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive: archive.writestr("alerts.csv", text)
    return write


def parts(path):
    path.mkdir()
    lines = ROWS.splitlines(keepends=True)
    (path / "part-00000.csv").write_text("".join(lines[:3]))
    (path / "part-00001.csv").write_text("".join([lines[0], *lines[3:]]))
    (path / "_SUCCESS").touch()


def packed_by_zstd(path):
    with pa.CompressedOutputStream(str(path), "zstd") as f: f.write(ROWS.encode())


FORMS = {  # how the same table arrives: (writer of the path, lines that the map needs)
    "plain": (lambda p: p.write_text(ROWS), ""),
    "gzip under another name": (lambda p: p.write_bytes(gzip.compress(ROWS.encode())), ""),
    "bzip2": (lambda p: p.write_bytes(bz2.compress(ROWS.encode())), ""),
    "xz": (lambda p: p.write_bytes(lzma.compress(ROWS.encode())), ""),
    "zstd": (packed_by_zstd, ""),
    "zip": (zipped(ROWS), ""),
    "UTF-16": (lambda p: p.write_bytes(ROWS.encode("utf-16")), ""),
    "Windows": (lambda p: p.write_bytes(ROWS.replace("\n", "\r\n").encode("cp1252")), "encoding: cp1252\n"),
    "byte order mark": (lambda p: p.write_bytes(ROWS.encode("utf-8-sig")), ""),
    "semicolons": (lambda p: p.write_text(ROWS.replace(",", ";").replace(".50", ",50")), "separator: ';'\ndecimal: ','\n"),
    "a title above": (lambda p: p.write_text("exported by night job\n\n" + ROWS), "header_line: 3\n"),
    "days of Germany": (lambda p: p.write_text(ROWS.replace("2025-03-01", "01.03.2025").replace("2025-03-02", "02.03.2025")), 'date_format: "%d.%m.%Y"\n'),
    "folder of parts": (parts, ""),
    "parquet": (lambda p: pd.read_csv(pd.io.common.StringIO(ROWS), dtype={"case_no": str, "customer": str}).to_parquet(p), ""),
    "two line ends": (lambda p: p.write_bytes(ROWS.replace("\n", "\r\n", 2).encode()), "")}


@pytest.mark.parametrize("form", FORMS)
def test_a_table_is_read_in_whatever_form_it_comes(form, tmp_path):
    write, lines = FORMS[form]
    write(tmp_path / "alerts.dat")
    assert alerts_of(tmp_path, tmp_path / "alerts.dat", MAP + lines) == EXPECTED


REFUSED = {  # what is wrong: (old, new, words of the message)
    "both orders of a day fit": ("2025-03-0", "03/0", "line 2, column opened: '03/01' is no day"),
    "American or European": ("2025-03-01", "03/04/2025", "is not written as %Y-%m-%d"),
    "a day that is none": ("2025-03-02,945", "2025-02-30,945", "line 4, column opened: '2025-02-30'"),
    "the end of time": ("2025-03-02,945", "9999-12-31,945", "line 4, column opened: '9999-12-31'"),
    "a spreadsheet's id": ("945324E7", "9.45324E+09", "line 4, column customer: '9.45324E+09' is a number that a spreadsheet shortened"),
    "a double's id": ("94532400", "94532400.0", "line 5, column customer: '94532400.0' has a decimal part"),
    "no id": ("000123", "NaN", "line 2, column customer: 'NaN' is what a program writes for a missing value"),
    "an empty id": ("000123", "", "line 2, column customer: is empty"),
    "a decimal comma": ("120.50", '"1.120,50"', "line 2, column amount: '1.120,50' is no amount"),
    "no amount": ("9800", "n/a", "line 3, column amount: 'n/a' is no amount"),
    "another word": (",1,9800", ",escalated,9800", "line 3, column sar: 'escalated' is no outcome; listed are positive: [1, true]; negative: [0, false]"),
    "a field too many": ("40\n", "40,late note\n", "line 4: 6 fields, expected 5"),
    "a field too few": (",40\n", "\n", "line 4: 4 fields, expected 5"),
    "a closing line": ("77\n", "77\n# 4 records\n", "line 6: 1 field, expected 5"),
    "a repeated id": ("12E4,2025-03-02", "0007,2025-03-02", "line 5, column case_no: '0007' is an id that an earlier row of the same date has"),
    "another case of a name": ("customer,sar", "customer,SAR",
                               "the header lacks sar; it has case_no, opened, customer, SAR, amount (names are taken as written"),
    "another separator": (",", ";", "it is separated by semicolons: say `separator: ';'`")}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_does_not_fit_is_named(fault, tmp_path):
    old, new, words = REFUSED[fault]
    (tmp_path / "alerts.csv").write_text(ROWS.replace(old, new))
    with pytest.raises(SourceError) as e: alerts_of(tmp_path, tmp_path / "alerts.csv")
    assert words in str(e.value) and "\n" not in str(e.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words, content", [(words, content) for content, words in [
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is a workbook of Excel's old format"), (b'[{"a": 1}]', "is JSON"), (b"<!DOCTYPE html><html>", "is HTML"),
    (b"SQLite format 3\x00", "is a database of SQLite"), (ROWS.encode("latin-1"), "line 3: no UTF-8 text"), (b"", "is empty, a header is expected"),
    (gzip.compress(ROWS.encode())[:40], "is packed by gzip and damaged"), (b"a\x00b\x00\x00\x00\x00c", "is no text")]],
    ids=["xls", "json", "html", "sqlite", "latin-1", "empty", "damaged", "binary"])
def test_a_file_that_is_no_table_says_what_it_is(words, content, tmp_path):
    (tmp_path / "alerts.csv").write_bytes(content)
    with pytest.raises(SourceError, match=words): alerts_of(tmp_path, tmp_path / "alerts.csv")


def test_the_column_that_is_named_is_the_one_that_is_read(tmp_path):
    "Two columns whose names differ in the case of letters, with opposite values."
    (tmp_path / "alerts.csv").write_text("case_no,opened,customer,SAR,sar,amount\na,2025-03-01,c,0,1,1\nb,2025-03-01,c,1,0,2\n")
    assert [label for *_, label in alerts_of(tmp_path, tmp_path / "alerts.csv")] == [1, 0]


def test_many_rows_with_hashes_keep_every_row(tmp_path):
    "Where a reader takes # for a comment, it depends on how many rows have one."
    rows = "".join(f"{'#' * (i % 5 == 0)}{i},2025-03-{1 + i % 20:02d},c{i % 30},{i % 2},{i}.5\n" for i in range(1_000))
    (tmp_path / "alerts.csv").write_text("case_no,opened,customer,sar,amount\n" + rows)
    alerts = alerts_of(tmp_path, tmp_path / "alerts.csv")
    assert len(alerts) == 1_000 and sum(label for *_, label in alerts) == 500


def test_unknown_outcomes_stay_unknown(tmp_path):
    (tmp_path / "alerts.csv").write_text(ROWS)
    assert {label for *_, label in alerts_of(tmp_path, tmp_path / "alerts.csv", MAP.replace("label: sar\n", ""))} == {None}
    words = "positive: [SAR filed]\nnegative: [closed - no action]\nunknown: [pending]\n"
    (tmp_path / "alerts.csv").write_text(ROWS.replace(",0,", ",closed - no action,").replace(",1,9800", ",pending,9800").replace(",1,77", ",SAR filed,77"))
    assert [label for *_, label in alerts_of(tmp_path, tmp_path / "alerts.csv", MAP + words)] == [0, None, 0, 1]


def test_refused_rows_are_listed_and_the_others_written(tmp_path):
    (tmp_path / "alerts.csv").write_text(ROWS.replace("9800", "unknown") + "x,2025-03-02\n")
    alerts = alerts_of(tmp_path, tmp_path / "alerts.csv", MAP + 'date_format: "%Y-%m-%d"\n', refused=tmp_path / "refused.csv")
    assert alerts == [EXPECTED[0], *EXPECTED[2:]]
    refused = pd.read_csv(tmp_path / "refused.csv", dtype=str, keep_default_na=False)
    assert refused[["line", "column", "value"]].values.tolist() == [["3", "amount", "unknown"], ["6", "", "x,2025-03-02"]]
