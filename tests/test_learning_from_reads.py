"""Models that learn from what was read: labels exist for some alerts alone, each with the chance that it had to be read."""
import json
import shutil

import pandas as pd
import pytest

from aml_miner.batches.outcome_events import EVENT_COLUMNS
from aml_miner.config.model_config import load_config
from aml_miner.models.model_card import model_card
from aml_miner.models.report_fields import report_fault
from aml_miner.testing.tiny_batch import tiny_batch
from aml_miner.training import prepare_ranking_data, prepare_training_data, train_alert_ranker, train_alert_scorer
from aml_miner.utils.files import to_json

DAYS = [f"2025-09-{day:02}" for day in range(1, 13)]
SETTINGS = {"training": {"num_threads": 1, "bootstrap_samples": 20, "early_stopping_rounds": 5, "learning_curve": [], "cv_folds": 2},
            "alert_scorer": {"boosting": {"n_estimators": 15, "min_child_samples": 2}},
            "alert_ranker": {"boosting": {"n_estimators": 15, "min_child_samples": 2}},
            "feature_engineering": {"min_category_rows": 1}, "review": {"minutes": 30, "cost_per_hour": 60, "worth_found": 500}}
CHANCE = .25


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    "Twelve days without a label of their own; the first half of each was read, and of the second a quarter drawn."
    folder, rows = tmp_path_factory.mktemp("reads"), []
    for i, day in enumerate(DAYS):
        tiny_batch(folder / day, day, seed=i, alerts=lambda t: t.assign(ground_truth=None).astype({"ground_truth": "Int8"}), address_labels=None)
        alerts = pd.read_parquet(folder / day / "alerts.parquet")
        for n, alert in enumerate(alerts.alert_id):
            drawn = n >= 6
            if drawn and (n + i) % 4: continue
            label = "reported" if (n + i) % 3 == 0 or alerts.severity[n] == "critical" else "closed_false"
            rows.append([day, alert, label, f"{day}T16:00:00Z", "ana", 20, "exploration" if drawn else "queue", CHANCE if drawn else 1.])
    pd.DataFrame(rows, columns=EVENT_COLUMNS).to_csv(folder / "outcomes.csv", index=False)
    return folder


def config(**training):
    return load_config(overrides={**SETTINGS, "training": SETTINGS["training"] | training})


@pytest.mark.parametrize("prepare, train", [(prepare_training_data, train_alert_scorer), (prepare_ranking_data, train_alert_ranker)])
def test_a_model_of_what_was_read(directory, prepare, train):
    "Nobody's silence is licit; a drawn alert counts in full where figures are made, and in learning as far as the settings say."
    data = prepare(directory, config())
    read = pd.read_csv(directory / "outcomes.csv")
    key = lambda day, alert: [*zip(pd.to_datetime(day).dt.strftime("%Y-%m-%d"), alert)]
    assert {*key(data.context.processing_date, data.context.alert_id)} == {*key(read.processing_date, read.alert_id)}
    assert sorted(set(data.weight)) == [1, 1 / CHANCE]
    test_days = {str(d)[:10] for d in data.context.processing_date.iloc[data.holdout.test]}
    unread = data.unread.context
    assert {str(d)[:10] for d in unread.processing_date} == test_days and unread.ground_truth.isna().all()
    assert len(unread) + len(data.holdout.test) == 12 * len(test_days)
    plain, same, weighed = (train(data, config=config(**own)) for own in ({}, {"max_weight": 1}, {"max_weight": 1 / CHANCE}))
    assert plain.booster.model_to_string() == same.booster.model_to_string() != weighed.booster.model_to_string()
    report = plain.report
    review = report["review"]
    assert (review["alerts"], review["unread"]) == (12 * len(test_days), len(unread))
    weights = data.weight[data.holdout.test]
    (scoring, figures), *_ = review["sampled"]["scorings"].items()
    assert figures["illicit"]["value"] == pytest.approx((weights * data.illicit[data.holdout.test]).sum())
    assert review["worth"]["cost"] == 30 and len(review["worth"]["corners"]) == 9
    assert report_fault(json.loads(to_json(report | {"model_sha256": "0" * 64}))) is None
    card = model_card(report)
    assert "finds an estimated" in card and "Horvitz and Thompson" in card


def test_thresholds_by_budget_count_those_that_nobody_read(directory):
    "Two alerts a day, of all that were raised; of the read alone it would be another threshold."
    data = prepare_training_data(directory, config(review_budgets=[2]))
    report = train_alert_scorer(data, config=config(review_budgets=[2])).report
    days = data.context.processing_date.iloc[data.holdout.train].nunique()
    assert 0 < report["threshold"]["out_of_fold"]["2"]["flagged"] <= 2 * days
    unknown = pd.read_csv(directory / "outcomes.csv").assign(inclusion_probability=None)
    unknown.to_csv(directory / "outcomes.csv", index=False)
    bare = train_alert_scorer(prepare_training_data(directory, config(review_budgets=[2])), config=config(review_budgets=[2])).report
    assert bare["threshold"]["out_of_fold"]["2"]["threshold"] <= report["threshold"]["out_of_fold"]["2"]["threshold"]
    assert bare["review"]["sampled"] == {"reason": "no outcome of the test dates says with what chance its alert was read"}


def test_what_was_read_for_another_reason_stands_for_itself(directory, tmp_path):
    "An alert that nobody drew may have a chance beside it all the same: that of the draw that passed it over."
    shutil.copytree(directory, tmp_path / "days")
    events = pd.read_csv(directory / "outcomes.csv")
    events["read_because"] = events.read_because.replace("exploration", "ad_hoc")
    events["inclusion_probability"] = [1. if because == "queue" else CHANCE for because in events.read_because]
    events.to_csv(tmp_path / "days" / "outcomes.csv", index=False)
    assert prepare_training_data(tmp_path / "days", config()).weight is None
