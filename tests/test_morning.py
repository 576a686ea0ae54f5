"""Two mornings as a scheduler starts them: fetched, with outcomes that came back, a second model that scores along, and two runs at once."""
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
import hashlib
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
import json
import shutil
from threading import Thread

from conftest import ROOT, run_papermill
import pandas as pd
import pytest
import yaml

from aml_miner.cli.tree import main
from aml_miner.morning.run import run_morning
from aml_miner.morning.settings import read_morning_settings

FIRST, SECOND = "2025-09-20", "2025-09-21"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_): pass


@pytest.fixture(scope="module")
def place(sample, tmp_path_factory):
    "A directory with all days but the last, which a server has; a folder of models, one of a second model, and the settings."
    root = tmp_path_factory.mktemp("mornings")
    shutil.copytree(sample, root / "batches", ignore=lambda folder, names: [name for name in names if name == SECOND])
    shutil.copytree(sample / SECOND, root / "server" / SECOND)
    hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (root / "server" / SECOND).glob("*.parquet")}
    meta = root / "server" / SECOND / "META.json"
    told = json.loads(meta.read_text()) if meta.exists() else {}
    meta.write_text(json.dumps(told | {"sha256": hashes}))
    shutil.copytree(ROOT / "trained_models", root / "models")
    (root / "second").mkdir()
    for ending in ("txt", "json"): shutil.copy(ROOT / "trained_models" / f"alert_scorer.{ending}", root / "second")
    (root / "inbox").mkdir()
    (root / "team.csv").write_text("reviewer,capacity\nana,100\nbo,60\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root / "server")))
    Thread(target=server.serve_forever, daemon=True).start()
    places = {"batches": "batches", "models": "models", "output": "mornings", "inbox": "inbox", "source": f"http://127.0.0.1:{server.server_port}/{{day}}"}
    own = places | {"budget": 20, "explain_top": 2, "drift": {"days": 2}, "plan": {"reviewers": "team.csv"},
                    "shadow": {"models": "second", "first_day": "2025-09-19"}}
    (root / "morning.yaml").write_text(yaml.safe_dump(own))
    yield root
    server.shutdown()


@pytest.fixture(scope="module")
def first(place):
    "The first morning, on which a file stands in the way of the features of training; then outcomes of what was read."
    (place / "mornings").mkdir()
    (place / "mornings" / "reference").touch()
    code = main(["morning", str(place / "morning.yaml"), "--day", FIRST])
    queue = pd.read_parquet(place / "mornings" / FIRST / "scores" / "queue.parquet")
    read = queue[queue.read_because != ""]
    events = read[["alert_id", "read_because", "inclusion_probability"]].assign(
        processing_date=FIRST, event=["reported", "closed_false"] * (len(read) // 2), time=f"{FIRST}T15:00:00Z", reviewer="ana")
    events.to_csv(place / "inbox" / "of_ana.csv", index=False)
    return code


@pytest.fixture(scope="module")
def second(place, first):
    "The next morning, started twice at once, with nothing in the way."
    (place / "mornings" / "reference").unlink()
    settings = read_morning_settings(place / "morning.yaml")
    with ThreadPoolExecutor(2) as pool: return [*pool.map(lambda day: run_morning(settings, day), [date.fromisoformat(SECOND)] * 2)]


def summary(place, day): return json.loads((place / "mornings" / day / "summary.json").read_text())


def test_a_first_morning_has_no_outcomes_yet(first, place):
    assert first in (0, 3)
    steps = {step["name"]: step for step in summary(place, FIRST)["steps"]}
    assert {name: step["state"] for name, step in steps.items()} == {
        "outcomes": "left out", "check": "done", "score": "done", "shadow": "left out", "plan": "done", "submission": "done"}
    assert steps["score"]["figures"]["to_read"] == 20 and steps["submission"]["figures"]["valid"]


def test_scores_do_not_wait_for_the_features_of_training(first, second, place):
    alarms = [a for step in summary(place, FIRST)["steps"] if step["name"] == "score" for a in step["alarms"]]
    assert first == 3 and [a for a in alarms if "not compared with those of training" in a and "reference" in a], alarms
    assert not [a for a in second[0]["score"].alarms if "not compared" in a] and second[0]["score"].figures["drift"]["features"]["rows"]["training"] > 0


def test_a_first_plan_carries_nothing(first, place):
    steps = {step["name"]: step for step in summary(place, FIRST)["steps"]}
    assert "left" in steps["plan"]["said"] and "carried" not in steps["plan"]["said"]


def test_a_day_that_is_not_there_is_fetched_and_each_step_is_done_by_one_of_two_runs(second, place):
    assert (place / "batches" / SECOND / "alerts.parquet").read_bytes() == (place / "server" / SECOND / "alerts.parquet").read_bytes()
    states = {name: sorted(morning[name].state for morning in second) for name in ("outcomes", "check", "score", "shadow", "plan", "submission")}
    assert states == {name: ["done", "kept"] for name in states}
    told = [[(step.name, step.said, step.alarms, step.figures) for step in morning.steps] for morning in second]
    assert told[0] == told[1]


def test_outcomes_come_in_and_the_second_model_is_judged_by_them(second, place):
    kept = pd.read_csv(place / "batches" / "outcomes.csv")
    assert set(kept.alert_id) == set(pd.read_csv(place / "inbox" / "of_ana.csv").alert_id)
    assert second[0]["outcomes"].figures["added"] == len(kept)
    lines = pd.read_csv(place / "mornings" / "shadow" / "lines.csv")
    assert lines.day.tolist() == ["2025-09-19", FIRST, SECOND] and second[0]["shadow"].figures["budget"] == 19
    assert lines.set_index("day").loc[FIRST].read_of_shadow >= 0


def test_what_was_planned_and_not_read_is_carried_over(second, place):
    "All that was planned the day before was read; what did not fit into the day is carried over."
    left = pd.read_parquet(place / "mornings" / FIRST / "plan" / "left.parquet")
    read = set(pd.read_csv(place / "inbox" / "of_ana.csv").alert_id)
    open_ones = [alert for alert in left.alert_id if alert not in read]
    today = pd.read_parquet(place / "mornings" / SECOND / "plan" / "plan.parquet")
    later = pd.read_parquet(place / "mornings" / SECOND / "plan" / "left.parquet")
    assert set(open_ones) <= {*today.alert_id, *later.alert_id} and not read & {*today.alert_id, *later.alert_id}


def test_a_scheduler_hears_what_to_do(second, place, capsys):
    settings = str(place / "morning.yaml")
    assert main(["morning", settings, "--day", "2025-09-22"]) == 75
    assert main(["morning", settings, "--day", "yesterday"]) == 2
    capsys.readouterr()
    assert main(["morning", settings, "--day", SECOND, "--json"]) == second[0].exit_code
    assert json.loads(capsys.readouterr().out) == summary(place, SECOND)
    page = (place / "mornings" / SECOND / "summary.html").read_text()
    for name in ("scores/queue.html", "plan/plan.csv", "submission/META.json"):
        assert f'href="{name}"' in page and (place / "mornings" / SECOND / name).is_file()


def test_another_batch_of_the_day_is_another_morning(second, place):
    "A batch that was corrected is scored again; what does not rest on it stays."
    path = place / "batches" / SECOND
    alerts = pd.read_parquet(path / "alerts.parquet")
    alerts.iloc[:-1].to_parquet(path / "alerts.parquet")
    (path / "META.json").unlink()
    morning = run_morning(read_morning_settings(place / "morning.yaml"), date.fromisoformat(SECOND))
    assert {step.name: step.state for step in morning.steps} == {
        "outcomes": "kept", "check": "done", "score": "done", "shadow": "done", "plan": "done", "submission": "done"}
    assert len(pd.read_parquet(morning.folder / "submission" / "alert_scores.parquet")) == len(alerts) - 1


def test_papermill_ends_before_the_run_where_the_folder_of_the_record_is_not_there(tmp_path):
    done = run_papermill(ROOT / "nbs" / "10_morning.ipynb", tmp_path / "records" / "today.ipynb", "-p", "settings", tmp_path / "none.yaml", cwd=tmp_path)
    assert done.returncode and "records doesn't exist" in done.stderr and "none.yaml" not in done.stderr
