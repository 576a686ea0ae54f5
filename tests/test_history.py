"""The history of earlier batches as a scheduler uses it: day after day, two processes, damaged files, killed."""
import json
import os
import signal
import subprocess
import sys
import time

from conftest import QUICK, ROOT, run_module
import pandas as pd
import pytest

from aml_miner.config.model_config import load_config
from aml_miner.features.builder import FeatureBuilder
from aml_miner.features.history_store import DamagedHistoryError, HistoryStore, batch_pasts, open_history
from aml_miner.features.vocabulary import Vocabulary
from aml_miner.scoring.batch_scores import load_models, model_pasts, score_batch
from aml_miner.training.alert_data import load_alert_data, read_batches

GROUPS = {"groups": ["alert", "walk", "history"], "label_delay_days": 1}
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
    data = load_alert_data(sample, config)
    assert data.X.history_alerts.gt(0).any() and data.X.history_illicit.gt(0).any() and data.X[data.X.index.get_level_values(0) == data.X.index[0][0]].history_alerts.isna().all()
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
    done = run_module("-m", "aml_miner.training.train_scorer", "--data-dir", sample, "--config", folder / "config.yaml", "--output", folder / "alert_scorer.txt", "--cv-folds", 2)
    assert done.returncode == 0, done.stderr
    return folder


def score(batch, models, out, *more):
    return run_module(*SCORE, "--batch-dir", batch.path, "--models-dir", models, "--output-dir", out, "--num-threads", 1, "--explain-top", 3, "--no-latency", *more)


def test_scores_from_a_history_are_those_of_training_days(batches, models, config, sample, tmp_path):
    last, loaded = batches[-1], load_models(models, 1)
    assert any(f.startswith("history_") for f in loaded["alert_scorer"].booster.feature_name())
    direct = score_batch(last, loaded, 3, pasts={"alert_scorer": batch_pasts(batches, loaded["alert_scorer"].settings)[-1]})
    for i, batch in enumerate(batches[-3:]):  # three mornings: the first builds the history
        done = score(batch, models, tmp_path / "out", "--history", tmp_path / "h.duckdb", *(["--history-from", sample] if i == 0 else []))
        assert done.returncode == 0, done.stderr
    scored = pd.read_parquet(tmp_path / "out" / "alert_rankings.parquet")
    assert scored.score.tolist() == direct.queue.score.tolist() and scored.alert_id.tolist() == direct.queue.alert_id.tolist()
    said = json.loads((tmp_path / "out" / "scores.json").read_text())["history"]["alert_scorer"]
    assert said == {"earlier_batches": len(batches) - 1, "label_delay_days": 1, "history_days": 180, "fingerprint": direct.pasts["alert_scorer"].fingerprint}
    first = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert score(last, models, tmp_path / "out", "--history", tmp_path / "h.duckdb").returncode == 0  # again, and it is in the history now
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == first


def test_without_a_history_the_log_says_so(batches, models, tmp_path):
    done = score(batches[-1], models, tmp_path / "out")
    assert done.returncode == 0 and "alert_scorer: features of earlier batches are unknown" in done.stderr
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["history"] == {}
    assert model_pasts(batches[-1], load_models(models, 1), None) == {}


def test_a_run_that_fails_adds_nothing(batches, models, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    done = score(batches[-1], models, tmp_path / "out", "--history", tmp_path / "h.duckdb")
    assert done.returncode == 2 and not (tmp_path / "h.duckdb").exists()


def test_a_file_belongs_to_one_process(batches, models, tmp_path):
    with HistoryStore(tmp_path / "h.duckdb") as store:
        done = score(batches[-1], models, tmp_path / "out", "--history", tmp_path / "h.duckdb")
        assert done.returncode == 2 and "another process has this history open" in done.stderr
        assert not (tmp_path / "out").exists() and not len(store.batches())
    assert score(batches[-1], models, tmp_path / "out", "--history", tmp_path / "h.duckdb").returncode == 0


OPEN = """
import sys
from aml_miner.features.history_store import DamagedHistoryError, HistoryStore
for path in sys.argv[1:]:
    try:
        with HistoryStore(path) as store: print(len(store.batches()))
    except DamagedHistoryError as e: print("damaged", e)
"""


def test_damage_is_found_and_repaired(sample, batches, config, expected, tmp_path):
    with open_history(tmp_path / "h.duckdb", sample) as store: assert fingerprints(store, batches[-1:], config) == expected[-1:]
    whole, broken = (tmp_path / "h.duckdb").read_bytes(), []
    cases = {"empty": b"", "half": whole[:len(whole) // 2], "short": whole[:-5000], "zeros": bytes(len(whole)), "text": b"date,alert\n" * 999}
    for i in range(12): cases[f"turned {i}"] = whole[:(at := i * len(whole) // 12 + 100)] + bytes(255 - b for b in whole[at:at + 3000]) + whole[at + 3000:]
    for name, content in cases.items():
        broken.append(tmp_path / f"{name}.duckdb")
        broken[-1].write_bytes(content)
    done = run_module("-c", OPEN, *broken)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == len(cases), done.stderr  # no damage ends the process
    assert all(line.startswith("damaged") for line in lines[:5])
    assert all(line.startswith("damaged") or line == str(len(batches)) for line in lines)  # bytes may have been turned that hold nothing
    assert sum(line.startswith("damaged") for line in lines) >= 10
    for path in (tmp_path / "half.duckdb", tmp_path / "text.duckdb"):
        content = path.read_bytes()
        with pytest.raises(DamagedHistoryError, match="name the directory"): open_history(path)
        with open_history(path, sample) as store: assert fingerprints(store, batches[-1:], config) == expected[-1:]
        assert path.with_name(f"{path.name}.damaged").read_bytes() == content


def test_killed_while_it_is_built_or_added_to(sample, batches, config, expected, tmp_path):
    path = tmp_path / "h.duckdb"
    build = f"from aml_miner.features.history_store import open_history\nwhile True: open_history({str(path)!r}, {str(sample)!r}).close(); __import__('os').unlink({str(path)!r})"
    add = f"""from aml_miner.features.history_store import HistoryStore
from aml_miner.datasets.loader import read_batch
batches = [read_batch(p) for p in {[str(b.path) for b in batches]}]
with HistoryStore({str(path)!r}) as store:
    while True:
        for b in batches: store.add(b)"""
    for code, waits in ((build, (2, 3.5)), (add, (3, 5))):
        for wait in waits:
            process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(wait)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            with open_history(path, sample) as store:
                assert fingerprints(store, batches[-1:], config) == expected[-1:]
                assert store.batches().n_alerts.sum() == sum(b.counts["alerts"] for b in batches)
            assert not path.with_name("h.duckdb.damaged").exists()
