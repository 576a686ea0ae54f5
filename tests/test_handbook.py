"""The card benchmark on invented payments: its features by hand, whom a test day still holds, and how a day's calls are counted."""
import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aml_miner.config.model_config import load_config

PATH = Path(__file__).resolve().parent.parent / "benchmarks" / "handbook.py"
HOUR, DAY = 3600, 86_400


def load_script():
    "The script as a module; it is no part of the package."
    spec = importlib.util.spec_from_file_location("handbook_script", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()


def payments(*rows):
    "Payments from (second, card, terminal, usd, fraud), in order."
    second, card, terminal, usd, fraud = zip(*rows)
    return pd.DataFrame({"tx": np.arange(len(rows)), "day": np.array(second) // DAY, "second": second, "card": card, "terminal": terminal,
                         "usd": np.array(usd, float), "fraud": np.array(fraud, np.int8)})


def random_payments(n=400, days=50, seed=3):
    rng = np.random.default_rng(seed)
    second = np.sort(rng.choice(days * DAY, n, replace=False))
    columns = zip(second.tolist(), *rng.integers(0, 6, (2, n)).tolist(), rng.integers(1, 300, n).tolist(), (rng.random(n) < .1).astype(int).tolist())
    return payments(*columns)


def test_the_books_features_by_hand():
    X = script.book_features(payments(
        (6 * HOUR, 1, 7, 10, 0),                    # Sunday, in the hour of six, which is night to the book
        (7 * HOUR, 1, 7, 30, 1),                    # the fraud
        (DAY + 6 * HOUR, 1, 8, 50, 0),              # Monday; just a day after the first, which is out of the window
        (7 * DAY + 7 * HOUR - 1, 2, 7, 5, 0),       # a second too early for the fraud's outcome
        (7 * DAY + 7 * HOUR, 2, 7, 5, 0)))
    assert X.columns.tolist()[:3] == ["usd", "is_weekend", "is_night"] and X.shape == (5, 15)
    assert X.is_weekend.tolist() == [1, 1, 0, 1, 1] and X.is_night.tolist() == [1, 0, 1, 1, 0]
    assert X.card_count_1d.tolist() == [1, 2, 2, 1, 2] and X.card_mean_1d.tolist() == [10, 20, 40, 5, 5]
    assert X.card_count_7d.tolist() == [1, 2, 3, 1, 2] and X.card_mean_30d.tolist() == [10, 20, 30, 5, 5]
    assert X.terminal_count_1d.tolist() == [0, 0, 0, 1, 2] and X.terminal_risk_1d.tolist() == [0, 0, 0, 0, .5]
    assert X.terminal_risk_30d.tolist() == [0, 0, 0, 0, .5]


def test_the_books_features_by_plain_loops():
    table = random_payments()
    X = script.book_features(table)
    for i, row in enumerate(table.itertuples()):
        for days in (1, 7, 30):
            mine = table[(table.card == row.card) & (table.second > row.second - days * DAY) & (table.second <= row.second)]
            known = table[(table.terminal == row.terminal) & (table.second > row.second - (days + 7) * DAY) & (table.second <= row.second - 7 * DAY)]
            risk = known.fraud.mean() if len(known) else 0
            ours = [X[f"{name}_{days}d"].iloc[i] for name in ("card_count", "card_mean", "terminal_count", "terminal_risk")]
            assert ours == pytest.approx([len(mine), mine.usd.mean(), len(known), risk])


def test_known_cards_are_left_out_of_the_test_days():
    noon = DAY // 2
    table = payments(
        (9 * DAY, 1, 0, 1, 1), (10 * DAY, 2, 0, 1, 1), (17 * DAY + noon, 3, 0, 1, 1), (18 * DAY, 4, 0, 1, 1),  # frauds; training begins on day 10
        *((day * DAY + noon, card, 0, 1, 0) for day in (23, 24, 25, 31) for card in (1, 2, 3, 4)))
    train, test = script.fold_days(10)
    assert (train, test) == (range(10, 17), range(24, 31)) and script.fold_days(10, 28)[0] == range(-11, 17)
    kept = table[script.test_rows(table, 10)]
    assert kept.groupby("day").card.apply(list).to_dict() == {24: [1, 3, 4], 25: [1, 4]}  # 3: a fraud is known eight days later; 1: from before the training
    later = payments(*((r.second, r.card, 0, 1, r.fraud or r.day > 17) for r in table.itertuples()))
    assert (script.test_rows(later, 10)[4:] == script.test_rows(table, 10)[4:]).all()  # outcomes that are not known yet change nothing


def test_a_day_has_so_many_calls():
    day, card = [0, 0, 0, 0, 1, 1, 1], [1, 1, 2, 3, 1, 2, 3]
    fraud, scores = [0, 1, 0, 1, 1, 1, 0], [.9, .1, .8, .2, .9, .5, .4]
    assert script.card_precision(day, card, fraud, scores, 2).tolist() == [.5, .5]  # card 1 counts by its riskiest payment, is found, and is gone
    assert script.card_precision(day, card, fraud, scores, 1).tolist() == [1, 1]
    assert script.card_precision(day, card, fraud, scores, 100).tolist() == pytest.approx([.02, .01])


def test_own_features_know_no_outcome_before_its_delay(tmp_path):
    table, config = random_payments(), load_config(overrides={"feature_engineering": {
        "groups": script.GROUPS, "label_delay_days": script.DELAY, "history_days": script.HISTORY}, "training": {"num_threads": 1}})
    before = own(table, 48, tmp_path/"before", config)
    hidden = table.assign(fraud=table.fraud.where(table.day <= 41, 1 - table.fraud))[table.day <= 48]
    assert before.equals(own(hidden, 48, tmp_path/"hidden", config))
    changed = own(table.assign(fraud=table.fraud.where(table.day != 41, 1 - table.fraud)), 48, tmp_path/"changed", config)
    assert not before.equals(changed)  # day 41 is seven days back
    assert before.index.tolist() == table.tx[table.day == 48].tolist()
    row = table[table.tx == before.index[0]].iloc[0]
    mine = table[(table.card == row.card) & (table.day >= 18) & (table.day <= 48)]
    assert before.card_flow_out_count.iloc[0] == len(mine) and before.card_flow_out_sum_usd.iloc[0] == mine.usd.sum()
    known = table[(table.terminal == row.terminal) & (table.day >= 3) & (table.day <= 41)]
    assert before.terminal_history_illicit.iloc[0] == known.fraud.sum() and before.terminal_history_licit.iloc[0] == (known.fraud == 0).sum()


def own(table, day, folder, config):
    "The features of a day's payments."
    folder.mkdir()
    script.make_own_features(table, [day], folder, config)
    return pd.read_parquet(folder/f"features_{day}.parquet")
