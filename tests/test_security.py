"""What SECURITY.md says, line by line: a test for each id of it, and no test for a line that is not there."""
import ast
import asyncio
from configparser import ConfigParser
import contextlib
from functools import cache
import hashlib
import inspect
import io
import json
import logging
import os
from pathlib import Path
import re
import shutil
import ssl
import stat
import tempfile
from types import SimpleNamespace

from conftest import ROOT, run_coroutine
import duckdb
from hostile import EVIL, MARK, hostile_batch
import httpx
from loguru import logger
import numpy as np
import optuna
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
import pytest
from test_image import COMPOSE, DOCKERFILE, entries
import make_locks
import yaml

from aml_miner import __version__
from aml_miner.batches import download, remote_files
from aml_miner.batches.batch_files import BatchError
from aml_miner.batches.contract import check_batches
from aml_miner.batches.download import Limits as DownloadLimits, download_batch, fetch_file, listed_batches
from aml_miner.batches.history import DamagedHistoryError, HistoryError, HistoryStore, _seal
from aml_miner.batches.loader import BatchDataLoader, read_batch
from aml_miner.batches.outcome_events import EventsError, read_events
from aml_miner.batches.schema import connect
from aml_miner.config.model_config import load_config
from aml_miner.config.yaml_reader import ConfigError, read_yaml
from aml_miner.features.feature_builder import FeatureBuilder
from aml_miner.features.feature_cache import FeatureCache, entry_key, from_entry, to_entry
from aml_miner.models import model_loading, model_text
from aml_miner.models.model_loading import ModelFileError
from aml_miner.morning.run import _Run
from aml_miner.morning.settings import morning_settings, read_morning_settings
from aml_miner.morning.step_records import StepRecords
from aml_miner.review.outcome_file import add_outcomes, write_events
from aml_miner.scoring.batch_scores import SCHEMAS, apply_models, content_sha256
from aml_miner.scoring.evidence import file_stems
from aml_miner.scoring.model_set import load_models
from aml_miner.scoring.score_batch import score_batch
from aml_miner.service import guard, server
from aml_miner.service.app import make_app
from aml_miner.service.batch_scoring import ScoringSettings
from aml_miner.service.batch_store import network_folder
from aml_miner.service.core import ServiceSettings
from aml_miner.service.keys import KeyFileError, add_key, read_keys
from aml_miner.service.limits import Limits
from aml_miner.service.logs import setup_service_log
from aml_miner.service.problems import Problem
from aml_miner.submission.rerun import check_rerun
from aml_miner.submission.scored_files import read_submission
from aml_miner.testing.small_models import small_models
from aml_miner.testing.tiny_batch import tiny_batch
from aml_miner.training.verify import compare_model
from aml_miner.transactions.mapped import read_mapped
from aml_miner.transactions.table import SourceError, read_transactions
from aml_miner.tuning.database import _encrypted, database_url, shown
from aml_miner.tuning.storage import CheckedJournal, open_storage, verify_journal
from aml_miner.tuning.tuner import HyperparameterTuner
from aml_miner.utils.files import atomic_folder, scratch_beside, sha256_file
from aml_miner.utils.locks import exclusive

PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
DAYS, DAY = ("2025-09-01", "2025-09-02"), "2025-09-03"
SECRET = "k3y-of-a-door"
SETTINGS = ConfigParser(delimiters=["="])
SETTINGS.read(ROOT / "settings.ini", encoding="utf-8")


_ASKED = (ast.Import, ast.ImportFrom, ast.Call, ast.Attribute, ast.Constant)


@cache
def code():
    "(file, node) of what is imported, called, named and written in the package."
    return [(path.relative_to(ROOT).as_posix(), node) for path in sorted((ROOT / "aml_miner").rglob("*.py")) if path.name != "_modidx.py"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, _ASKED)]


def places(wanted):
    "(file, text) of what a function gives for the nodes of the code."
    return {(path, text) for path, node in code() for text in wanted(node)}


def dotted(node):
    "What a name or an attribute is, such as os.system; of what it is taken from something else, the last part."
    if isinstance(node, ast.Name): return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


@cache
def imports():
    "(file, module), by full names and at any depth."
    def of(node):
        if isinstance(node, ast.Import): return [alias.name for alias in node.names]
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)] if isinstance(node, ast.ImportFrom) and not node.level else []
    return places(of)


@cache
def calls(): return places(lambda node: [dotted(node.func)] if isinstance(node, ast.Call) else [])


def keywords(name): return places(lambda node: [ast.unparse(k.value) for k in node.keywords if k.arg == name] if isinstance(node, ast.Call) else [])


def test_every_line_has_its_test_and_every_test_its_line():
    told = re.findall(r"^\| ([A-Z]\d+) \|", PAGE, flags=re.M)
    tested = [f"{letter.upper()}{number}" for letter, number in re.findall(r"^def test_([a-z])(\d+)_", Path(__file__).read_text(encoding="utf-8"), flags=re.M)]
    assert len(told) == len({*told}) and len(tested) == len({*tested})
    assert {*told} == {*tested}, {*told} ^ {*tested}
    groups = [id[0] for id in told]
    assert [int(id[1:]) for id in told] == [groups[:i + 1].count(letter) for i, letter in enumerate(groups)]  # 1, 2, 3 ... in each


def test_the_page_names_the_address_the_version_and_commands_that_are_there():
    import reference
    assert SETTINGS["DEFAULT"]["author_email"] in PAGE and f"now {__version__.rpartition('.')[0]}.x" in PAGE
    commands = reference.tree_commands()
    for name in re.findall(r"`aml-miner (\w[\w-]*)", PAGE): assert f"aml-miner {name}" in commands, name
    for path in re.findall(r"`([\w./-]+/[\w.]+|docker-compose\.yml|constraints\.txt)`", PAGE): assert (ROOT / path).exists(), path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return small_models(folder / "models", [read_batch(tiny_batch(folder / day, day)) for day in DAYS], trees=3)


@pytest.fixture(scope="module")
def scored(models, tmp_path_factory):
    "A hostile batch, scored: its folder, the folder of the scores, the scores."
    folder = tmp_path_factory.mktemp("scored")
    hostile_batch(folder / "batch", DAY)
    scores, _ = score_batch(folder / "batch", models, folder / "out", 4, num_threads=1, latency=False, no_history=True)
    return folder / "batch", folder / "out", scores


@pytest.fixture(scope="module")
def plain(models, tmp_path_factory):
    "The tiny batch, scored: the same."
    folder = tmp_path_factory.mktemp("plain")
    scores, _ = score_batch(tiny_batch(folder / "batch", DAY), models, folder / "out", 0, num_threads=1, latency=False, no_history=True, page=False)
    return folder / "batch", folder / "out", scores


def states(checks): return {c.name: c.state for c in checks}


# B: a batch


def test_b1_texts_of_a_batch_are_values(scored):
    batch = read_batch(scored[0])
    ids = {*pq.read_table(scored[0] / "alerts.parquet").column("alert_id").to_pylist()}
    assert any("DROP TABLE" in text for text in EVIL) and {*scored[2].queue.alert_id} == ids == {*batch.alerts.alert_id}


def test_b2_no_other_file_is_read(plain, tmp_path):
    linked, other = tmp_path / "batches" / DAY, tmp_path / "other"
    for folder in (linked, other): shutil.copytree(plain[0], folder)
    (other / "META.json").write_text('["a secret"]')
    for name in ("alerts.parquet", "money_flows.parquet", "META.json"):
        (linked / name).unlink()
        (linked / name).symlink_to(other / name)
        with pytest.raises(BatchError, match=f"{name}: is a link out of") as error: BatchDataLoader(tmp_path / "batches").load_batch(linked)
        assert "secret" not in str(error.value)
        (linked / name).unlink()
        shutil.copy(plain[0] / name, linked)
    (linked / "META.json").write_text(json.dumps({"sha256": {"../../etc/passwd": "0" * 64}}))
    with pytest.raises(BatchError, match="not the name of a file in the batch folder"): read_batch(linked)
    shutil.copytree(tiny_batch(tmp_path / "bank1", DAYS[0]), tmp_path / "bank[1]")
    shutil.copytree(plain[0], tmp_path / "bank[1]", dirs_exist_ok=True)
    assert str(read_batch(tmp_path / "bank[1]").processing_date) == DAY


def test_b3_what_was_checked_is_what_is_read(tmp_path):
    batch = read_batch(tiny_batch(tmp_path))
    tiny_batch(tmp_path, DAYS[1])
    with pytest.raises(BatchError, match="was changed after it was checked"): _ = batch.alerts


def test_b4_a_damaged_file_is_one_line(tmp_path):
    folder = tiny_batch(tmp_path / "batch", alerts=lambda a: a.assign(evidence_json=["[" * 100_000, *a.evidence_json[1:]]))
    assert read_batch(folder).counts["alerts"] == 12  # evidence that is nested deeply is none
    for name, content in (("alerts.parquet", b"PAR1 and no more PAR1"), ("clusters.parquet", b""), ("META.json", b"[" * 200_000),
                          ("META.json", b" " * 1_000_001), ("META.json", None), ("features.parquet", None)):
        whole = (folder / name).read_bytes()
        (folder / name).unlink()
        if content is None: os.mkfifo(folder / name)
        else: (folder / name).write_bytes(content)
        with pytest.raises(BatchError, match=name + (": is not a file" if content is None else "")): read_batch(folder)
        (folder / name).unlink()
        (folder / name).write_bytes(whole)


def test_b5_ids_become_no_paths(scored):
    stems = file_stems([f"{text}{MARK}" for text in EVIL] + ["../../etc/passwd", "..", "/etc/passwd", "a\0b", "con"])
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", stem) for stem in stems.values()) and len({*stems.values()}) == len(stems)
    assert {p.parent.relative_to(scored[1]).as_posix() for p in scored[1].rglob("*") if p.is_file()} == {".", "evidence"}


def test_b6_texts_stay_texts(scored):
    from aml_miner.review.plan_files import _cell
    from aml_miner.utils.markup import as_html, as_log, as_markdown
    for text in EVIL:
        assert "<" not in as_html(text) and "\x1b" not in as_html(text)
        assert not re.search(r"[<\x1b\r\u202e]", as_markdown(text).removeprefix("<code>").removesuffix("</code>"))
        assert all(line.startswith("  ") for line in as_log(text).split("\n")[1:])
        assert not str(_cell(text)).startswith(("=", "+", "-", "@"))
    # the pages: P2; all that is written, by readers of HTML and Markdown: test_hostile_texts


def test_b7_hashes_tell_damage_and_no_more(plain, tmp_path):
    folder, changed = tmp_path / "b", tiny_batch(tmp_path / "c", DAY, alerts=lambda a: a.assign(alert_confidence_score=a.alert_confidence_score / 2))
    shutil.copytree(plain[0], folder)
    shutil.copy(changed / "alerts.parquet", folder)
    with pytest.raises(BatchError, match="sha256.alerts.parquet"): read_batch(folder)
    shutil.copy(changed / "META.json", folder)  # open: with hashes that fit
    assert read_batch(folder).alerts.alert_confidence_score.max() == .5


def test_b8_a_batch_chooses_its_scores(models, plain, tmp_path):
    say = {"severity": "low", "alert_confidence_score": lambda a: 1 - a.alert_confidence_score, "volume_usd": lambda a: a.volume_usd * 0}
    quiet = tiny_batch(tmp_path, DAY, alerts=lambda a: a.assign(**say))
    again = apply_models(read_batch(quiet), {"alert_scorer": load_models(models, 1)["alert_scorer"]}, 0, 0, {})
    assert again.alerts.score.tolist() != plain[2].alerts.score.tolist()  # open
    assert not check_batches(quiet).at_least("error")


# M: a model


@pytest.fixture
def model(models, tmp_path):
    shutil.copytree(models, tmp_path / "models")
    return tmp_path / "models" / "alert_scorer.txt"


def seal_model(path, text=None, **changes):
    "Another text, or another report, whose hash fits."
    if text is not None: path.write_text(text)
    report = json.loads(path.with_suffix(".json").read_text()) | {"model_sha256": sha256_file(path)} | changes
    path.with_suffix(".json").write_text(json.dumps(report))


def test_m1_lightgbm_sees_checked_text_alone(model, monkeypatch):
    import pickle
    text = model.read_text()
    monkeypatch.setattr(model_loading.lgb, "Booster", lambda *a, **k: pytest.fail("LightGBM was given it"))
    class Runs:
        def __reduce__(self): return os.system, ("exit 1",)
    for content in (pickle.dumps(Runs()), b"\x80\x04.", text.replace("Tree=0", "Tree=0\nforced=1").encode(), text[:-20].encode(), b"tree\0"):
        model.write_bytes(content)
        seal_model(model)
        with pytest.raises(ModelFileError, match="alert_scorer.txt: "): model_loading.read_model(model)


@pytest.mark.parametrize("old, new", [
    (r"^num_leaves=\d+", "num_leaves=1000000"), (r"^leaf_value=\S+", "leaf_value=1e+300"), (r"^split_feature=\d+", "split_feature=99999"),
    (r"^left_child=\S+", "left_child=0"), (r"^max_feature_idx=\d+", "max_feature_idx=2000000000")])
def test_m2_numbers_of_a_model_have_limits(model, old, new):
    text = model.read_text()
    seal_model(model, changed := re.sub(old, new, text, count=1, flags=re.M))
    assert changed != text
    with pytest.raises(ModelFileError, match=r"alert_scorer\.txt: line \d"): model_loading.read_model(model)
    assert model_text.MAX_BYTES <= 1 << 28 and model_text.MAX_TREES <= 100_000 and model_text.MAX_DEPTH <= 1_000


def other_leaf(text):
    "The text with another value of its first leaf."
    return re.sub(r"^leaf_value=(\S+)", lambda found: f"leaf_value={float(found[1]) + .25:.17g}", text, count=1, flags=re.M)


def test_m3_a_text_that_was_changed_alone_is_refused(model):
    model.write_text(other_leaf(model.read_text()))
    with pytest.raises(ModelFileError, match="is not what alert_scorer.json describes"): load_models(model.parent, 1)


def test_m4_a_change_that_fits_is_told_by_version_verify_and_validate(model, models, plain):
    before, text = load_models(models, 1), model.read_text()
    seal_model(model, text, calibration={"method": "none"})
    assert load_models(model.parent, 1)["alert_scorer"].version != before["alert_scorer"].version  # open: it is used
    seal_model(model, other_leaf(text), calibration=before["alert_scorer"].report["calibration"])
    changed = load_models(model.parent, 1)
    assert changed["alert_scorer"].version != before["alert_scorer"].version  # open
    assert "leaf_value of tree 0" in compare_model(model, before["alert_scorer"]).model
    assert states(check_rerun(read_submission(plain[1]), plain[2]))["rerun"] == "passed"
    assert states(check_rerun(read_submission(plain[1]), apply_models(plain[2].batch, changed, 0, 0, {})))["rerun"] == "failed"


# H: a history file


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("history")
    with HistoryStore(folder / "h.duckdb") as store: store.add(read_batch(tiny_batch(folder / "b", DAYS[0])))
    return folder / "h.duckdb"


@pytest.fixture
def history(kept, tmp_path): return Path(shutil.copy(kept, tmp_path))


def planted(path, sql):
    "Change the database in a history, and seal it."
    database = path.with_name("planted.db")
    database.write_bytes(path.read_bytes()[:-len(_seal("0" * 64))])
    with duckdb.connect(str(database)) as con: con.execute(sql)
    path.write_bytes(database.read_bytes() + _seal(sha256_file(database)).replace(b"\0", b""))


def test_h1_a_damaged_history_is_refused(history):
    whole = history.read_bytes()
    for content in (whole[:-1], whole[:5000], b"", bytes([*whole[:9000], whole[9000] ^ 1, *whole[9001:]])):
        history.write_bytes(content)
        with pytest.raises(DamagedHistoryError): HistoryStore(history)


@pytest.mark.parametrize("sql", [
    "DROP TABLE batches; CREATE VIEW batches AS SELECT content AS network FROM read_text('{secret}')",
    "CREATE TRIGGER t AFTER INSERT ON alerts FOR EACH STATEMENT INSERT INTO outcomes (network) SELECT content FROM read_text('{secret}')",
    "CREATE MACRO max(x) AS 'x'", "ALTER TABLE alerts ALTER network SET DEFAULT 'x'", "CREATE TABLE more (x VARCHAR)", "CREATE SEQUENCE s"])
def test_h2_a_history_runs_no_query(sql, history, tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    planted(history, sql.format(secret=tmp_path / "secret"))
    with pytest.raises(HistoryError, match="is none that a history has") as error: HistoryStore(history)
    assert SECRET not in str(error.value) and SECRET.encode() not in history.read_bytes()


def test_h3_the_seal_is_no_signature(history, plain):
    with HistoryStore(history) as store: assert store.past(plain[2].batch, 0, 90).settled.illicit.any()
    planted(history, "UPDATE alerts SET ground_truth = 0")  # open
    with HistoryStore(history) as store: assert not store.past(plain[2].batch, 0, 90).settled.illicit.any()


# C: the cache of features


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    "A batch, a builder, its features."
    batch = read_batch(tiny_batch(tmp_path_factory.mktemp("cached")))
    config = load_config(overrides={"feature_engineering": {"groups": ["alert", "address"], "min_category_rows": 1}}).feature_engineering
    builder = FeatureBuilder(config).learn_from([batch])
    return batch, builder, builder.build(batch)


def cached(built, folder):
    "How many batches were read from the folder, and the features."
    cache = FeatureCache(folder, 1)
    X = cache.build(built[1], built[0])
    return cache.read, X


@pytest.mark.parametrize("what", ["folder", "entry"])
def test_c1_a_cache_that_others_can_write_is_not_read(what, built, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    assert [cached(built, folder)[0] for _ in range(2)] == [0, 1]
    named = [folder] if what == "folder" else [*folder.iterdir()]
    for path in named: path.chmod(path.stat().st_mode | 0o022)
    assert cached(built, folder)[0] == 0
    for path in (folder, *folder.iterdir()): path.chmod(0o700)
    assert cached(built, folder)[0] == 1
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 4242)  # the files are somebody else's now, unless they are root's
    assert cached(built, folder)[0] == (own == 0)


def test_c2_a_damaged_entry_is_built_again(built, tmp_path):
    folder = tmp_path / "cache"
    cached(built, folder)
    for path in folder.iterdir(): path.write_bytes(path.read_bytes()[:-40] + b"\x80\x04." + path.read_bytes()[-37:])
    read, X = cached(built, folder)
    assert read == 0
    pd.testing.assert_frame_equal(X, built[2])
    one = to_entry(built[2][["volume_usd"]] if "volume_usd" in built[2] else built[2].iloc[:, :1], "a" * 64)
    with pytest.raises(ValueError, match="another key"): from_entry(one, "b" * 64)


def test_c3_an_entry_is_of_its_bytes_settings_and_code(built, plain, monkeypatch):
    from aml_miner.features import feature_cache
    batch, builder, _ = built
    other = plain[2].batch
    short = FeatureBuilder(builder.config.model_copy(update={"round_amount_usd": 7.}), builder.vocabulary)
    keys = [entry_key(builder, "address", batch), entry_key(builder, "alert", batch), entry_key(builder, "address", other), entry_key(short, "address", batch)]
    monkeypatch.setattr(feature_cache, "code_version", lambda: "other code or libraries")
    assert len({*keys, entry_key(builder, "address", batch)}) == 5


def test_c4_an_entry_that_is_made_to_fit_is_read(built, tmp_path, monkeypatch):
    from aml_miner.features.feature_cache import cache_folder
    batch, builder, X = built
    cached(built, tmp_path / "cache")
    names = [f.name for f in builder.features if f.group == "address"]
    key = entry_key(builder, "address", batch)
    (tmp_path / "cache" / f"{key}.arrow").write_bytes(to_entry(X[names].assign(**{names[0]: X[names[0]].to_numpy() + 7}), key))
    assert (cached(built, tmp_path / "cache")[1][names[0]] == X[names[0]] + 7).any()  # open
    monkeypatch.setenv("AML_MINER_CACHE", "off")
    assert cache_folder() is None


# Y: YAML


@pytest.mark.parametrize("text, said", [
    ("a: !!python/object/apply:os.system ['true']", "a tag"), ("a: !!binary aGk=", "a tag"), ("[" * 100 + "]" * 100, "nested deeper"),
    ("a: &a [1,1,1,1,1,1,1,1]\n" + "".join(f"{y}: &{y} [{','.join(['*' + x] * 8)}]\n" for x, y in zip("abcdefg", "bcdefgh")), "every reference written out"),
    ("a: " + "9" * 5000, "a number of 5,000"), ("a: " + "x" * 1_000_001, "more than 1,000,000 bytes"), ("a: 1\na: 2", "there twice"),
    ("a: &a [*a]", "holds itself")])
def test_y1_yaml_makes_no_object_and_is_bounded(text, said, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said): read_yaml(tmp_path / "c.yaml")


def test_y2_unknown_keys_and_values_are_refused(tmp_path):
    for content in ({"training": {"nothing": 1}}, {"training": {"cv_folds": -1}}, {"training": {"cv_folds": "__import__('os')"}}):
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(ConfigError, match=next(iter(content["training"]))): load_config(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="command"): morning_settings({"batches": "b", "models": "m", "output": "o", "command": "x"})


def test_y3_a_column_map_becomes_no_sql(tmp_path):
    names, outcome = ('a"); DROP TABLE x; --', "b') OR ('1'='1", "c\"\"'; --"), "yes') OR ('1'='1"
    quoted = [f'"{n}"'.replace('"', '""')[1:-1] for n in names]
    (tmp_path / "bank.csv").write_text(f'day,{",".join(quoted)},l\n2025-01-30,A,B,1,"{outcome}"\n2025-01-31,B,C,2,no\n')
    columns = dict(zip(("source_account", "target_account", "amount"), names))
    labels = {"flag": "l", "positive": [outcome], "negative": ["no"]}
    (tmp_path / "map.yaml").write_text(yaml.safe_dump({"timestamp": "day", "all_in": "USD", "labels": labels, **columns}))
    try: read_mapped(tmp_path / "bank.csv", tmp_path / "t.parquet", tmp_path / "map.yaml")
    except (SourceError, ConfigError) as e: pytest.fail(str(e))
    assert read_transactions(tmp_path / "t.parquet").df().is_laundering.tolist() == [1, 0]


def test_y4_settings_of_a_morning_name_any_place(tmp_path):
    (tmp_path / "m.yaml").write_text("batches: /b\nmodels: ../m\noutput: /anywhere\nsource: https://elsewhere.example/{day}\ntoken_file: /t\n")
    told = read_morning_settings(tmp_path / "m.yaml")  # open
    assert (told.output, told.token_file, told.source) == (Path("/anywhere"), Path("/t"), "https://elsewhere.example/{day}")


def test_y5_a_changed_line_of_a_study_is_found(tmp_path):
    CheckedJournal(str(path := tmp_path / "s.journal")).append_logs([{"op_code": i, "value": i} for i in range(3)])
    verify_journal(path)
    path.write_text(path.read_text().replace('"value":1', '"value":9'))
    with pytest.raises(ValueError, match="damaged at line 2"): verify_journal(path)


# T: the database of a search


def study_with(**params):
    "A tuner whose best trial has parameters of somebody else."
    tuner = object.__new__(HyperparameterTuner)
    study = optuna.create_study(direction="maximize")
    ranges = {name: optuna.distributions.FloatDistribution(-1e12, 1e12) for name in params}
    study.add_trial(optuna.trial.create_trial(params=params, distributions=ranges, value=1., user_attrs={"folds": [1.]}))
    vars(tuner).update(study=study, storage="postgresql+pg8000://me:secret@db/d", current_folds=lambda study: [.5], _rounds={0: 3},
                       task=SimpleNamespace(boosting=load_config().alert_scorer.boosting))
    return tuner


def test_t1_settings_out_of_range_are_refused():
    with pytest.raises(ValidationError, match="learning_rate"): study_with(learning_rate=-5.).tuned()
    assert study_with(learning_rate=.05).tuned().learning_rate == .05
    sources = {p: p.read_text() for p in Path(inspect.getfile(optuna.storages.RDBStorage)).parent.glob("*.py")}
    assert len(sources) > 1 and not [p for p, text in sources.items() if "pickle" in text.lower()]


def test_t2_a_password_is_shown_nowhere():
    address = "postgresql+pg8000://me:secret@db.example.org/d"
    assert shown(address) == "postgresql+pg8000://me:***@db.example.org/d"
    assert _encrypted(database_url(address))["ssl_context"].verify_mode == ssl.CERT_REQUIRED
    assert not _encrypted(database_url("postgresql+pg8000://me@127.0.0.1/d"))
    with pytest.raises(ValueError, match="cannot be used") as refused: open_storage("postgresql+pg8000://me:secret@127.0.0.1:1/d")
    assert "secret" not in str(refused.value)


def test_t3_settings_within_their_ranges_are_believed():
    assert study_with(learning_rate=.9).tuned().learning_rate == .9  # open


# O: outcomes


def outcome(**changes):
    return {"processing_date": DAYS[0], "alert_id": "a01", "event": "reported", "time": f"{DAYS[1]}T08:00:00Z", "reviewer": "ann"} | changes


def test_o1_outcomes_are_checked_all_or_none(tmp_path):
    batches, inbox = tmp_path / "batches", tmp_path / "inbox"
    tiny_batch(batches / DAYS[0], DAYS[0])
    inbox.mkdir()
    for i, wrong in enumerate(({"event": "explode"}, {"alert_id": "nobody"}, {"processing_date": "2031-01-01"}, {"time": "now"}, {"reviewer": " "})):
        (file := inbox / f"{i}.json").write_text(json.dumps([outcome(), outcome(**wrong)]))
        with pytest.raises(EventsError, match=next(iter(wrong)) if i != 2 else "processing_date|time"): add_outcomes(batches, [file])
        file.unlink()
    assert [p.name for p in batches.iterdir()] == [DAYS[0]]
    os.mkfifo(inbox / "pipe.csv")
    run = object.__new__(_Run)
    run.settings, run.steps = morning_settings({"batches": str(batches), "models": "m", "output": str(tmp_path / "o"), "inbox": str(inbox)}), []
    run._take_outcomes()
    assert run.steps[0].state == "left out"


def test_o2_no_formula_comes_to_a_spreadsheet(tmp_path):
    for formula in ("=cmd|' /C calc'!A0", "+1", "-1", "@x", "\tx", "'=1"):
        (tmp_path / "o.json").write_text(json.dumps([outcome(reviewer=formula)]))
        events = read_events(tmp_path / "o.json")
        write_events(events, tmp_path / "o.csv")
        assert f",'{formula}" in (tmp_path / "o.csv").read_text() or f",\"'{formula}" in (tmp_path / "o.csv").read_text()
        assert read_events(tmp_path / "o.csv").reviewer.tolist() == [formula]


def test_o3_a_label_is_believed_whoever_gives_it(tmp_path):
    tiny_batch(tmp_path / "b" / DAYS[0], DAYS[0])
    (tmp_path / "o.json").write_text(json.dumps([outcome(event="closed_false", reviewer="the head of compliance")]))
    assert add_outcomes(tmp_path / "b", [tmp_path / "o.json"])[1] == 1  # open


# K: the file of keys


def test_k1_the_file_holds_no_key(tmp_path):
    keys = [add_key(tmp_path / "keys.yaml", name, "read") for name in ("a", "b")]
    text = (tmp_path / "keys.yaml").read_text()
    assert not any(key in text or key.removeprefix("aml_") in text for key in keys) and all(len(key) >= 4 + 43 for key in keys)
    assert len({key.salt for key in read_keys(tmp_path / "keys.yaml")}) == 2


def test_k2_who_may_read_the_file_is_checked(tmp_path):
    add_key(path := tmp_path / "keys.yaml", "a", "read")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for mode in (0o604, 0o644, 0o620, 0o602):
        path.chmod(mode)
        with pytest.raises(KeyFileError, match="others may read it, or its group write it"): read_keys(path)


def test_k3_a_damaged_file_changes_nothing(service):
    was = service.keys_file.read_text()
    try:
        service.keys_file.write_text(f"keys: [{{name: {SECRET}, role: all, salt: x}}]")
        said = service.ask("POST", "/v1/models/reload")
        assert said.status_code == 422 and SECRET not in said.text and str(service.folder) not in said.text
        assert service.ask("GET", "/v1/models", "read").status_code == 200
    finally: service.keys_file.write_text(was)


def test_k4_a_key_ends_when_its_entry_is_gone(service):
    was = service.keys_file.read_text()
    late = add_key(service.keys_file, "late", "administer")  # open: whoever can write the file
    ask = lambda: service.ask("GET", "/v1/models", None, headers={"Authorization": f"Bearer {late}"}).status_code
    assert ask() == 401
    service.app.state.service.reload()
    assert ask() == 200
    service.keys_file.write_text(was)
    service.app.state.service.reload()
    assert ask() == 401


# S: clients of the service


class Served:
    "A service without its socket: `ask` is a request."
    def __init__(self, folder, models, limits=None, keys=True):
        self.folder, self.keys_file = folder, folder / "keys.yaml" if keys else None
        folder.mkdir(exist_ok=True)
        self.keys = {role: add_key(self.keys_file, role, role) for role in ("read", "score", "administer")} if keys else {}
        scoring = ScoringSettings(load_config().review, no_history=True)
        self.app = make_app(ServiceSettings(models, folder / "data", scoring, self.keys_file, limits or Limits(free_mb=0)))

    def ask(self, method, path, role="administer", headers=(), **how):
        headers = {**({"Authorization": f"Bearer {self.keys[role]}"} if role else {}), **dict(headers)}
        async def asked():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://127.0.0.1", timeout=3600) as client:
                return await client.request(method, path, headers=headers, **how)
        return run_coroutine(asked())

    def close(self): self.app.state.service.work.close()


@pytest.fixture(scope="module")
def service(models, tmp_path_factory):
    served = Served(tmp_path_factory.mktemp("service"), models)
    with contextlib.closing(served): yield served


def sent(folder): return {p.stem if p.suffix == ".parquet" else p.name: (p.name, p.read_bytes()) for p in folder.iterdir()}


ROUTES = {("GET", "/v1/batches"): "read", ("GET", "/v1/batches/x.2025-01-01"): "read", ("GET", "/v1/models"): "read", ("GET", "/metrics"): "read",
          ("GET", "/v1/batches/x.2025-01-01/scores"): "read", ("GET", "/v1/batches/x.2025-01-01/rankings"): "read",
          ("GET", "/v1/batches/x.2025-01-01/clusters"): "read", ("GET", "/v1/batches/x.2025-01-01/alerts/a/explanation"): "read",
          ("POST", "/v1/batches"): "score", ("POST", "/v1/score"): "score", ("POST", "/v1/models/reload"): "administer"}
OPEN = {"/health", "/ready", "/docs", "/openapi.json"}


def test_s1_without_a_key_there_is_little(service):
    templates = {(m, r.path) for r in service.app.routes for m in r.methods - {"HEAD"}}
    named = {(m, re.sub("x.2025-01-01", "{batch_id}", p).replace("/a/", "/{alert_id}/")) for m, p in ROUTES}
    assert {re.sub(":path", "", p) for _, p in templates} == {p for _, p in named} | OPEN
    for method, path in ROUTES:
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Bearer "}): assert service.ask(method, path, None, headers).status_code == 401
    assert {service.ask("GET", path, None).status_code for path in OPEN} == {200}
    told = {"ready", "model_set", "models_fault", "data_writable", "disk_free_mb", "disk_enough"}
    assert {*service.ask("GET", "/ready", None).json()} == told and service.ask("GET", "/health", None).json() == {"status": "ok"}


def test_s2_a_key_may_what_its_role_may(service):
    order = ("read", "score", "administer")
    for (method, path), needed in ROUTES.items():
        for role in order: assert (service.ask(method, path, role).status_code == 403) == (order.index(role) < order.index(needed)), (method, path, role)


def test_s3_without_keys_this_machine_alone(models, tmp_path):
    with pytest.raises(ValueError, match="this machine alone"): server.check_address("0.0.0.0", False)
    with contextlib.closing(Served(tmp_path, models, keys=False)) as served:
        alien = ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Host": "127.0.0.1.evil.example"})
        for headers, status in (({}, 200), *((headers, 403) for headers in alien)):
            assert served.ask("GET", "/v1/models", None, headers).status_code == status, headers


def test_s4_a_client_names_no_path(service, tmp_path):
    for path in ("/v1/batches/..%2f..%2fetc.2025-09-01", "/v1/batches/..", "/v1/batches?cursor=../x", "/v1/batches/x.2025-01-01/scores?cursor=../../x.0"):
        assert service.ask("GET", path).status_code in (404, 422), path
    for part in ("../../x", "/etc/passwd", "alerts.parquet/../x", "accepted.json"):
        assert service.ask("POST", "/v1/batches", files={part: b"x"}).status_code == 422
    for network in ("../../etc", "a/b", "", ".", "x\0", "no-network", ".scores"): assert re.fullmatch(r"x-[0-9a-f]{32}|no-network", network_folder(network))
    assert not [p for p in service.folder.rglob("*") if p.is_file() and p.name in ("x", "passwd")]


def test_s5_a_batch_is_never_replaced(service, tmp_path):
    store, scorer = service.app.state.service.store, service.app.state.service.scorer
    stored, _ = store.accept(tiny_batch(tmp_path / "a", "2025-09-10", meta=None))
    with pytest.raises(Problem, match="never replaced") as refused:
        store.accept(tiny_batch(tmp_path / "b", "2025-09-10", meta=None, alerts=lambda a: a.assign(alert_confidence_score=.5)))
    assert refused.value.status == 409
    tiny_batch(stored.folder, "2025-09-10", meta=None, alerts=lambda a: a.assign(alert_confidence_score=.5))
    with pytest.raises(Problem, match="were changed after they were taken in"): scorer.score(stored, service.app.state.service.models.current)
    shutil.rmtree(stored.folder)


def test_s6_a_request_has_limits(models, tmp_path):
    limits = Limits(json_mb=.02, upload_mb=.2, table_rows=5, requests_per_key=1, uploads=1, waiting=0, workers=1, free_mb=0)
    with contextlib.closing(Served(tmp_path / "s", models, limits)) as served:
        core = served.app.state.service
        as_json = lambda body: served.ask("POST", "/v1/score", content=body, headers={"Content-Type": "application/json"}).status_code
        assert as_json(b" " * 20_001) == 413 and as_json(b'{"a": 1, "a": 2}') == 400 and as_json(b'{"a": 1.' + b"1" * 500 + b"}") == 400
        assert as_json(b"[" * 19_000) == 400
        assert served.ask("POST", "/v1/batches", files={"alerts": b"x" * 200_001}).status_code == 413
        assert served.ask("POST", "/v1/batches", files=sent(tiny_batch(tmp_path / "b"))).status_code == 413  # 12 rows
        with core.one_more(key := core.keys[0]), pytest.raises(Problem) as second, core.one_more(key): pass
        with core.one_upload(1), pytest.raises(Problem) as upload, core.one_upload(1): pass
        with pytest.raises(Problem) as full, core.one_upload(1 << 60): pass
        core.work.taken = 1
        with pytest.raises(Problem) as busy: run_coroutine(core.work.do(int))
        assert [e.value.status for e in (second, upload, full, busy)] == [429, 429, 507, 503] and not [*(tmp_path / "s" / "data").glob(".upload*")]


def test_s7_who_is_slow_is_cut_off(models, tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "_DRAINED_SECONDS", .01)
    assert Limits().body_seconds(0) == 10 and Limits().body_seconds(100_000) == 20  # however long the body: 10 kB each second
    with contextlib.closing(Served(tmp_path, models, Limits(free_mb=0, idle_seconds=.05))) as served:
        async def never(): await asyncio.sleep(3600)
        said = []
        async def told(message): said.append(message)
        headers = [(b"authorization", f"Bearer {served.keys['score']}".encode()), (b"content-type", b"application/json"), (b"content-length", b"10")]
        scope = {"type": "http", "method": "POST", "path": "/v1/score", "raw_path": b"/v1/score", "query_string": b"", "headers": headers,
                 "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1), "root_path": ""}
        run_coroutine(served.app(scope, never, told))
    assert said[0]["status"] == 408
    assert "call_later(seconds, self._cut_off)" in Path(server.__file__).read_text()  # of connections that send no head and take no answer: test_service_faults


def test_s8_neither_answers_nor_logs_tell_more_than_they_should(service, tmp_path):
    root, log = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    setup_service_log(True, log)
    try:
        bad = hostile_batch(tmp_path / "h", DAY) or tmp_path / "h"
        (bad / "clusters.parquet").write_bytes(b"PAR1 no more")
        answers = [service.ask("POST", "/v1/batches", "score", files=sent(bad)), service.ask("GET", f"/{SECRET}", headers={"X-Request-ID": f"{SECRET} <b>"}),
                   service.ask("POST", "/v1/score", content=f'{{"network": "{MARK}"}}'.encode(), headers={"Content-Type": "application/json"})]
    finally:
        logger.remove()
        logger.disable("aml_miner")
        root.handlers[:], root.level = handlers, level
    for said in answers: assert said.status_code >= 400 and str(service.folder) not in said.text and "Traceback" not in said.text and ".py" not in said.text
    assert answers[0].json()["faults"] and log.getvalue().count('"event": "request"') == 3
    for secret in (SECRET, MARK, json.dumps(MARK)[1:-1], *service.keys.values(), str(service.folder)): assert secret not in log.getvalue()


def test_s9_every_answer_has_its_headers(service):
    for path in ("/health", "/v1/models", "/nothing", "/openapi.json", "/docs"):
        headers = service.ask("GET", path).headers
        assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"] and "frame-ancestors 'none'" in headers["content-security-policy"]


def test_s10_a_key_sees_all_networks(service, tmp_path):
    for network in ("torus", "other"):
        batch = tiny_batch(tmp_path / network, "2025-09-20", meta=lambda m, n=network: m | {"network": n}, money_flows=None, address_labels=None)
        assert service.ask("POST", "/v1/batches", "score", files=sent(batch)).status_code == 201
    assert {"torus.2025-09-20", "other.2025-09-20"} <= {b["batch_id"] for b in service.ask("GET", "/v1/batches", "read").json()["batches"]}  # open


def test_s11_the_service_has_no_tls():
    assert "ssl" not in Path(server.__file__).read_text()  # open
    assert "TLS ends at a proxy in front" in (ROOT / "docker-compose.yml").read_text()


# D: the other side of a download


class Far:
    "A server that has some files, or answers otherwise."
    def __init__(self, content=(), say=None):
        self.content, self.say, self.asked = dict(content), say, []

    def client(self, **how):
        assert how.pop("follow_redirects") is False and "verify" not in how
        def answer(request):
            self.asked.append((str(request.url), request.headers.get("authorization")))
            if self.say and (said := self.say(request)): return said
            name = request.url.path.rpartition("/")[2]
            if name not in self.content: return httpx.Response(404)
            return httpx.Response(200, headers={"Content-Length": str(len(self.content[name]))}, stream=httpx.ByteStream(self.content[name]))
        return _CLIENT(transport=httpx.MockTransport(answer), **how)


_CLIENT = httpx.Client


@pytest.fixture
def far(monkeypatch, plain):
    "A server with the tiny batch, in place of the network."
    server = Far({p.name: p.read_bytes() for p in plain[0].iterdir()})
    monkeypatch.setattr(remote_files.httpx, "Client", server.client)
    return server


def moved(to): return lambda request: httpx.Response(302, headers={"location": to}) if request.url.host == "a.example" else None


def test_d1_https_alone(far, tmp_path):
    for address in ("http://a.example/b", "ftp://a.example/b", "file:///etc", "http://127.0.0.1.evil.example/b", "http://localhost@evil.example/b"):
        with pytest.raises(ValueError, match="allowed are https"): download_batch(address, tmp_path / "b")
    for to in ("http://a.example/b", "file:///etc/passwd", "https://user@b.example/x"):
        far.say = moved(to)
        with pytest.raises(ValueError, match="allowed is https|a user, which is not followed"): download_batch("https://a.example/b", tmp_path / "b")
    far.say = moved("https://a.example/c")
    with pytest.raises(ValueError, match="more than 5 redirects"): download_batch("https://a.example/b", tmp_path / "b")
    keywords = {k.arg for node in ast.walk(ast.parse(Path(remote_files.__file__).read_text())) if isinstance(node, ast.Call) for k in node.keywords}
    assert not keywords & {"verify", "cert", "tls_verify", "check_hostname"}


def test_d2_a_token_is_for_the_host_that_was_named(far, tmp_path, capsys):
    far.say = lambda request: moved(str(request.url.copy_with(host="b.example")))(request)
    download_batch("https://a.example/b", tmp_path / "b", token=SECRET)
    assert {(httpx.URL(url).host, key) for url, key in far.asked} == {("a.example", f"Bearer {SECRET}"), ("b.example", None)}
    far.say = lambda request: httpx.Response(401)
    with pytest.raises(ValueError, match="HTTP 401") as error: download_batch(f"https://u:{SECRET}@a.example/b?key={SECRET}", tmp_path / "c")
    assert SECRET not in str(error.value) and SECRET not in repr(remote_files.HttpSource(f"https://u:{SECRET}@a.example/b", SECRET))


def test_d3_no_other_file_is_written(far, tmp_path):
    meta = json.loads(far.content["META.json"])
    far.content |= {"evil.sh": b"x", "META.json": json.dumps(meta | {"sha256": meta["sha256"] | {"evil.sh": hashlib.sha256(b"x").hexdigest()}}).encode()}
    download_batch("https://a.example/b", tmp_path / "out" / "b")
    assert {p.name for p in (tmp_path / "out" / "b").iterdir()} == {*far.content} - {"evil.sh"} and "evil.sh" not in str(far.asked)
    source = remote_files.HttpSource("https://a.example/b")
    for path in ("../x", "/etc", "a/../../b", "a//b", ".hidden", "a\\b", "", 7, "a\n"):
        with pytest.raises(ValueError, match="no path below it"): listed_batches(source, json.dumps([path]).encode())


def test_d4_a_server_cannot_send_without_end(far, tmp_path):
    assert (DownloadLimits().max_bytes, DownloadLimits().max_seconds, download.MAX_INDEX_BYTES, download.MAX_META_BYTES) == (50 << 30, 6 * 3600, 8 << 20, 10**6)
    for limits, said in ((DownloadLimits(max_bytes=1000), "more than the 1,000 bytes"), (DownloadLimits(max_seconds=-1), "not done within")):
        with pytest.raises(ValueError, match=said): download_batch("https://a.example/b", tmp_path / "b", limits=limits)
    far.content["META.json"] = b" " * 1_000_001
    with pytest.raises(ValueError, match="more than 1,000,000 bytes"): download_batch("https://a.example/b", tmp_path / "b")
    far.say = lambda request: httpx.Response(503)
    limits = DownloadLimits(retries=2, pause=0)
    with pytest.raises(ValueError, match="given up after 3 tries"): download_batch("https://a.example/b", tmp_path / "b", limits=limits)


def test_d5_a_batch_is_put_in_place_whole_and_checked(far, tmp_path):
    right = far.content["alerts.parquet"]
    for wrong, hashed in ((right[:-1] + b"!", False), (b"PAR1 no more", True)):
        far.content["alerts.parquet"] = wrong
        if hashed:
            meta = json.loads(far.content["META.json"])
            far.content["META.json"] = json.dumps(meta | {"sha256": meta["sha256"] | {"alerts.parquet": hashlib.sha256(wrong).hexdigest()}}).encode()
        with pytest.raises(ValueError, match="alerts.parquet: " + ("cannot be read" if hashed else "SHA-256")):
            download_batch("https://a.example/b", tmp_path / "b")
        assert not (tmp_path / "b").exists()


def test_d6_a_server_can_send_any_batch(far, tmp_path):
    for p in tiny_batch(tmp_path / "other", alerts=lambda a: a.assign(alert_confidence_score=.5)).iterdir(): far.content[p.name] = p.read_bytes()
    assert sha256_file(download_batch("https://a.example/b", tmp_path / "b") / "alerts.parquet") == sha256_file(tmp_path / "other" / "alerts.parquet")  # open
    del far.content["META.json"]
    with pytest.raises(ValueError, match="--no-checksum"): download_batch("https://a.example/b", tmp_path / "c")
    assert callable(fetch_file) and download_batch("https://a.example/b", tmp_path / "c", checksum=False).is_dir()


# R: the folder of mornings


def test_r1_a_changed_output_is_made_again(tmp_path):
    records = StepRecords(tmp_path)
    (tmp_path / "scores").write_text("1")
    records.keep("score", {"batch": "x"}, {"said": "done"}, [tmp_path / "scores"])
    assert records.result("score", {"batch": "x"}) == {"said": "done"} and records.result("score", {"batch": "y"}) is None
    (tmp_path / "scores").write_text("2")
    assert records.result("score", {"batch": "x"}) is None
    (tmp_path / "scores").unlink()
    assert records.result("score", {"batch": "x"}) is None


def test_r2_a_record_leads_to_no_file_outside(tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    records, digits = StepRecords(tmp_path / "day"), sha256_file(tmp_path / "secret")
    records.keep("score", {}, {})
    (tmp_path / "day" / "link").symlink_to(tmp_path / "secret")
    for name in ("../secret", str(tmp_path / "secret"), "link"):
        records.path("score").write_text(json.dumps({"inputs": {}, "result": {}, "outputs": {name: digits}}))
        assert records.result("score", {}) is None


def test_r3_what_is_written_is_whole(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "out") as new:
        (new / "a").write_text("ne")
        raise RuntimeError("killed")
    assert (tmp_path / "out" / "a").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_r4_changed_scores_are_found_by_scoring_again(plain, tmp_path):
    shutil.copytree(plain[1], tmp_path / "out")
    path, told, records = tmp_path / "out" / "alert_scores.parquet", tmp_path / "out" / "scores.json", StepRecords(tmp_path)
    table = pq.read_table(path).to_pandas()
    table = table.assign(score=np.where(table.index == 2, table.score / 2, table.score))
    pq.write_table(pa.Table.from_pandas(table, SCHEMAS["alert_scores"], preserve_index=False), path)
    summary = json.loads(told.read_text())
    told.write_text(json.dumps(summary | {"content_sha256": summary["content_sha256"] | {"alert_scores": content_sha256(table)}}))
    records.keep("score", {}, {"said": "done"}, [tmp_path / "out"])
    assert records.result("score", {}) == {"said": "done"}  # open: a record that is made to fit
    assert states(check_rerun(read_submission(tmp_path / "out"), plain[2]))["rerun"] == "failed"


# L: a colleague on the same machine


def test_l1_temporary_folders_are_private(tmp_path):
    before = os.umask(0)
    try:
        with scratch_beside(tmp_path / "x") as one, scratch_beside(tmp_path / "x") as two:
            assert one != two and {stat.S_IMODE(p.stat().st_mode) for p in (one, two)} == {0o700}
        with tempfile.TemporaryDirectory() as folder: assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    finally: os.umask(before)
    made = {name.rpartition(".")[2] for _, name in calls() if "temp" in name.lower()}
    assert {"mkdtemp", "TemporaryDirectory"} <= made and not {"mktemp", "NamedTemporaryFile"} & made


def test_l2_nothing_of_others_is_removed_or_opened(tmp_path, monkeypatch):
    left, linked = tmp_path / ".x.abcdefgh.aml_miner", tmp_path / ".y.abcdefgh.aml_miner"
    left.mkdir()
    (tmp_path / "elsewhere").mkdir()
    linked.symlink_to(tmp_path / "elsewhere")
    own = os.geteuid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: own + 4242)
        with scratch_beside(tmp_path / "x"): pass
    assert left.is_dir()
    with scratch_beside(tmp_path / "x"): pass
    assert not left.exists() and (tmp_path / "elsewhere").is_dir()  # one's own is removed
    (tmp_path / ".name.lock").symlink_to(tmp_path / "new")
    with pytest.raises(OSError), exclusive(tmp_path, "name", 0): pass
    assert not (tmp_path / "new").exists()


def test_l3_cache_and_keys_are_for_their_owner(built, tmp_path):
    before = os.umask(0)
    try:
        cached(built, tmp_path / "cache")
        add_key(tmp_path / "keys.yaml", "a", "read")
    finally: os.umask(before)
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in (*(tmp_path / "cache").iterdir(), tmp_path / "keys.yaml")} == {0o600}


def test_l4_outputs_have_the_mode_of_the_umask(tmp_path):
    for mask, modes in ((0o022, (0o755, 0o644)), (0o077, (0o700, 0o600))):
        before = os.umask(mask)
        try:
            with atomic_folder(tmp_path / "out") as new: (new / "a").write_text("x")  # open
        finally: os.umask(before)
        assert (stat.S_IMODE((tmp_path / "out").stat().st_mode), stat.S_IMODE((tmp_path / "out" / "a").stat().st_mode)) == modes


# P: pages


def pages(scored): return (scored[1] / "queue.html").read_text(), next((scored[1] / "evidence").glob("*.html")).read_text()


def test_p1_a_page_loads_nothing_and_runs_its_own_script_alone(scored, service):
    queue, evidence = pages(scored)
    for html in (queue, evidence):
        policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html)[1]
        assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'") and "http" not in policy
        assert html.index("Content-Security-Policy") < html.index("<style") and not re.search(r"<(?:link|iframe|object|embed|img|base|form)\b", html)
        assert not re.search(r'\b(?:src|href|action)="(?!#|evidence/|\.\./queue\.html)', html)
    import base64
    scripts = re.findall(r"<script>(.*?)</script>", queue, flags=re.S)
    assert len(scripts) == 1 and f"script-src 'sha256-{base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()}'" in queue
    assert "<script" not in evidence
    assert not re.search(r"\b(?:eval|Function|innerHTML|insertAdjacentHTML|document\.write|fetch|XMLHttpRequest|WebSocket)\b", scripts[0])
    docs = service.ask("GET", "/docs", None)
    assert "<script" not in docs.text and not re.search(r"""(?:src|href)=["'](?!#|openapi\.json)|url\(|@import""", docs.text)


def test_p2_texts_of_a_batch_are_texts(scored):
    queue, evidence = pages(scored)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', queue, flags=re.S)[1]
    assert not re.search("[<>&]", data) and {a["alert_id"] for a in json.loads(data)["alerts"]} == {*scored[2].queue.alert_id}
    for html in (queue.replace(data, ""), evidence):
        assert MARK in html and not re.search(r"<script>alert|<img|<svg onload|onmouseover='|javascript:[^<]*\"|\x1b|\u202e", html)


def test_p3_marks_stay_in_the_browser(scored): assert "localStorage.setItem(data.key" in pages(scored)[0]  # open


# X: code, dependencies, image


def test_x1_no_data_is_run():
    unsafe = {"pickle", "cPickle", "marshal", "shelve", "joblib", "dill", "cloudpickle", "runpy", "code", "codeop"}
    assert len({path for path, _ in code()}) > 150 and not {(path, name) for path, name in imports() if name.partition(".")[0] in unsafe}
    run = r"eval|exec|compile|__import__|.*\.?(read_pickle|to_pickle|unsafe_load\w*|full_load\w*|load_module)|yaml\.(load|load_all)|(np|numpy)\.load"
    assert not {(path, name) for path, name in calls() if re.fullmatch(run, name)} and not keywords("allow_pickle")
    loaders = places(lambda node: [name] if (name := dotted(node)).startswith("yaml.") and name.endswith("oader") else [])
    assert loaders == {("aml_miner/config/yaml_reader.py", "yaml.SafeLoader")}
    by_name = {(path, name) for path, name in calls() if name.endswith("import_module")}  # names that stand in the code
    assert by_name == {(f"aml_miner/{file}.py", "import_module") for file in ("cli/tree", "utils/aliases", "utils/lazy")}


def test_x2_no_other_program_is_started():
    assert {(path, name) for path, name in imports() if name.partition(".")[0] in ("subprocess", "pty", "multiprocessing")} == {
        ("aml_miner/tuning/tuner.py", "multiprocessing")}
    assert not {(path, name) for path, name in calls() if re.fullmatch(r"os\.(system|popen|exec\w+|spawn\w+|posix_spawn\w*|startfile)|.*\.?Popen", name)}
    assert "True" not in {value for _, value in keywords("shell")}


def test_x3_nothing_asks_a_network_unasked():
    nets = re.compile(r"httpx|socket|requests|urllib(?!\.parse)|http\.(client|server)|ftplib|smtplib|aiohttp|websockets|ssl|uvicorn|pyarrow\.fs|"
                      r"sqlalchemy|pg8000")
    used = {(path.removeprefix("aml_miner/"), found[0]) for path, name in imports() if (found := nets.match(name)) and name != "urllib"}
    assert used == {("batches/remote_files.py", "httpx"), ("batches/remote_files.py", "pyarrow.fs"),
                    ("service/server.py", "socket"), ("service/server.py", "uvicorn"), ("tuning/database.py", "sqlalchemy"), ("tuning/database.py", "ssl")}
    texts = places(lambda node: re.findall(r"\w+://\w[\w./-]*", node.value) if isinstance(node, ast.Constant) and isinstance(node.value, str) else [])
    assert {text for _, text in texts} == {"s3://bucket/prefix"}
    with connect() as con: assert con.execute("SELECT value FROM duckdb_settings() WHERE name = 'autoinstall_known_extensions'").fetchall() == [("false",)]


def test_x4_dependencies_are_pinned_and_listed():
    for path in (make_locks.PINS, make_locks.IMAGE):
        pins = entries(path)
        assert len(pins) > 90 and all(hashes for _, hashes in pins.values())
    bill = json.loads(make_locks.SBOM.read_text(encoding="utf-8"))
    assert {part["name"].lower() for part in bill["components"]} > {"lightgbm", "duckdb", "pyarrow", "fastapi", "pyyaml"}


def test_x5_the_image_is_shut_in():
    assert "--require-hashes --only-binary :all:" in DOCKERFILE and re.search(r"pip uninstall --yes setuptools wheel pip", DOCKERFILE)
    assert re.findall(r"^USER (.*)$", DOCKERFILE, flags=re.M) == ["10001:10001"] and "FROM" not in DOCKERFILE[DOCKERFILE.index("USER 10001"):]
    for service in COMPOSE["services"].values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_x6_the_dashboard_has_no_keys():
    dashboard = COMPOSE["services"]["dashboard"]
    assert dashboard["command"][0] == "optuna-dashboard" and "secrets" not in dashboard and dashboard["ports"] == ["127.0.0.1:8080:8080"]  # open

