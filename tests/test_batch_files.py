"What happens to a batch whose folder has an odd name, or that is replaced, changed or cut while somebody reads it."
import ast
from dataclasses import replace
from functools import partial
from importlib import import_module
import os
import shutil

from conftest import ROOT
import duckdb
from loguru import logger
import pyarrow.parquet as pq
import pytest

import aml_miner.batches.checks as checks
import aml_miner.batches.history as history
import aml_miner.batches.loader as loader
from aml_miner.batches.batch_files import BatchError
from aml_miner.batches.history import HistoryStore
from aml_miner.batches.loader import BatchDataLoader, folder_date, labels_from_addresses, read_batch
from aml_miner.config.model_config import load_config
from aml_miner.conversion.convert import convert
from aml_miner.exploration.explore import explore
from aml_miner.features.cluster_builder import ClusterFeatureBuilder, cluster_members
from aml_miner.features.feature_builder import FeatureBuilder
from aml_miner.features.vocabulary import count_batch
from aml_miner.testing.tiny_batch import tiny_batch
from aml_miner.utils.files import atomic_folder, sha256_file

ODD = [("bank[1]", "bank1"), ("bank?", "bankX"), ("bank*", "bank2"), ("{a,b}", "a"), ("it's", "its"), ('a"b', "ab"), ("100%", "100"),
       ("$HOME", "HOME"), ("a b", "ab"), ("ü日本", "u"), ("line\nbreak", "line"), ("-x", "x"), ("dot.", "dot"), ("window_days=30", "window_days"),
       ("s3:", "s3"), ("[!a]", "b"), ("**", "deep")]
CONFIG = load_config(overrides={"feature_engineering": {"min_category_rows": 1}})


@pytest.mark.parametrize("name, neighbour", ODD)
def test_a_name_is_no_pattern(name, neighbour, tmp_path):
    "A batch in a folder with an odd name, beside one that the name would stand for as a pattern."
    tiny_batch(tmp_path / neighbour, "2025-09-02", meta=None, alerts=lambda a: a.assign(alert_id="other " + a.alert_id))
    own = tiny_batch(tmp_path / name, "2025-09-01", meta=None)
    batch = read_batch(own)
    expected = pq.read_table(own / "alerts.parquet").to_pandas()
    assert batch.alerts.alert_id.tolist() == expected.alert_id.tolist() and str(batch.processing_date) == "2025-09-01" and str(folder_date(own)) == "2025-09-01"
    assert batch.alerts.window_days.tolist() == expected.window_days.tolist()
    assert list(batch.tables["features"].types(None)) == pq.read_schema(own / "features.parquet").names
    assert {b.path.name: str(b.processing_date) for b in BatchDataLoader(tmp_path)} == {name: "2025-09-01", neighbour: "2025-09-02"}
    builder = FeatureBuilder(CONFIG.feature_engineering.model_copy(update={"groups": ("alert", "flow")})).learn_from([batch])
    assert sorted(builder.build(batch).index.get_level_values("alert_id")) == sorted(expected.alert_id)


@pytest.mark.parametrize("name", ["it's [1]*", "bank?"])
def test_conversions_and_histories_in_odd_folders(name, tmp_path):
    (folder := tmp_path / name).mkdir()
    (tmp_path / "it's 1").mkdir()
    amounts = [f"{9_500 + i}.00,US Dollar" for i in range(120)]
    rows = "".join(f"2022/09/{1 + i % 9:02d} 00:{i % 60:02d},1,A{i % 7},1,B{i % 5},{usd},{usd},Wire,0\n" for i, usd in enumerate(amounts))
    header = "Timestamp,From Bank,Account,To Bank,Account,Amount Received,Receiving Currency,Amount Paid,Payment Currency,Payment Format,Is Laundering\n"
    (folder / "t.csv").write_text(header + rows)
    (tmp_path / "it's 1" / "t.csv").write_text(header + rows.replace(",Wire,", ",Cash,"))
    made = convert("amlworld", folder / "t.csv", folder / "out", CONFIG)
    batches = list(BatchDataLoader(folder / "out"))
    assert made and len(batches) == len(made)
    if "?" in name:
        with pytest.raises(ValueError, match="rename it"): HistoryStore(folder / "h.duckdb")
        assert sorted(p.name for p in folder.iterdir()) == ["out", "t.csv"]
    else:
        with HistoryStore(folder / "h.duckdb") as store: store.add(batches[-1])
        with HistoryStore(folder / "h.duckdb") as store: assert len(store.batches()) == 1


# ---- every path that reaches DuckDB goes through duckdb_path
SQL = ("read_parquet(", "read_csv(", "read_json(", "ATTACH ", "COPY ", "temp_directory", "EXPORT DATABASE", "read_text(", "read_blob(", "INSTALL ", "glob(")
CALLS = ("read_parquet", "read_csv", "read_json", "from_parquet", "from_csv_auto", "write_parquet", "write_csv", "to_parquet", "to_csv")
OTHERS = ("pd", "pq", "frame")  # pandas and pyarrow, for which a path is a path
MEMORY = "':memory:'"


def around_duckdb_path(text):
    "The statements of a source text that give DuckDB a path which did not go through `duckdb_path`."
    statements = []
    for statement in (s for s in ast.walk(ast.parse(text)) if isinstance(s, ast.stmt)):
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant): continue  # a docstring
        own = [n for part in ast.iter_child_nodes(statement) if not isinstance(part, ast.stmt) for n in ast.walk(part)]
        texts = [n.value for n in own if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        calls = [n for n in own if isinstance(n, ast.Call)]
        sql = any(word in t for t in texts for word in SQL) and not any(f"ATTACH {MEMORY}" in t for t in texts)
        method = any(isinstance(c.func, ast.Attribute) and c.func.attr in CALLS and c.args and ast.unparse(c.func.value) not in OTHERS for c in calls)
        opened = any(ast.unparse(c.func) == "duckdb.connect" and c.args and ast.unparse(c.args[0]) != MEMORY for c in calls)
        around = not {"duckdb_path", "parquet_scan"} & {ast.unparse(c.func) for c in calls}
        if (sql or method or opened) and around: statements.append(ast.unparse(statement)[:200])
    return statements


def test_no_path_reaches_duckdb_around_the_one_function():
    modules = sorted(p for p in (ROOT / "aml_miner").rglob("*.py") if p.name != "_modidx.py")
    faults = {p.relative_to(ROOT).as_posix(): statements for p in modules if (statements := around_duckdb_path(p.read_text()))}
    assert len(modules) > 50 and not faults, faults


@pytest.mark.parametrize("text", [
    "con.execute(f'FROM read_parquet({quote_text(path)})')", "con.read_parquet(str(path))", "scan = con.read_csv(path)",
    "con.execute(f'ATTACH {quote_text(path)} AS h')", "con.execute('SET temp_directory = $f', {'f': str(folder)})",
    "with duckdb.connect(str(path)) as con: pass", "con.execute(f'COPY t TO {quote_text(path)}')", "def f(p):\n    return f'read_csv({p})'"])
def test_the_walk_sees_what_it_looks_for(text):
    assert around_duckdb_path(text)
    for right in ("duckdb_path(path)", "duckdb_path(folder)", "duckdb_path(p)"):
        name = right[12:-1]
        for function in ("quote_text", "csv"): text = text.replace(f"{function}({name})", f"{function}({right})")
        text = text.replace(f"str({name})", right).replace("{p}", "{duckdb_path(p)}")
    assert not around_duckdb_path(text)


# ---- a batch that is replaced while it is read
STEPS = ["_find_files", "read_meta", "_known_file", "check_table", "batch_date", "check_dates", "check_meta", "_cross_notes", "_label_counts"]


def put(source, target):
    with atomic_folder(target) as folder: shutil.copytree(source, folder, dirs_exist_ok=True)


@pytest.fixture
def two(tmp_path):
    "A batch, and another one to take its place: other rows, other date."
    old = tiny_batch(tmp_path / "old", "2025-09-01")
    new = tiny_batch(tmp_path / "new", "2025-09-02", seed=1, address_labels=lambda a: a.head(5), alerts=lambda a: a.head(7),
                     clusters=lambda c: c.head(2), features=lambda f: f.iloc[::-1])
    put(old, tmp_path / "batch")
    return tmp_path / "batch", old, new


def whole(batch, source):
    "Whether a batch is one of the two, all of it."
    hashes = {f: sha256_file(source / f) for f in batch.sha256}
    counts = {name: pq.read_metadata(source / f"{name}.parquet").num_rows for name in batch.tables}
    alert_ids = pq.read_table(source / "alerts.parquet")["alert_id"].to_pylist()
    return batch.sha256 == hashes and {name: batch.counts[name] for name in counts} == counts and batch.alerts.alert_id.tolist() == alert_ids


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [True, False])
def test_a_batch_replaced_at_a_step_is_read_whole(step, after, two, monkeypatch):
    folder, old, new = two
    for f in (old, new): (f / "META.json").unlink()  # nothing but the folder's state tells it
    put(old, folder)
    done, real = [], getattr(loader, step)

    def replacing(*args):
        if not after and not done: done.append(put(new, folder))
        result = real(*args)
        if after and not done: done.append(put(new, folder))
        return result
    monkeypatch.setattr(loader, step, replacing)
    batch = read_batch(folder)
    assert done and whole(batch, new) and str(batch.processing_date) == "2025-09-02"


@pytest.mark.parametrize("step", STEPS)
def test_a_batch_replaced_again_and_again_is_refused(step, two, monkeypatch):
    folder, old, new = two
    sources, real = [old, new] * 100, getattr(loader, step)

    def replacing(*args):
        put(sources.pop(), folder)
        return real(*args)
    monkeypatch.setattr(loader, step, replacing)
    monkeypatch.setattr(loader, "_PAUSES", (0, 0, 0))
    with pytest.raises(BatchError, match="is being replaced while it is read"): read_batch(folder)


def test_a_batch_half_old_half_new_is_told_by_its_hashes(two):
    folder, old, new = two
    shutil.copy(new / "features.parquet", folder / "features.parquet")
    with pytest.raises(BatchError, match="sha256.features.parquet"): read_batch(folder)


def test_a_writer_beside_readers(two, monkeypatch):
    "A process that replaces the batch all the time, and 20 readings beside it."
    folder, old, new = two
    monkeypatch.setattr(loader, "_PAUSES", (0, 0, 0))
    stop = folder.with_name("stop")
    pid = os.fork()
    if not pid:
        try:
            while not stop.exists():
                put(new, folder); put(old, folder)
        finally: os._exit(0)
    try:
        for _ in range(20):
            try: batch = read_batch(folder)
            except BatchError: continue
            source = {sha256_file(s / "alerts.parquet"): s for s in (old, new)}[batch.sha256["alerts.parquet"]]
            assert batch.sha256 == {f: sha256_file(source / f) for f in batch.sha256}
            assert batch.counts["alerts"] == pq.read_metadata(source / "alerts.parquet").num_rows
    finally:
        stop.touch()
        os.waitpid(pid, 0)


def built(builder, batch): return builder(CONFIG.feature_engineering, VOCABULARY[0]).build(batch)


VOCABULARY = []
READERS = {
    "alerts": lambda b: b.alerts,
    "features": lambda b: b.features,
    "clusters": lambda b: b.clusters,
    "money_flows": lambda b: b.money_flows,
    "address_labels": lambda b: b.address_labels,
    "labels": lambda b: labels_from_addresses(b.tables["address_labels"]),
    "X": partial(built, FeatureBuilder),
    "clusters X": partial(built, ClusterFeatureBuilder),
    "vocabulary": lambda b: count_batch(b.tables["alerts"], b.tables["features"], b.tables["clusters"]),
    "members": lambda b: cluster_members(b.tables["clusters"], b.tables["alerts"]),
}


def damage(path):
    content = bytearray(path.read_bytes())
    meta = pq.read_metadata(path)
    for column in range(meta.num_columns):  # zeros in the pages of every column
        chunk = meta.row_group(0).column(column)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        content[start:start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    path.write_bytes(content)


@pytest.mark.parametrize("reader", READERS)
def test_what_was_changed_after_it_was_checked_is_told(reader, two):
    folder, _, new = two
    table = {"labels": "address_labels", "X": "features", "clusters X": "money_flows", "vocabulary": "alerts", "members": "clusters"}.get(reader, reader)
    batch = read_batch(folder)
    VOCABULARY[:] = [FeatureBuilder(CONFIG.feature_engineering).learn_from([batch]).vocabulary]
    file = folder / f"{table}.parquet"
    READERS[reader](batch)
    os.utime(file)  # touched, and the same
    READERS[reader](batch)
    before = file.read_bytes()
    for change, words in ((lambda: shutil.copy(new / file.name, file), "was changed after it was checked"),
                          (file.unlink, "is no longer there"),
                          (lambda: damage(file), "was changed after"),
                          (lambda: file.write_bytes(before[:len(before) // 2]), "was changed after")):
        file.write_bytes(before)
        change()
        with pytest.raises(BatchError, match=f"{file.name}: {words}"): READERS[reader](batch)
    file.write_bytes(before)
    READERS[reader](batch)


def test_a_damaged_file_that_no_check_reads_is_named(two):
    "Columns without a rule are first read when features are built."
    folder, *_ = two
    tiny_batch(folder, meta=None)
    batch = read_batch(folder)
    VOCABULARY[:] = [FeatureBuilder(CONFIG.feature_engineering).learn_from([batch]).vocabulary]
    damage(folder / "features.parquet")
    unproven = batch.tables | {"features": type(batch.tables["features"])(batch.tables["features"].table, folder / "features.parquet")}
    for reader in ("features", "X", "clusters X"):
        with pytest.raises(BatchError, match="features.parquet: cannot be read as parquet: "): READERS[reader](replace(batch, tables=unproven))


def test_a_history_takes_no_batch_that_changes_under_it(two, tmp_path, monkeypatch):
    folder, _, new = two
    batch = read_batch(folder)
    with HistoryStore(tmp_path / "h.duckdb") as store:
        insert = history._insert
        monkeypatch.setattr(history, "_insert", lambda *args: (insert(*args), shutil.copy(new / "features.parquet", folder)))
        with pytest.raises(BatchError, match="features.parquet: was changed"): store.add(batch)
        assert len(store.batches()) == 0
        monkeypatch.undo()
        put(new, folder)
        store.add(read_batch(folder))
        assert len(store.batches()) == 2  # windows


def test_too_little_memory_is_no_damage(two, monkeypatch):
    folder, *_ = two
    def too_little(*args): raise duckdb.OutOfMemoryException("Out of Memory Error: could not allocate block")
    monkeypatch.setattr(checks._Scan, "totals", too_little)
    with pytest.raises(duckdb.OutOfMemoryException): read_batch(folder)


def test_exploring_tells_a_change(two, monkeypatch):
    folder, _, new = two
    module = import_module("aml_miner.exploration.explore")  # the package has a function of that name
    real = module.collect_alerts
    monkeypatch.setattr(module, "collect_alerts", lambda con, batches: (real(con, batches), shutil.copy(new / "clusters.parquet", folder)))
    with pytest.raises(BatchError, match="clusters.parquet: was changed"): explore(folder)


def test_batches_keep_their_order_or_are_refused(tmp_path, monkeypatch):
    for day in ("2025-09-01", "2025-09-02", "2025-09-03"): tiny_batch(tmp_path / day, day)
    walk = iter(BatchDataLoader(tmp_path))
    next(walk), next(walk)
    tiny_batch(tmp_path / "2025-09-03", "2025-08-30")
    with pytest.raises(BatchError, match="was replaced after the order of the batches was found: it is of 2025-08-30 now, before 2025-09-02"): next(walk)


def test_batches_without_checksums_are_said_once(tmp_path):
    lines = []
    sink = logger.add(lambda line: lines.append(str(line)), level="INFO", format="{message}")
    logger.enable("aml_miner")
    for i in range(1, 9): tiny_batch(tmp_path / f"2025-09-0{i}", f"2025-09-0{i}", meta=None)
    batches = list(BatchDataLoader(tmp_path))
    logger.remove(sink)
    assert [sum("no checksums in META.json" in n for n in b.notes) for b in batches] == [1] * 8
    assert sum("no checksums in META.json to hold the files against" in line for line in lines) == 1 and len(lines) == 2
