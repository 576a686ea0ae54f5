"""The history of earlier batches as a scheduler uses it: day after day, two processes, damaged files. It is killed in tests/kills."""
from contextlib import redirect_stderr
import io
import json
import os
import random
import resource
import shutil
import threading

from conftest import QUICK, files, run_warm
from fuzz.forked import run_forked
from loguru import logger
import pandas as pd
import pytest

from aml_miner.batches import history as history_store
from aml_miner.batches.history import DamagedHistoryError, HistoryError, HistoryStore, batch_pasts, open_history
from aml_miner.config.model_config import load_config
from aml_miner.features.feature_builder import FeatureBuilder
from aml_miner.features.vocabulary import Vocabulary
from aml_miner.scoring.batch_scores import apply_models, model_pasts
from aml_miner.scoring.model_set import load_models
from aml_miner.scoring.score_batch import main as score_main
from aml_miner.batches.loader import read_batch, read_batches
from aml_miner.training.alert_data import read_alerts

GROUPS = {"groups": ["alert", "walk", "community", "history"], "label_delay_days": 1}
SCORE = ("-m", "aml_miner.scoring.score_batch")


@pytest.fixture(scope="module")
def config():
    return load_config(overrides={"feature_engineering": GROUPS, "training": {"num_threads": 2}})


@pytest.fixture(scope="module")
def batches(sample):
    return read_batches(sample)


@pytest.fixture(scope="module")
def expected(batches, config):
    "Fingerprints of what each batch may know."
    return [p.fingerprint for p in batch_pasts(batches, config.feature_engineering)]


def fingerprints(store, batches, config):
    settings = config.feature_engineering
    return [store.past(b, settings.label_delay_days, settings.history_days).fingerprint for b in batches]


def test_day_after_day_from_a_file_gives_the_features_of_training(sample, batches, config, expected, tmp_path):
    data = read_alerts(sample, config, labelled_only=True)
    days = data.X.index.get_level_values("processing_date")
    assert data.X.history_alerts.gt(0).any() and data.X.history_illicit.gt(0).any() and data.X[days == days[0]].history_alerts.isna().all()
    builder, settings = FeatureBuilder(config.feature_engineering, Vocabulary.from_dict(data.source["vocabulary"])), config.feature_engineering
    for i, batch in enumerate(batches):
        with open_history(tmp_path / "h.duckdb") as store:
            past = store.past(batch, settings.label_delay_days, settings.history_days)
            assert past.fingerprint == expected[i]
            X = builder.build(batch, past)
            trained = data.X[data.alerts.batch.eq(i).to_numpy()]
            pd.testing.assert_frame_equal(X.loc[trained.index], trained)
            store.add(batch)


@pytest.fixture(scope="module")
def models(sample, tmp_path_factory):
    "A scorer that learnt from earlier batches."
    folder = tmp_path_factory.mktemp("models")
    (folder / "config.yaml").write_text(QUICK + f"feature_engineering: {json.dumps(GROUPS)}\n")
    files = ("--data-dir", sample, "--config", folder / "config.yaml", "--output", folder / "alert_scorer.txt")
    process = run_warm("-m", "aml_miner.training.train_scorer", *files, "--cv-folds", 2)
    assert process.returncode == 0, process.stderr
    return folder


def score(batch, models, out, *more):
    folders = ("--batch-dir", batch.path, "--models-dir", models, "--output-dir", out)
    return run_warm(*SCORE, *folders, "--num-threads", 1, "--explain-top", 3, "--no-latency", *more)


def test_scores_from_a_history_are_those_of_training_days(batches, models, config, sample, tmp_path):
    last, loaded = batches[-1], load_models(models, 1)
    assert any(f.startswith("history_") for f in loaded["alert_scorer"].booster.feature_name())
    direct = apply_models(last, loaded, 3, pasts={"alert_scorer": batch_pasts(batches, loaded["alert_scorer"].settings)[-1]})
    for i, batch in enumerate(batches[-3:]):  # three mornings: the first builds the history
        done = score(batch, models, tmp_path / "out", "--history", tmp_path / "h.duckdb", *(["--history-from", sample] if i == 0 else []))
        assert done.returncode == 0, done.stderr
    scored = pd.read_parquet(tmp_path / "out" / "alert_rankings.parquet")
    assert scored.score.tolist() == direct.queue.score.tolist() and scored.alert_id.tolist() == direct.queue.alert_id.tolist()
    said = json.loads((tmp_path / "out" / "scores.json").read_text())["history"]["alert_scorer"]
    assert said == {"earlier_batches": len(batches) - 1, "label_delay_days": 1, "history_days": 180, "fingerprint": direct.pasts["alert_scorer"].fingerprint}
    def content(): return {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}

    first = content()
    assert score(last, models, tmp_path / "out", "--history", tmp_path / "h.duckdb").returncode == 0  # again, and it is in the history now
    assert content() == first


def test_a_lone_batch_is_scored_with_those_beside_it_or_not_at_all(batches, models, config, tmp_path):
    "Both doors: the day of a directory; a day that lies apart; the same where that is asked for."
    done = score(batches[-1], models, tmp_path / "beside")
    assert done.returncode == 0 and f"{len(batches) - 1} earlier days in" in done.stderr
    assert json.loads((tmp_path / "beside" / "scores.json").read_text())["history"]["alert_scorer"]["earlier_batches"] == len(batches) - 1
    assert score(batches[-1], models, tmp_path / "named", "--history-from", batches[-1].path.parent).returncode == 0
    assert files(tmp_path / "beside") == files(tmp_path / "named")
    shutil.copytree(batches[-1].path, tmp_path / "apart" / "day")
    apart = read_batch(tmp_path / "apart" / "day")
    done = score(apart, models, tmp_path / "out")
    errors = [line for line in done.stderr.splitlines() if "ERROR" in line]
    assert done.returncode == 2 and len(errors) == 1 and not (tmp_path / "out").exists()
    for way in ("--data-dir", "--history-from", "--history", "--no-history", "alert_scorer: learnt from earlier batches"): assert way in errors[0]
    assert score(apart, models, tmp_path / "out", "--no-history").returncode == 0
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["history"]["alert_scorer"]["earlier_batches"] == 0
    assert model_pasts(batches[-1], load_models(models, 1), None) == {}


def test_a_new_history_knows_what_lies_in_the_directory(batches, models, sample, tmp_path):
    "Whichever way the batch is named: a history that began empty would change the scores, and nobody would see why."
    for name, data in (("whole", sample), ("lone", batches[-1].path)):
        done = run_warm(*SCORE, "--batch-dir", data, "--models-dir", models, "--output-dir", tmp_path / name, "--history", tmp_path / f"{name}.duckdb",
                        "--num-threads", 1, "--explain-top", 3, "--no-latency")
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / name / "scores.json").read_text())["history"]["alert_scorer"]["earlier_batches"] == len(batches) - 1
    assert score(batches[-1], models, tmp_path / "without", "--history-from", sample).returncode == 0
    assert files(tmp_path / "whole") == files(tmp_path / "lone") == files(tmp_path / "without")
    shutil.copytree(batches[-1].path, tmp_path / "apart" / "day")
    done = score(read_batch(tmp_path / "apart" / "day"), models, tmp_path / "out", "--history", tmp_path / "new.duckdb")
    assert done.returncode == 0 and "WARNING" in done.stderr and "no earlier batch is known yet" in done.stderr


def test_a_run_that_fails_adds_nothing(batches, models, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    done = score(batches[-1], models, tmp_path / "out", "--history", tmp_path / "h.duckdb")
    assert done.returncode == 2 and not (tmp_path / "h.duckdb").exists()


def test_who_comes_second_waits(batches, tmp_path):
    path, waits, found = tmp_path / "h.duckdb", threading.Event(), []

    def second():
        with open_history(path) as store: found.append(len(store.batches()))

    sink = logger.add(lambda line: waits.set() if "another process has this history open; waiting" in line else None)
    logger.enable("aml_miner")
    try:
        with HistoryStore(path) as store:
            with pytest.raises(HistoryError, match="another process has this history open"): HistoryStore(path, wait_seconds=0)
            other = threading.Thread(target=second)
            other.start()
            assert waits.wait(300)
            store.add(batches[0])
            known = len(store.batches())
        other.join(300)
    finally: logger.remove(sink)
    assert found == [known] and [p.name for p in tmp_path.iterdir()] == ["h.duckdb"]


def test_two_that_begin_one_history_lose_no_batch(sample, batches, tmp_path):
    "Both are let go on when each of them builds it, or waits for the other."
    path, past = tmp_path / "h.duckdb", tmp_path / "past"
    past.mkdir()
    for b in batches[:2]: shutil.copytree(b.path, past / b.path.name)
    (reached, reaches), (goes, go) = os.pipe(), os.pipe()

    class Loader(history_store.BatchDataLoader):
        def find_batches(self):
            os.write(reaches, b"x")
            os.read(goes, 1)
            return super().find_batches()

    def run(batch):
        history_store.BatchDataLoader = Loader
        logger.remove()
        logger.add(lambda line: os.write(reaches, b"x") if "waiting" in line else None)
        logger.enable("aml_miner")
        with open_history(path, past) as store: store.add(batch)

    ends = []
    threads = [threading.Thread(target=lambda b=b: ends.append(run_forked(run, b, cpu_seconds=120))) for b in batches[2:4]]
    for t in threads: t.start()
    for _ in threads: os.read(reached, 1)
    os.write(go, b"xx")
    for t in threads: t.join()
    assert [e.kind for e in ends] == ["value"] * 2, ends
    with HistoryStore(path) as store: assert {d.date() for d in store.batches().processing_date} == {b.processing_date for b in batches[:4]}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["h.duckdb", "past"]


@pytest.fixture(scope="module")
def built(sample, tmp_path_factory):
    "A history of all batches but the last, in a folder of its own."
    path = tmp_path_factory.mktemp("built") / "h.duckdb"
    with HistoryStore(path) as store:
        with store._changed():
            for b in read_batches(sample)[:-1]: store._add(b)
    return path.read_bytes()


def opened(path, batch, config, data_dir=None):
    "What a batch may know by a file."
    with open_history(path, data_dir) as store: return fingerprints(store, [batch], config)[0]


def mutants(content, n, seed):
    "Contents that differ from one: cut, turned, zeroed, doubled, filled with noise, of another kind."
    rng = random.Random(seed)
    yield from (b"", b"date,alert\n" * 999, bytes(len(content)), content[:-1], content + b"x", content[:len(content) // 2])
    for i in range(n):
        at, size = rng.randrange(len(content)), rng.choice((1, 16, 4096))
        part = content[at:at + size]
        yield content[:at] + (bytes(255 - b for b in part), bytes(len(part)), part * 2, b"", rng.randbytes(size))[i % 5] + content[at + size:]


def test_damage_is_found(built, batches, config, expected, tmp_path):
    "In any byte, before the file is a database; a rebuilt history is the same, and what was there is kept."
    path, whole = tmp_path / "h.duckdb", built

    def answers():
        "How many files are refused, how many used as they are, and how many of these say something else."
        refused = used = wrong = 0
        for content in mutants(whole, 150, 3):
            path.write_bytes(content)
            try: found = opened(path, batches[-1], config)
            except DamagedHistoryError: refused += 1
            else: used, wrong = used + (content == whole), wrong + (content != whole or found != expected[-1])
        return refused, used, wrong

    ended = run_forked(answers, cpu_seconds=300)
    assert ended.kind == "value" and ended.value[0] > 120 and ended.value[2] == 0 and sum(ended.value[:2]) == 156, ended
    path.write_bytes(whole)
    (tmp_path / "h.duckdb.wal").write_bytes(random.Random(1).randbytes(5000))  # of nobody
    assert opened(path, batches[-1], config) == expected[-1] and path.read_bytes() == whole


def test_damage_is_repaired(built, sample, batches, config, expected, tmp_path):
    path, half = tmp_path / "h.duckdb", built[:len(built) // 2]
    path.write_bytes(half)
    with pytest.raises(DamagedHistoryError, match="h.duckdb: no history of alerts .*name the directory"): open_history(path)
    assert path.read_bytes() == half
    assert opened(path, batches[-1], config, sample) == expected[-1]
    assert (tmp_path / "h.duckdb.damaged").read_bytes() == half and opened(path, batches[-1], config) == expected[-1]


@pytest.mark.parametrize("allowed", [0.001, 0.5, 1.001], ids=["for nothing", "for half a copy", "for the copy, but for no batch more"])
def test_no_room_leaves_it_as_it_was(allowed, built, batches, tmp_path):
    path = tmp_path / "h.duckdb"
    path.write_bytes(built)

    def add():
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(len(built) * allowed), resource.RLIM_INFINITY))
        with HistoryStore(path) as store: store.add(batches[-1])

    ended = run_forked(add, refusals=(HistoryError, OSError))
    assert ended.kind == "refused" and "h.duckdb" in ended.detail, ended
    assert path.read_bytes() == built and [p.name for p in tmp_path.iterdir()] == ["h.duckdb"]


def test_a_command_without_room_says_so_in_one_line(built, batches, models, tmp_path):
    path = tmp_path / "h.duckdb"
    path.write_bytes(built)

    def run():
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(built) - 1000, resource.RLIM_INFINITY))
        folders = ["--batch-dir", str(batches[-1].path), "--models-dir", str(models), "--output-dir", str(tmp_path / "out")]
        with redirect_stderr(io.StringIO()) as log: code = score_main([*folders, "--num-threads", "1", "--explain-top", "1", "--history", str(path)])
        return code, "Traceback" in log.getvalue(), [line[9:] for line in log.getvalue().splitlines() if " ERROR " in line]

    ended = run_forked(run, cpu_seconds=120)
    code, trace, lines = ended.value
    assert code == 2 and not trace and len(lines) == 1 and "h.duckdb" in lines[0], ended
    assert path.read_bytes() == built and not (tmp_path / "h.duckdb.lock").exists()
