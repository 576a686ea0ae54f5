"""Readers of public transaction data, as a user meets them: other folders, other hash seeds, little memory, files with something wrong in the middle."""

from conftest import published, run_module
import pandas as pd
import pytest

from aml_miner.transactions.amlsim import read_amlsim
from aml_miner.transactions.amlworld import read_amlworld
from aml_miner.transactions.amlworld_example import write_amlworld_example
from aml_miner.transactions.table import SourceError, read_transactions
from aml_miner.utils.files import sha256_file

READ = "import sys; from aml_miner.transactions.amlworld import read_amlworld; read_amlworld(sys.argv[1], sys.argv[2], sys.argv[3], memory_limit=sys.argv[4])"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    "A CSV of 300,000 rows with its pattern file, and the table that is read from it."
    folder = tmp_path_factory.mktemp("example")
    trans, patterns = write_amlworld_example(folder, rows=300_000)
    read_amlworld(trans, folder / "t.parquet", patterns)
    return trans, patterns, folder / "t.parquet"


@pytest.mark.parametrize("seed, memory", [(0, "1GB"), (1, "60MB")])
def test_same_bytes_whatever_the_process(example, seed, memory, tmp_path):
    "Also where the sort has to spill to the disk."
    trans, patterns, expected = example
    done = run_module("-c", READ, trans, "t.parquet", patterns, memory, cwd=tmp_path, PYTHONHASHSEED=seed)
    assert done.returncode == 0, done.stderr
    assert sha256_file(tmp_path / "t.parquet") == sha256_file(expected)
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


@pytest.mark.parametrize("line, old, new, words", [
    (150_000, "2022/", "20221/", "line 150000, column Timestamp: '20221/"),
    (299_001, ",0\n", "\n", "line 299001: 10 fields, expected 11"),
    (2, ",0\n", ",0,0\n", "line 2: 12 fields, expected 11"),
    (250_000, ",0\n", ",O\n", "line 250000, column Is Laundering: 'O' is not 0 or 1"),
    (300_001, ",0\n", ",", "line 300001, column Is Laundering: is empty")])
def test_a_fault_deep_in_a_file_has_its_line(example, line, old, new, words, tmp_path):
    trans, patterns, _ = example
    with trans.open() as f: lines = f.readlines()
    lines[line - 1] = lines[line - 1].replace(",1\n", ",0\n").replace(old, new, 1)
    (tmp_path / "bad.csv").write_text("".join(lines))
    with pytest.raises(SourceError, match=words): read_amlworld(tmp_path / "bad.csv", tmp_path / "t.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.csv"]


def test_rows_prove_their_origin(example):
    "tx_id leads to the line of the file, whatever order the table is in."
    trans, _, table = example
    frame = read_transactions(table).df().sample(500, random_state=3)
    with trans.open() as f: lines = f.read().splitlines()
    for row in frame.itertuples():
        fields = lines[row.tx_id].split(",")
        assert row.source_account == f"{fields[1].lstrip('0')}:{fields[2]}" and row.target_account == f"{fields[3].lstrip('0')}:{fields[4]}"
        assert row.timestamp == pd.Timestamp(fields[0]) and row.is_laundering == int(fields[10])
        assert (row.amount_received, row.amount) == (float(fields[5]), float(fields[7]))


def test_amlsim_sample_has_closed_cycles(tmp_path):
    "An account of the published sample that pays at its laundering step is, in most attempts, also paid in the same attempt: the money comes round."
    read_amlsim(published("amlsim"), tmp_path / "t.parquet")
    laundering = pd.read_parquet(tmp_path / "t.parquet").query("is_laundering == 1")
    assert set(laundering.typology) == {"cycle"}
    payers, payees = ({(r[0], r[1]) for r in laundering[["attempt_id", c]].itertuples(index=False)} for c in ("source_account", "target_account"))
    assert len(payers & payees) / len(payers) > 0.6


def test_published_csv_through_pandas_keeps_both_accounts(tmp_path):
    "pandas calls the second column of two by the same name Account.1."
    csv, _ = write_amlworld_example(tmp_path, rows=2_000)
    pd.read_csv(csv, dtype=str).to_parquet(tmp_path / "pandas.parquet")
    for source in (csv, tmp_path / "pandas.parquet"): read_amlworld(source, tmp_path / f"{source.suffix[1:]}.out.parquet")
    left, right = (read_transactions(tmp_path / f"{kind}.out.parquet").df() for kind in ("csv", "parquet"))
    pd.testing.assert_frame_equal(left, right)
    assert (left.source_account != left.target_account).mean() > .5


def test_a_file_name_is_no_pattern(tmp_path):
    few, many = (write_amlworld_example(tmp_path / name, rows=rows)[0] for name, rows in (("few", 2_000), ("many", 3_000)))
    few.rename(tmp_path / "a[1]*.csv")
    many.rename(tmp_path / "a1.csv")
    assert read_amlworld(tmp_path / "a[1]*.csv", tmp_path / "t[1].parquet")["transactions"] == 2_000
    assert len(read_transactions(tmp_path / "t[1].parquet").df()) == 2_000
