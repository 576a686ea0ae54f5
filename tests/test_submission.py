"""A submission of the sample's newest day: untouched it passes, each planted fault is found by name, and scores that changed places are found out."""
from datetime import date
import json
import shutil

from conftest import ROOT
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aml_miner.batches.loader import read_batch
from aml_miner.cli.tree import main
from aml_miner.scoring.batch_scores import SCHEMAS, apply_models, content_sha256
from aml_miner.scoring.model_set import load_models
from aml_miner.scoring.score_batch import score_batch
from aml_miner.submission.behaviour import check_behaviour
from aml_miner.submission.ground_truth import check_ground_truth
from aml_miner.submission.integrity import check_integrity
from aml_miner.submission.rerun import check_rerun, known_then
from aml_miner.submission.scored_files import read_submission
from aml_miner.submission.validate import validate_submission
from aml_miner.submission.verdict import RULES, TIERS

MODELS = ROOT / "trained_models"
DAY, BEFORE = "2025-09-21", "2025-09-19"


@pytest.fixture(scope="module")
def days(sample): return sample


@pytest.fixture(scope="module")
def scored(days, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    for day in (BEFORE, DAY): score_batch(days / day, MODELS, folder / day, 20, num_threads=1, latency=False, page=False)
    return folder


@pytest.fixture(scope="module")
def batch(days): return read_batch(days / DAY)


@pytest.fixture(scope="module")
def again(days, batch):
    "The day scored once more, for all that is held against a re-run."
    models = load_models(MODELS, 1)
    with known_then(batch, days / DAY, models) as pasts: return apply_models(batch, models, 0, 0, pasts)


def checks_of(folder, batch, again, truth=False):
    "The checks that need no earlier day, and with `truth` those of the outcomes too; scoring again is done once for all."
    submission = read_submission(folder)
    found = [*check_integrity(submission, batch, again.models), *check_rerun(submission, again), *check_behaviour(submission, batch)]
    return {check.name: check for check in (*found, *(check_ground_truth([(submission, batch)])[0] if truth else ()))}


def planted(scored, folder, name, change, fit_hash=True):
    "A copy with one table changed, and scores.json made to fit as whoever cheats would."
    shutil.copytree(scored / DAY, folder)
    path = folder / f"{name}.parquet"
    table = change(pq.read_table(path).to_pandas())
    pq.write_table(pa.Table.from_pandas(table, SCHEMAS[name], preserve_index=False), path)
    if fit_hash: fit(folder, name)
    return folder


def fit(folder, name):
    summary = json.loads((folder / "scores.json").read_text())
    summary["content_sha256"][name] = content_sha256(pq.read_table(folder / f"{name}.parquet").to_pandas())
    (folder / "scores.json").write_text(json.dumps(summary))


def at(column, value, row=3): return lambda t: t.assign(**{column: t[column].where(t.index != row, value)})


def lies(t):
    "Reasons that say more than the score is made of."
    i = t.index[t.explain_json != "{}"][0]
    content = json.loads(t.explain_json[i])
    content["reasons"][0]["contribution"] += .5
    return at("explain_json", json.dumps(content), i)(t)


def lies_well(t):
    "Two contributions change places: the sum is right."
    i = t.index[t.explain_json != "{}"][0]
    content = json.loads(t.explain_json[i])
    one, two = content["reasons"][:2]
    one["contribution"], two["contribution"] = two["contribution"], one["contribution"]
    return at("explain_json", json.dumps(content), i)(t)


def gap(t): return t.assign(rank=np.where(t["rank"] > 5, t["rank"] + 1, t["rank"]))


def swapped(t):
    "Two ranks change places, and nothing else."
    ids = t.alert_id.to_numpy(copy=True)
    ids[[0, 9]] = ids[[9, 0]]
    scores = t.score.to_numpy(copy=True)
    scores[[0, 9]] = scores[[9, 0]]
    return t.assign(alert_id=ids, score=scores)


FAULTS = {  # what is planted: table, change, and what has to fail
    "a missing alert": ("alert_scores", lambda t: t.drop(index=3), {"alerts"}),
    "an alert twice": ("alert_scores", lambda t: pd.concat([t, t[3:4]], ignore_index=True), {"alerts"}),
    "an alert of another day": ("alert_scores", at("alert_id", "alert_2025-09-20_000001"), {"alerts"}),
    "a missing cluster": ("cluster_scores", lambda t: t.drop(index=3), {"clusters"}),
    "NaN": ("alert_scores", at("score", np.nan), {"scores", "rerun"}),
    "a score of 1.2": ("alert_scores", at("score", 1.2), {"scores", "rerun"}),
    "a negative cluster score": ("cluster_scores", at("score", -.1), {"scores", "rerun"}),
    "ranks with a gap": ("alert_rankings", gap, {"ranks", "rerun_order"}),
    "an order against the scores": ("alert_rankings", swapped, {"order", "rerun_order"}),
    "a wrong model_version": ("alert_rankings", lambda t: t.assign(model_version="alert_ranker-000000000000"), {"named_models"}),
    "two versions": ("alert_scores", at("model_version", "alert_scorer-000000000000"), {"model_version", "named_models"}),
    "a row of another date": ("alert_scores", at("processing_date", date(2025, 9, 20)), {"processing_date"}),
    "a negative latency": ("alert_scores", lambda t: at("latency_ms", -1.)(t.assign(latency_ms=2.)), {"latency"}),
    "an edited score": ("alert_scores", lambda t: t.assign(score=t.score + np.where(t.index == t.score.idxmin(), 1e-5, 0)), {"rerun"}),
    "an edited cluster score": ("cluster_scores", lambda t: t.assign(score=t.score + 1e-5), {"rerun"}),
    "reasons that lie": ("alert_scores", lies, {"explanations"}),
    "reasons that add up and lie": ("alert_scores", lies_well, {"rerun_reasons"}),
    "reasons that are no JSON": ("alert_scores", at("explain_json", "{'a': 1}"), {"explanations"}),
}


def test_the_untouched_submission_passes(days, scored, capsys, tmp_path):
    "With everything that can be asked: the models, an earlier day, labels, shuffled and split."
    command = ["validate", scored / DAY, "--batch", days / DAY, "--models", MODELS, "--earlier", scored / BEFORE, "--output", tmp_path / "v.json"]
    assert main([*map(str, command), "--num-threads", "1"]) == 0
    report, said = json.loads((tmp_path / "v.json").read_text()), capsys.readouterr().out
    assert {c["name"]: c["state"] for c in report["checks"] if c["state"] != "passed"} == {"latency": "not applicable"}
    assert [c["name"] for c in report["checks"]] == [*RULES] and report["valid"] and report["passed"] and .7 < report["total"] <= 1
    assert "valid: no check of 31 failed" in " ".join(said.split()) and all(f"\n{name:<18}" in said for name in RULES)
    assert report["ground_truth"]["days"] == 2 and {t["weight"] for t in report["tiers"].values()} == {*TIERS.values()}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_by_name(fault, scored, batch, again, tmp_path):
    name, change, wanted = FAULTS[fault]
    found = checks_of(planted(scored, tmp_path / "p", name, change), batch, again)
    of_integrity = {n for n, c in found.items() if c.passed is False and c.rule.tier == "integrity"}
    assert of_integrity == wanted, {n: found[n].reason for n in of_integrity ^ wanted}


def test_what_was_edited_later_is_not_what_scores_json_describes(scored, batch, again, tmp_path):
    name, change, wanted = FAULTS["an edited score"]
    found = checks_of(planted(scored, tmp_path / "p", name, change, fit_hash=False), batch, again)
    assert {n for n, c in found.items() if c.passed is False} == wanted | {"hashes"}
    assert "alert_scores is not what scores.json describes" in found["hashes"].reason


@pytest.mark.parametrize("damage, check, words", [
    (lambda p: p.write_bytes(b""), "files", "alert_scores.parquet: is empty"),
    (lambda p: p.write_bytes(p.read_bytes()[:-100]), "files", "alert_scores.parquet: cannot be read as parquet"),
    (lambda p: p.write_bytes(p.read_bytes()[:200] + bytes(400) + p.read_bytes()[600:]), "files", "alert_scores.parquet: cannot be read as parquet"),
    (lambda p: p.unlink(), "files", "alert_scores.parquet: is absent"),
    (lambda p: pq.write_table(pq.read_table(p).set_column(2, "score", pq.read_table(p)["score"].cast(pa.string())), p), "columns",
     "column score is string, allowed is double"),
    (lambda p: pq.write_table(pq.read_table(p).drop_columns("model_version"), p), "columns", "column model_version is absent"),
    (lambda p: pq.write_table(pq.read_table(p).append_column("note", pq.read_table(p)["alert_id"]), p), "columns", "column 'note' is none of its columns"),
])
def test_a_damaged_file_is_found_by_name(damage, check, words, scored, batch, again, tmp_path):
    shutil.copytree(scored / DAY, tmp_path / "p")
    damage(tmp_path / "p" / "alert_scores.parquet")
    found = checks_of(tmp_path / "p", batch, again)
    assert found[check].passed is False and words in found[check].reason
    assert {n for n, c in found.items() if c.passed is False and c.rule.tier == "integrity"} == {check}
    assert found["alerts"].passed and found["rerun"].passed  # of the tables that can be read


def test_scores_that_changed_places(days, scored, batch, again, tmp_path):
    "The same scores, each of another alert: a form that is right, and nothing in it."
    rng = np.random.default_rng(3)
    folder = planted(scored, tmp_path / "p", "alert_scores", lambda t: t.assign(score=rng.permutation(t.score), explain_json="{}"))
    ranks = lambda t: t.assign(alert_id=rng.permutation(t.alert_id))
    pq.write_table(pa.Table.from_pandas(ranks(pq.read_table(folder / "alert_rankings.parquet").to_pandas()), SCHEMAS["alert_rankings"], preserve_index=False),
                   folder / "alert_rankings.parquet")
    fit(folder, "alert_rankings")
    found = checks_of(folder, batch, again, truth=True)
    assert {n for n, c in found.items() if c.passed is False and c.rule.tier == "integrity"} == {"rerun", "rerun_order"}
    of_truth = {n for n, c in found.items() if c.passed is False and c.rule.tier == "ground truth"}
    assert of_truth >= {"auc", "average_precision", "ndcg", "recall", "precision", "brier"}
    assert .3 < found["auc"].value < .7 and all(found[n].passed for n in ("spread", "distinct", "ends", "ties"))
    assert main(["validate", str(folder), "--batch", str(days / DAY), "--no-rerun"]) == 3
    without = validate_submission(folder, days / DAY)
    assert without.valid and not without.passed  # who does not run it again finds out by the outcomes alone


def test_constant_scores(scored, batch, again, tmp_path):
    found = checks_of(planted(scored, tmp_path / "p", "alert_scores", lambda t: t.assign(score=.1)), batch, again, truth=True)
    failed = {n for n, c in found.items() if c.passed is False}
    assert {"spread", "distinct", "rerun", "auc", "average_precision"} <= failed and not {"scores", "alerts", "columns"} & failed
    found = checks_of(planted(scored, tmp_path / "q", "alert_rankings", lambda t: t.assign(score=.1)), batch, again)
    assert found["ties"].passed is False and found["order"].passed


def test_another_history_gives_other_scores_and_is_said(scored, batch):
    "Scored with three days before it, run again with none."
    submission, models = read_submission(scored / DAY), load_models(MODELS, 1)
    first = check_rerun(submission, apply_models(batch, models, 0, 0, {}))[0]
    assert first.passed is False and first.reason.endswith("knew something else of earlier batches when it was scored (--history, --history-from)")


def test_a_file_of_outcomes(scored, days, batch, tmp_path):
    "Outcomes that come later, beside or instead of what the batch tells."
    ids = sorted(batch.alerts.alert_id)
    events = [f"{DAY},{a},{'closed_false' if i % 5 else 'reported'},2025-09-22T08:00:00Z,k" for i, a in enumerate(ids)]
    (tmp_path / "outcomes.csv").write_text("\n".join(["processing_date,alert_id,event,time,reviewer", *events]) + "\n")
    verdict = validate_submission(scored / DAY, days / DAY, outcomes=tmp_path / "outcomes.csv")
    assert verdict.figures["rows"] == len(ids) and verdict.figures["positives"] == len(ids[::5])
    assert validate_submission(scored / DAY, days / DAY, outcomes=tmp_path).report() == verdict.report()


@pytest.mark.parametrize("words, said", [
    (["none", "--batch", "data/sample/2025-09-21"], "none: no such folder of scores"),
    (["SCORES", "--batch", "none"], "none: no such directory"),
    (["SCORES", "--batch", "data/sample/2025-09-21", "--models", "data"], "no model"),
    (["SCORES", "--batch", "data/sample/2025-09-21", "--earlier", "SCORES"], "which is not before 2025-09-21"),
    (["SCORES", "--batch", "data/sample/2025-09-21", "--outcomes", "none.csv"], "none.csv: no outcomes"),
    (["SCORES"], "--batch"),
])
def test_what_cannot_be_read_is_one_line(words, said, scored, refused):
    assert said in refused(main, "validate", *(str(scored / DAY) if w == "SCORES" else w for w in words))
