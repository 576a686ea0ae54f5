"""The way back as a user goes it: scored mornings, outcomes that come in by a file, the plan of a day, what is missed, a second model; and what is refused."""
from concurrent.futures import ThreadPoolExecutor
import csv
import json
import shutil

from aml_miner.batches.loader import read_batches
from aml_miner.batches.outcome_events import EVENT_COLUMNS, read_events
from aml_miner.cli.tree import main
from aml_miner.review.outcome_file import add_outcomes
from aml_miner.testing.small_models import small_models
from aml_miner.testing.tiny_batch import tiny_batch
from conftest import files, run_warm
import pandas as pd
import pytest

DAYS = [f"2025-09-{day:02}" for day in range(1, 11)]
SCORED = DAYS[3:]
LINE = ("--budget", "6", "--explore-share", "0.34")  # four are read for sure, and about two of the six others


def read_by(queue, illicit):
    "What somebody marks on the page of a queue, as it is downloaded."
    rows = queue[queue.read_because != ""]
    for row in rows.itertuples():
        day = f"{row.processing_date:%Y-%m-%d}"
        yield [day, row.alert_id, "reported" if illicit(day, row.alert_id) else "closed_false", f"{day}T16:30:00.000Z", "Ann", "", row.read_because,
               repr(row.inclusion_probability)]


def download(path, rows):
    with path.open("w", encoding="utf-8", newline="") as f: csv.writer(f).writerows([EVENT_COLUMNS, *rows])
    return path


def is_illicit(day, alert): return int(day[-2:]) * 7 % 5 == 0 or int(alert[1:]) % 3 == 0


@pytest.fixture(scope="module")
def week(tmp_path_factory):
    "Ten days, two folders of models, the queues of seven mornings, and the outcomes of six of them as files."
    folder = tmp_path_factory.mktemp("week")
    for i, day in enumerate(DAYS): tiny_batch(folder / "data" / day, day, seed=i)
    small_models(folder / "models", read_batches(folder / "data")[:3], trees=3)
    for i, day in enumerate(DAYS[:3]): tiny_batch(folder / "other" / day, day, seed=i, alerts=lambda t: t.assign(ground_truth=1 - t.ground_truth))
    small_models(folder / "tried", read_batches(folder / "other"), trees=12)
    for day in SCORED:
        words = ("--data-dir", folder / "data" / day, "--models", folder / "models", "--output", folder / "scores" / day, "--no-page", "--no-latency", *LINE)
        assert main(["score", *map(str, words)]) == 0
        queue = pd.read_parquet(folder / "scores" / day / "queue.parquet")
        if day != SCORED[-1]: download(folder / f"{day}.csv", read_by(queue, is_illicit))
    return folder


def given(capsys, *words):
    "Exit code, and what was printed."
    capsys.readouterr()
    code = main([str(word) for word in words])
    return code, capsys.readouterr().out


@pytest.fixture(scope="module")
def came_back(week, tmp_path_factory):
    "The directory with all outcomes in it; no test changes it."
    data = tmp_path_factory.mktemp("came_back") / "data"
    shutil.copytree(week / "data", data)
    assert main(["review", "outcomes", "--outcomes", str(data), "--add", *map(str, sorted(week.glob("2025*.csv")))]) == 0
    return data


def test_outcomes_are_those_that_were_downloaded(week, came_back, capsys):
    written = [row for path in sorted(week.glob("2025*.csv")) for row in list(csv.reader(path.open()))[1:]]
    events = read_events(came_back)
    assert sorted(zip(events.processing_date, events.alert_id, events.event)) == sorted((row[0], row[1], row[2]) for row in written)
    before = files(came_back)
    code, said = given(capsys, "review", "outcomes", "--outcomes", came_back, "--add", *sorted(week.glob("2025*.csv"))[:2], "--json")
    assert code == 0 and files(came_back) == before  # nothing twice
    report = json.loads(said)
    assert report["illicit"] == sum(row[2] == "reported" for row in written) and report["open"] == 0 and report["alerts"] == len(written)


def test_labels_are_those_of_the_file(came_back):
    "What came back is what training learns from."
    told = read_events(came_back).set_index(["processing_date", "alert_id"]).event
    for batch in read_batches(came_back)[3:9]:
        labels = batch.alerts.drop_duplicates("alert_id").set_index("alert_id").ground_truth
        for alert, event in told[batch.processing_date.isoformat()].items(): assert labels[alert] == (event == "reported")


def test_a_contradiction_is_refused_and_nothing_is_written(week, came_back, tmp_path, refused):
    first = sorted(week.glob("2025*.csv"))[0]
    rows = list(csv.reader(first.open()))[1:]
    other = [[*rows[0][:2], "escalated", *rows[0][3:]], *rows[1:]]
    before = files(came_back)
    said = refused(main, "review", "outcomes", "--outcomes", came_back, "--add", download(tmp_path / "other.csv", other))
    assert "other.csv: alert" in said and "column event: 'escalated'; it is" in said and "keep one of the two" in said
    said = refused(main, "review", "outcomes", "--outcomes", came_back, "--add", download(tmp_path / "more.csv", [[*rows[0][:1], "zz", *rows[0][2:]]]))
    assert "column alert_id: 'zz'; no alert of" in said
    said = refused(main, "review", "outcomes", "--outcomes", came_back, "--add", download(tmp_path / "bad.csv", [[*rows[0][:7], "1.5"]]))
    assert "bad.csv, line 2, column inclusion_probability: '1.5'; needed is a number above 0, at most 1, or nothing" in said
    assert files(came_back) == before


def test_those_who_add_at_once_lose_nothing(week, tmp_path):
    shutil.copytree(week / "data", tmp_path / "data")
    downloads = sorted(week.glob("2025*.csv"))
    with ThreadPoolExecutor(len(downloads)) as pool: added = list(pool.map(lambda path: add_outcomes(tmp_path / "data", [path])[1], downloads))
    assert added == [len(list(csv.reader(p.open()))) - 1 for p in downloads]
    assert len(read_events(tmp_path / "data")) == sum(added)
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == [*DAYS, "outcomes.csv"]


def test_a_fresh_process_adds_too(week, tmp_path):
    shutil.copytree(week / "data", tmp_path / "data")
    done = run_warm("-m", "aml_miner", "review", "outcomes", "--outcomes", tmp_path / "data", "--add", sorted(week.glob("2025*.csv"))[0])
    assert done.returncode == 0 and "events added" in done.stdout, done.stderr


def test_what_is_missed_by_hand(week, came_back, capsys):
    code, said = given(capsys, "review", "evaluate", "--scores", week / "scores", "--outcomes", came_back, "--json", "--bootstrap-samples", 30)
    report = json.loads(said)
    assert code == 0 and (report["budget"], report["days"]) == (3, 6)  # the seventh has no outcomes yet
    found = missed = 0.
    for day in SCORED[:-1]:
        for row in pd.read_parquet(week / "scores" / day / "queue.parquet").itertuples():
            if not row.read_because or not is_illicit(day, row.alert_id): continue
            if row.read_because == "queue": found += 1
            else: missed += 1 / row.inclusion_probability
    figures = report["figures"]["total"]
    assert figures["found_within"]["value"] == found and abs(figures["missed_below"]["value"] - missed) < 1e-9
    code, said = given(capsys, "review", "below", "--scores", week / "scores", "--outcomes", came_back, "--json", "--by-typology", "--bands", 2)
    table = json.loads(said)
    assert code == 0 and abs(table["table"][-1]["estimate"] - missed) < 1e-9 and table["found_above"] == found
    assert table["table"][-1]["alerts"] == sum(row["alerts"] for row in table["table"][:-1]) == 6 * 7
    assert table["table"][-1]["read"] == sum(row["read"] for row in table["table"][:-1])


def test_a_plan_of_each_morning(week, came_back, tmp_path, capsys):
    "What is to be read is planned or left, day after day, until it has an outcome."
    (tmp_path / "team.csv").write_text("reviewer,capacity\nAnn,45\nBo,40\n")
    before = []
    for i, day in enumerate(SCORED[:3]):
        words = ["review", "plan", "--scores", week / "scores" / day, "--reviewers", tmp_path / "team.csv", "--output", tmp_path / day]
        if before: words += ["--yesterday", tmp_path / SCORED[i - 1]]
        code, said = given(capsys, *words)
        assert code == 0 and "wrote plan.csv, plan.parquet, left.parquet, plan.json" in said
        plan, left = (pd.read_parquet(tmp_path / day / f"{name}.parquet") for name in ("plan", "left"))
        queue = pd.read_parquet(week / "scores" / day / "queue.parquet")
        asked = {(f"{row.processing_date:%Y-%m-%d}", row.alert_id) for row in queue[queue.read_because != ""].itertuples()} | {*before}
        have = [(f"{row.processing_date:%Y-%m-%d}", row.alert_id) for row in pd.concat([plan, left]).itertuples()]
        assert sorted(have) == sorted(asked)
        assert plan.groupby("reviewer").minutes.sum().max() <= 45
        before = [(f"{row.processing_date:%Y-%m-%d}", row.alert_id) for row in left.itertuples()]
    assert before  # two people cannot read all
    words[-1], words[words.index("--output") + 1] = tmp_path / SCORED[2], tmp_path / "next"
    words[words.index("--scores") + 1] = week / "scores" / SCORED[3]
    assert given(capsys, *words, "--outcomes", came_back)[0] == 0  # all of the days before have an outcome
    rows = pd.concat([pd.read_parquet(tmp_path / "next" / f"{name}.parquet") for name in ("plan", "left")])
    assert {f"{day:%Y-%m-%d}" for day in rows.processing_date} == {SCORED[3]}


def test_a_table_of_reviewers_that_cannot_be_used(week, tmp_path, refused):
    team, scores = tmp_path / "team.csv", week / "scores" / SCORED[0]
    for text, said in (("reviewer,capacity\nAnn,much\n", "team.csv, row 2, column capacity: 'much'; needed is a number from 0"),
                       ("reviewer,capacity,handles_severity\nAnn,5,severe\n", "handles_severity has 'severe'"),
                       ("name,capacity\n", "column reviewer is absent")):
        team.write_text(text)
        assert said in refused(main, "review", "plan", "--scores", scores, "--reviewers", team, "--output", tmp_path / "plan")
    assert "no queue.parquet" in refused(main, "review", "plan", "--scores", tmp_path, "--reviewers", team, "--output", tmp_path / "plan")
    assert not (tmp_path / "plan").exists()


def shadow(week, data, output, *more):
    models = ("--models", week / "models", "--shadow", week / "tried")
    return ["review", "shadow", "--data-dir", data, *models, "--output", output, "--first-day", SCORED[0], *LINE, *more]


@pytest.fixture(scope="module")
def shadowed(week, came_back, tmp_path_factory):
    "The folder of a shadow with all days; no test changes it."
    folder = tmp_path_factory.mktemp("shadowed") / "s"
    assert main([str(word) for word in shadow(week, came_back, folder)]) == 0
    return folder


def test_a_shadow_is_one_line_a_day_and_the_order_of_mornings_does_not_matter(week, came_back, shadowed, tmp_path, capsys):
    lines = pd.read_csv(shadowed / "lines.csv")
    assert json.loads((shadowed / "shadow.json").read_text())["days"] == 6
    assert lines.day.tolist() == SCORED and lines.difference.isna().tolist() == [False] * 6 + [True]
    assert (lines.shared + lines.only_shadow == 3).all() and lines.only_shadow.sum() > 0
    # as somebody would have run it: some mornings before the others, and outcomes later
    few = tmp_path / "few"
    few.mkdir()
    for day in DAYS[:6]: shutil.copytree(week / "data" / day, few / day)
    (few / "outcomes.csv").write_text(",".join(EVENT_COLUMNS) + "\n")
    code, said = given(capsys, *shadow(week, few, tmp_path / "t"))
    assert code == 0 and "no day with outcomes yet" in said and len(pd.read_csv(tmp_path / "t" / "lines.csv")) == 3
    code, said = given(capsys, *shadow(week, came_back, tmp_path / "t", "--json"))
    assert code == 0 and said == (shadowed / "shadow.json").read_text() and files(shadowed) == files(tmp_path / "t")
    # the draw that is made again is that of the queues that were worked from
    assert given(capsys, *shadow(week, came_back, tmp_path / "u", "--scores", week / "scores"))[0] == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "u" / "lines.csv"), lines)


def test_a_shadow_by_hand(came_back, shadowed):
    "The difference of a day, from the files alone."
    scores, lines = pd.read_parquet(shadowed / "scores.parquet"), pd.read_csv(shadowed / "lines.csv").set_index("day")
    told = read_events(came_back).set_index(["processing_date", "alert_id"]).event
    for day, rows in scores.groupby("processing_date"):
        if day == SCORED[-1]: continue
        within = {side: rows[rows[f"rank_{side}"] <= 3] for side in ("in_use", "shadow")}
        found = [sum(1 / r.inclusion_probability for r in first.itertuples() if told.get((day, r.alert_id)) == "reported") for first in within.values()]
        assert abs(lines.difference[day] - (found[1] - found[0])) < 1e-9


def test_another_shadow_needs_another_folder(week, came_back, shadowed, tmp_path, refused):
    before = files(shadowed)
    words = shadow(week, came_back, shadowed)
    words[words.index("--shadow") + 1] = week / "models"
    assert "what is kept is of another shadow, so name a new folder" in refused(main, *words)
    assert "its budget is 3, it would now be 8" in refused(main, *shadow(week, came_back, shadowed, "--budget", "13"))
    assert "no day to score" in refused(main, *shadow(week, came_back, tmp_path / "n", "--first-day", "2026-01-01"))
    assert "no outcomes; wanted is" in refused(main, *shadow(week, week / "data", tmp_path / "n"))
    assert files(shadowed) == before and not (tmp_path / "n").exists()


def test_nothing_is_wider_than_the_terminal(week, came_back, shadowed, tmp_path, capsys, monkeypatch):
    (tmp_path / "team.csv").write_text("reviewer,capacity\nAnn,45\nBo,40\n")
    told = ("--scores", week / "scores", "--outcomes", came_back)
    for width in (60, 80):
        monkeypatch.setenv("COLUMNS", str(width))
        for words in (("outcomes", "--outcomes", came_back), ("below", *told, "--by-typology"), ("below", "--alerts", 900), ("evaluate", *told),
                      ("plan", "--scores", week / "scores" / SCORED[0], "--reviewers", tmp_path / "team.csv", "--output", tmp_path / "plan"),
                      shadow(week, came_back, shadowed)[1:]):
            code, said = given(capsys, "review", *words)
            assert code == 0 and not [line for line in said.splitlines() if len(line) > width and not line.startswith("wrote")]


def test_an_alarm_has_its_exit_code(tmp_path, capsys):
    days = pd.date_range("2025-06-01", periods=90).strftime("%Y-%m-%d")
    rows = [[day, f"a{i}", "reported" if i < (1 if k < 70 else 5) else "closed_false", f"{day}T12:00:00Z", "Ann", "5", "queue", "1"]
            for k, day in enumerate(days) for i in range(6)]
    code, said = given(capsys, "review", "outcomes", "--outcomes", download(tmp_path / "many.csv", rows))
    assert code == 3 and "alarm   share illicit, read because of queue" in said
    code, said = given(capsys, "review", "outcomes", "--outcomes", download(tmp_path / "few.csv", rows[:300]))
    assert code == 0 and "alarm" not in said
