"""Model classes: damaged files in a process of its own, and scores that do not depend on the company an alert keeps."""
import json
import os
import re

from conftest import ROOT, run_module, run_warm
import numpy as np
import pandas as pd
import pytest

from aml_miner.batches.loader import read_batch
from aml_miner.models import AlertRankerModel, AlertScorerModel, ClusterScorerModel
from aml_miner.testing.small_models import small_models

LOAD = """
import os, sys
from aml_miner.models import AlertScorerModel, ModelFileError
for name in sys.argv[1:]:
    os.write(1, (name.rsplit("/", 1)[-1] + ": ").encode())  # unbuffered: the last line names the file that killed the process
    try: AlertScorerModel.load_model(name)
    except ModelFileError as e: os.write(1, (str(e).replace("\\n", " ") + "\\n").encode())
    else: os.write(1, b"loaded\\n")
"""


@pytest.fixture(scope="module")
def batches(sample):
    return [read_batch(sample / day) for day in ("2025-09-03", "2025-09-04", "2025-09-05")]


@pytest.fixture(scope="module")
def models(batches, tmp_path_factory):
    "Folder with three small models."
    return small_models(tmp_path_factory.mktemp("models"), batches[:2])


TEXT_DAMAGE = {  # name -> (change of the model's bytes, what the error says)
    "cut_short": (lambda b: b[:len(b) // 2], "cut short"),
    "cut_last_byte": (lambda b: b[:-2], "cut short"),
    "numbers_swapped": (lambda b: re.sub(rb"leaf_value=(\S+) (\S+)", rb"leaf_value=\2 \1", b, count=1), "one of them was changed"),
    "nul_byte": (lambda b: b[:3000] + b"\0" + b[3001:], "NUL byte at position 3,000"),
    "foreign_text": (lambda b: b"alert_id,score\na01,0.5\n", "no LightGBM model"),
    "empty": (lambda b: b"", "empty"),
    "binary": (lambda b: os.urandom(64).replace(b"\0", b"\1") + b"\xff", "no UTF-8 text|no LightGBM"),
    "line_ends": (lambda b: b.replace(b"\n", b"\r\n"), "a carriage return byte at position 4"),
}
REPORT_DAMAGE = {  # name -> (change of the report, what the error says)
    "features_edited": (lambda r: r | {"features": r["features"][:5] + ["pagerank"] + r["features"][6:]}, "feature 5 is 'pagerank'"),
    "features_swapped": (lambda r: r | {"features": r["features"][1::-1] + r["features"][2:]}, "feature 0 is"),
    "not_calibrated": (lambda r: {k: v for k, v in r.items() if k != "calibration"}, "calibration"),
    "old_lightgbm": (lambda r: r | {"versions": r["versions"] | {"lightgbm": "3.3.5"}}, "LightGBM 3.3.5"),
}


def test_damaged_files_are_refused_and_nothing_dies(models, tmp_path):
    text, report = ((models / f"alert_scorer{s}").read_bytes() for s in (".txt", ".json"))
    wanted = {}
    for name, (change, says) in TEXT_DAMAGE.items():
        (tmp_path / f"{name}.txt").write_bytes(change(text))
        (tmp_path / f"{name}.json").write_bytes(report)
        wanted[name] = says
    for name, (change, says) in REPORT_DAMAGE.items():
        (tmp_path / f"{name}.txt").write_bytes(text)
        (tmp_path / f"{name}.json").write_text(json.dumps(change(json.loads(report))))
        wanted[name] = says
    (tmp_path / "no_report.txt").write_bytes(text)
    (tmp_path / "no_model.json").write_bytes(report)
    (tmp_path / "report_of_another.txt").write_bytes(text)
    (tmp_path / "report_of_another.json").write_bytes((models / "alert_ranker.json").read_bytes())
    other = json.loads((models / "alert_ranker.json").read_text()) | {"model_type": "alert_scorer"}
    (tmp_path / "posing.txt").write_bytes(text)
    (tmp_path / "posing.json").write_text(json.dumps(other))
    wanted |= {
        "no_report": "no_report.json: absent",
        "no_model": "no_model.txt: absent",
        "report_of_another": "expected alert_scorer",
        "posing": "one of them was changed",
    }
    done = run_warm("-c", LOAD, *(tmp_path / f"{name}.txt" for name in wanted), models / "alert_scorer.txt")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-500:]
    assert lines.pop() == "alert_scorer.txt: loaded"
    for (name, says), line in zip(wanted.items(), lines, strict=True):
        assert line.startswith(f"{name}.txt: ") and re.search(says, line), line
        assert "loaded" not in line


def parts(batch, rows, model):
    "Features of some alerts of a batch, asked for alone."
    alerts = batch.tables["alerts"].to_pandas()
    return model.builder.build_all_features(alerts.iloc[rows], *(batch.tables[name] for name in ("features", "clusters", "money_flows")))


@pytest.mark.parametrize("kind", [AlertScorerModel, AlertRankerModel])
def test_a_score_does_not_depend_on_the_rest_of_the_request(kind, models, batches):
    "Whole, shuffled, in ten parts and alert by alert, with the features of the whole batch held fixed: no difference at all."
    model, batch = kind.load_model(models / f"{kind.model_type}.txt", num_threads=1), batches[-1]
    whole = model.prepare_features(batch)
    expected = model.predict(whole).set_index(list(whole.index.names))
    own = [c for c in whole if c not in model.batch_features]
    assert 0 < len(model.batch_features) < 20
    n, rng = len(whole), np.random.default_rng(0)
    pieces = [rng.permutation(n)] + np.array_split(rng.permutation(n), 10) + [np.array([i]) for i in rng.permutation(n)[:8]]
    changed = 0
    for rows in pieces:
        X = parts(batch, rows, model)
        pd.testing.assert_frame_equal(X[own], whole.loc[X.index, own])
        changed += not X[model.batch_features].equals(whole.loc[X.index, model.batch_features])
        X[model.batch_features] = whole.loc[X.index, model.batch_features]
        scores = model.predict(X).set_index(list(X.index.names))
        for column in ("score", "raw_score"): assert float((scores[column] - expected.loc[scores.index, column]).abs().max()) == 0
    assert changed >= 10  # a part does change the features that are named as such


def test_rows_alone_and_threads_do_not_matter(models, batches):
    for kind in (AlertScorerModel, AlertRankerModel, ClusterScorerModel):
        one, two = (kind.load_model(models / f"{kind.model_type}.txt", num_threads=t) for t in (1, 2))
        X = one.prepare_features(batches[-1])
        expected = one.predict(X)
        pd.testing.assert_frame_equal(two.predict(X), expected, check_exact=True)
        pd.testing.assert_frame_equal(two.create_explanations(X[:20]), one.create_explanations(X[:20]), check_exact=True)
        alone = pd.concat([one.predict(X[i:i + 1]) for i in range(len(X))], ignore_index=True)
        pd.testing.assert_frame_equal(alone, expected, check_exact=True)


def test_saved_again_the_bytes_are_the_same(models, tmp_path):
    for kind in (AlertScorerModel, AlertRankerModel, ClusterScorerModel):
        kind.load_model(models / f"{kind.model_type}.txt").save_model(tmp_path / f"{kind.model_type}.txt")
        for suffix in (".txt", ".json"):
            assert (tmp_path / f"{kind.model_type}{suffix}").read_bytes() == (models / f"{kind.model_type}{suffix}").read_bytes()


def test_importing_the_package_loads_no_library(tmp_path):
    done = run_module("-c", "import sys, aml_miner.models; print([m for m in ('lightgbm', 'sklearn', 'duckdb') if m in sys.modules])", cwd=tmp_path)
    assert done.stdout.strip() == "[]", done.stderr


def test_lightgbm_reads_only_what_was_checked_or_just_trained():
    "A booster from a text is made where the text has been checked, and of a text that was never on a disk: in boosting, and from a training."
    doors = {}
    for path in (ROOT / "aml_miner").rglob("*.py"):
        n = len(re.findall(r"\bBooster\(model_str|model_file=|model_from_string", path.read_text()))
        if n: doors[path.relative_to(ROOT / "aml_miner").as_posix()] = n
    assert doors == {"models/model_loading.py": 1, "models/boosting.py": 3, "models/scoring_model.py": 1}


def test_no_pickle_anywhere():
    for path in (ROOT / "aml_miner").rglob("*.py"):
        assert not re.search(r"\b(pickle|joblib|dill|cloudpickle|eval\()", path.read_text()), path
