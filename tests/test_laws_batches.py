"Laws of the loader, tried on many small batches: order of rows and columns, columns that may be absent, types, names of folders."
import tempfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

from aml_miner.batches.checks import BatchError
from aml_miner.batches.loader import read_batch, read_batches
from aml_miner.batches.native_types import native_table
from aml_miner.batches.schema import TABLES, BatchTable
from aml_miner.testing.tiny_batch import tiny_batch, tiny_tables

TINY = tiny_tables()
LAW = settings(max_examples=6, derandomize=True, deadline=None, database=None)


def rows_of(batch):
    "The rows of each table, in an order of their own: table -> sorted rows as text."
    return {name: sorted(map(repr, table.to_pandas().astype(object).values.tolist())) for name, table in batch.tables.items()}


with tempfile.TemporaryDirectory() as folder: EXPECTED = rows_of(read_batch(tiny_batch(folder)))


@LAW
@given(st.data())
def test_the_order_of_rows_and_columns_means_nothing(data):
    "Files whose rows and columns are shuffled give the same tables, with the schema's columns in the schema's order."
    def shuffled(frame):
        rows, columns = data.draw(st.permutations(range(len(frame)))), data.draw(st.permutations(list(frame)))
        return frame.iloc[list(rows)][list(columns)].reset_index(drop=True)

    with tempfile.TemporaryDirectory() as folder:
        batch = read_batch(tiny_batch(folder, **dict.fromkeys(TINY, shuffled)))
        assert rows_of(batch) == EXPECTED
        assert all(list(table.to_pandas()) == TABLES[name].names() for name, table in batch.tables.items())


@LAW
@given(st.sampled_from(list(TINY)), st.data())
def test_any_columns_may_be_absent_or_are_named(name, data):
    "Without some columns of a table a batch loads with nulls in their place, or is refused with the file and each column that it needs."
    lost = data.draw(st.sets(st.sampled_from(list(TINY[name])), min_size=1, max_size=TINY[name].shape[1] - 1))  # no parquet reader takes none
    needed = [column.name for column in TABLES[name].columns if column.required and column.name in lost]
    with tempfile.TemporaryDirectory() as folder:
        path = tiny_batch(folder, **{name: lambda frame: frame.drop(columns=list(lost))})
        if needed:
            with pytest.raises(BatchError) as refusal: read_batch(path)
            named = [fault for fault in refusal.value.faults if f"{name}.parquet: required column" in fault]
            assert len(named) == len(needed) and all(any(column in fault for fault in named) for column in needed)
            return
        batch = read_batch(path)
        frame = batch.tables[name].to_pandas()
        assert list(frame) == TABLES[name].names() and frame[list(lost)].isna().all(axis=None)
        assert rows_of(batch) | {name: []} == EXPECTED | {name: []}  # the other tables are as they were


@LAW
@given(st.sampled_from(list(TINY)), st.data())
def test_a_table_survives_its_native_types(name, data):
    "Rows written in the ecosystem's types and read again are those that were written."
    frame = TINY[name].iloc[data.draw(st.lists(st.integers(0, len(TINY[name]) - 1), max_size=8))].reset_index(drop=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/TABLES[name].file
        pq.write_table(native_table(TABLES[name], frame), path)
        written, given_rows = (BatchTable(TABLES[name], source).to_pandas() for source in (path, frame))
        pd.testing.assert_frame_equal(written.astype(object), given_rows.astype(object), check_dtype=False)
        assert pa.types.is_string(pq.read_schema(path).field(TABLES[name].names("key")[0]).type)


@LAW
@given(st.permutations(["2025-09-01", "2025-09-02", "2025-09-03"]), st.lists(st.text("abAB019-_ é", min_size=1, max_size=6).filter(
    lambda text: text[0] not in "_ " and text[-1] != " "), min_size=3, max_size=3, unique_by=str.casefold))
def test_the_order_of_batches_does_not_depend_on_names(days, names):
    "Batches come in the order of their dates, whatever their folders are called."
    with tempfile.TemporaryDirectory() as folder:
        for name, day in zip(names, days): tiny_batch(Path(folder)/name, day)
        batches = read_batches(folder)
        assert [str(batch.processing_date) for batch in batches] == sorted(days)
        assert [batch.path.name for batch in batches] == [name for _, name in sorted(zip(days, names))]
