"""What a team that calls 100 cards a day finds in card payments, by the protocol of the Fraud Detection Handbook: its features and rivals, then this project's.

    python benchmarks/handbook.py [--weeks test|earlier] [--only NAME ...] [--keep FOLDER]

Needs the published simulated transactions below AML_MINER_DATA; without them it says so. Learn from 7 days, wait 7 days for outcomes, test on the 7 after
without the cards that are known as compromised by then; four such folds, a week apart. A day's figure is the share of compromised cards among the 100 cards
with the highest scores, each by its riskiest payment; a compromised card that was found is gone on the days after it. `earlier` are the four folds before:
choices were made there. Own features: each day is a batch, each payment an alert of its card and one of its terminal, the payments of 30 days are the flows;
they are made at the end of the day, so they know what else a card did on that day. The book's features stop at the payment. Outcomes are known after 7 days
in both."""
import argparse
from collections.abc import Iterable
from datetime import date, timedelta
from functools import partial
import os
from pathlib import Path
import tempfile
import time

import lightgbm as lgb
from loguru import logger
import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier

from aml_miner.batches.history import earlier_days, past_of
from aml_miner.batches.loader import Batch, read_batch
from aml_miner.batches.schema import CLUSTERS, FEATURES, connect, duckdb_path, quote_text
from aml_miner.config.model_config import ModelConfig, load_config
from aml_miner.evaluation.intervals import DayBootstrap, with_interval
from aml_miner.evaluation.metrics import ThresholdCounts, average_precision, roc_auc
from aml_miner.evaluation.splits import grouped_folds
from aml_miner.features.feature_builder import FeatureBuilder
from aml_miner.models.boosting import boosting_params, make_dataset
from aml_miner.models.classification import train_classifier
from aml_miner.utils.files import atomic_path
from aml_miner.utils.progress import peak_memory_mb

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AML_MINER_DATA", ROOT.parent/"shared"/"data"))
FILE = "fraud_handbook/transactions.parquet"
FIRST_DAY = date(2018, 4, 1)  # day 0
FOLD_STARTS = {"test": date(2018, 7, 25), "earlier": date(2018, 6, 20)}  # first training day of the first of four folds
FOLDS, WEEK, DELAY, CARDS, LONGER = 4, 7, 7, 100, 28  # folds; days that train and that test; days until an outcome; cards a day; days of the longer training
SECONDS = 86_400  # of a day
WINDOW, HISTORY = 30, 45  # days of flows behind a batch, days of earlier alerts
KINDS = ("card", "terminal")  # whose alert a payment is
GROUPS = ["alert", "flow", "window", "walk", "history"]  # earlier weeks: profiles and graph added less than the spread of the folds
BOOK_WINDOWS = (1, 7, 30)  # days
PUBLISHED = {"XGBoost, book's features": (".869 to .872", ".687 ± .01", ".302"), "balanced bagging, book's features": (".879", ".680", ".305")}


def read(path: Path) -> pd.DataFrame:  # tx, day (0 is FIRST_DAY), second, card, terminal, usd, fraud; by tx
    "The payments."
    with connect() as con:
        return con.execute(f"""SELECT TRANSACTION_ID AS tx, TX_TIME_DAYS AS day, TX_TIME_SECONDS AS second, CUSTOMER_ID AS card, TERMINAL_ID AS terminal,
            TX_AMOUNT AS usd, TX_FRAUD AS fraud FROM read_parquet({quote_text(duckdb_path(path))}) ORDER BY tx""").df()


def book_features(payments: pd.DataFrame) -> pd.DataFrame:  # index tx; 15 columns
    "The book's features: a card's payments up to this one, and its terminal's outcomes, which are known after 7 days."
    columns = ["usd", f"(dayofweek(DATE '{FIRST_DAY}' + day::INT) IN (0, 6))::INT AS is_weekend", f"(second % {SECONDS} < 7 * 3600)::INT AS is_night"]
    windows = []
    for days in BOOK_WINDOWS:
        columns += [f"count(*) OVER card_{days} AS card_count_{days}d", f"avg(usd) OVER card_{days} AS card_mean_{days}d",
                    f"count(*) OVER terminal_{days} AS terminal_count_{days}d", f"coalesce(avg(fraud) OVER terminal_{days}, 0) AS terminal_risk_{days}d"]
        windows += [f"card_{days} AS (PARTITION BY card ORDER BY second RANGE BETWEEN {days * SECONDS - 1} PRECEDING AND CURRENT ROW)",
                    f"""terminal_{days} AS (PARTITION BY terminal ORDER BY second
                        RANGE BETWEEN {(days + DELAY) * SECONDS - 1} PRECEDING AND {DELAY * SECONDS} PRECEDING)"""]
    with connect() as con:
        con.register("payments", payments)
        return con.execute(f"SELECT tx, {', '.join(columns)} FROM payments WINDOW {', '.join(windows)} ORDER BY tx").df().set_index("tx")


def write_batch(con, day: int, folder: Path, with_flows: bool) -> None:  # con: with the table `payments`
    "The batch of a day: every payment is an alert of its card and one of its terminal. Without flows it serves as history."
    when, path = FIRST_DAY + timedelta(days=day), lambda name: quote_text(duckdb_path(folder/f"{name}.parquet", "write"))
    folder.mkdir(parents=True, exist_ok=True)
    con.execute(f"""COPY (SELECT {WINDOW} AS window_days, DATE '{when}' AS processing_date, printf('%08d', tx) AS alert_id, kind AS typology_type,
        kind || '_' || CASE kind WHEN 'card' THEN card ELSE terminal END AS address, 'medium' AS severity, 0.5 AS alert_confidence_score, usd AS volume_usd,
        fraud AS ground_truth FROM payments, (SELECT unnest(['{"', '".join(KINDS)}']) AS kind) WHERE day = {day}) TO {path('alerts')}""")
    if with_flows:
        con.execute(f"""COPY (SELECT 'card_' || card AS source_address, 'terminal_' || terminal AS dest_address, usd AS amount_usd,
            epoch_ms(DATE '{FIRST_DAY}') + 1000 * second::BIGINT AS timestamp FROM payments
            WHERE day BETWEEN {day - WINDOW} AND {day}) TO {path('money_flows')}""")
    for table in (FEATURES, CLUSTERS): pd.DataFrame(columns=table.names()).to_parquet(folder/table.file)


def by_payment(X: pd.DataFrame) -> pd.DataFrame:  # index tx
    "The features of a payment's two alerts side by side."
    numbers, kind = X.select_dtypes("number"), X.index.get_level_values("typology_type")
    tx = X.index.get_level_values("alert_id").astype(int).rename("tx")
    return pd.concat([numbers[kind == k].set_axis(tx[kind == k]).add_prefix(f"{k}_") for k in KINDS], axis=1).sort_index()


def make_own_features(payments: pd.DataFrame, days: Iterable[int], folder: Path, config: ModelConfig) -> None:
    "Write the batches and, of those days that have none yet, the features."
    settings, wanted = config.feature_engineering, [day for day in sorted(days) if not (folder/f"features_{day}.parquet").is_file()]
    if not wanted: return
    batches: list[Batch] = []
    with connect() as con:
        con.register("rows", payments)
        con.execute("CREATE TABLE payments AS FROM rows")
        for day in range(max(wanted[0] - HISTORY, 0), wanted[-1] + 1):
            batch = folder/"batches"/str(FIRST_DAY + timedelta(days=day))
            if not (batch/"clusters.parquet").is_file() or day in wanted and not (batch/"money_flows.parquet").is_file():
                write_batch(con, day, batch, day in wanted)
            batches.append(read_batch(batch))
    of_day = {(FIRST_DAY + timedelta(days=day)): day for day in wanted}
    builder = FeatureBuilder(settings).learn_from([next(b for b in batches if b.processing_date in of_day)])
    with earlier_days(batches) as earlier:
        for batch in (b for b in batches if b.processing_date in of_day):
            X = by_payment(builder.build(batch, past_of(batch, earlier, settings)))
            with atomic_path(folder/f"features_{of_day[batch.processing_date]}.parquet") as file: X.to_parquet(file)


def fold_days(start: int, train_days: int = WEEK) -> tuple[range, range]:
    "Days that train (more than a week: further back) and that test, of the fold whose week of training begins on a day."
    return range(start + WEEK - train_days, start + WEEK), range(start + WEEK + DELAY, start + 2 * WEEK + DELAY)


def test_rows(payments: pd.DataFrame, start: int) -> np.ndarray:  # bool (n,)
    "Payments of the test days, without cards of which a fraud from the first training day on is known on that day."
    of_fold = payments.fraud.eq(1) & (payments.day >= start)
    first_fraud = payments.card.map(payments[of_fold].groupby("card").day.min())
    return (payments.day.isin(fold_days(start)[1]) & ~(first_fraud < payments.day - DELAY)).to_numpy()


def card_precision(day, card, fraud, scores, cards: int = CARDS) -> np.ndarray:  # (n_days,) in [0, 1]
    "Share of compromised cards among so many of each day; those that were found do not come again."
    rows = pd.DataFrame({"day": np.asarray(day), "card": np.asarray(card), "fraud": np.asarray(fraud), "score": np.asarray(scores)})
    found, shares = set(), []
    for _, of_day in rows.groupby("day"):
        top = of_day[~of_day.card.isin(found)].groupby("card")[["fraud", "score"]].max().sort_values("score", ascending=False, kind="stable").head(cards)
        found |= set(top.index[top.fraud == 1])
        shares.append(top.fraud.sum() / cards)
    return np.array(shares)


def plain(make, X, y, test, terminals, config) -> np.ndarray:  # scores of the test rows
    "A classifier as it comes."
    return make().fit(X, y).predict_proba(test)[:, 1]


def scorer(settings, X, y, test, terminals, config) -> np.ndarray:  # log-odds of the test rows
    "The project's alert scorer: its settings, trees by folds within the training days that keep a terminal on one side."
    config = load_config(config, {"alert_scorer": settings})
    section, training = config.alert_scorer, config.training
    dataset = make_dataset(X, boosting_params(section.boosting, training, X.shape))
    folds = grouped_folds(y, terminals, training.cv_folds, training.seed).pairs
    return train_classifier(dataset, X, y, folds, section, training).raw_scores(test)


def mean_of_ten(X, y, test, terminals, config) -> np.ndarray:  # log-odds of the test rows
    "Ten models in the settings of the book's XGBoost, each on rows and columns of its own."
    models = (lgb.LGBMClassifier(**AS_XGBOOST, **DRAWN, verbosity=-1, n_jobs=1, random_state=seed) for seed in range(10))
    return np.mean([model.fit(X, y).predict(test, raw_score=True) for model in models], axis=0)


def lightgbm(**settings): return partial(plain, partial(lgb.LGBMClassifier, verbosity=-1, n_jobs=1, random_state=0, **settings))


BOOK_SETTINGS = {"n_estimators": 50, "learning_rate": .3, "max_depth": 3}  # of XGBoost, as the book's validation found them
AS_XGBOOST = BOOK_SETTINGS | {"num_leaves": 8, "min_child_weight": 1, "min_child_samples": 1, "reg_lambda": 1, "boost_from_average": False, "max_bin": 4095,
                              "min_data_in_bin": 1}  # it began at one half, and tried every amount as a threshold
DRAWN = {"subsample": .7, "subsample_freq": 1, "colsample_bytree": .5}
FINE = {"eval_metric": "average_precision", "boosting": {"max_bin": 1023}}
CANDIDATES = {  # name: columns, training days, what trains
    "LightGBM in the settings of the book's XGBoost, book's features": ("book", WEEK, lightgbm(**AS_XGBOOST)),
    "LightGBM as it comes, book's features": ("book", WEEK, lightgbm()),
    "HistGradientBoosting as it comes, book's features": ("book", WEEK, partial(plain, partial(HistGradientBoostingClassifier, random_state=0))),
    "alert scorer, fine bins, book's features": ("book", WEEK, partial(scorer, FINE)),
    "LightGBM in the settings of the book's XGBoost, own features": ("own", WEEK, lightgbm(**AS_XGBOOST)),
    "mean of ten in these settings on drawn rows and columns, own features": ("own", WEEK, mean_of_ten),
    "LightGBM as it comes, own features": ("own", WEEK, lightgbm()),
    "alert scorer, own features": ("own", WEEK, partial(scorer, {})),
    "alert scorer, fine bins, own features": ("own", WEEK, partial(scorer, FINE)),
    "alert scorer, fine bins, own and book's features": ("both", WEEK, partial(scorer, FINE)),
    f"LightGBM in the settings of the book's XGBoost, own features, {LONGER} training days": ("own", LONGER, lightgbm(**AS_XGBOOST)),
}
try: from xgboost import XGBClassifier
except ImportError: XGBClassifier = None
else:
    XGBOOST = partial(XGBClassifier, **BOOK_SETTINGS, base_score=.5, tree_method="exact", n_jobs=1, random_state=0)  # what its defaults were then
    CANDIDATES |= {"XGBoost as in the book, book's features": ("book", WEEK, partial(plain, XGBOOST))}


def columns_of(kind: str, book: pd.DataFrame, rows: pd.DataFrame, folder: Path) -> pd.DataFrame:  # (len(rows), ...)
    "The features of some payments."
    tables = [book.loc[rows.tx]] if kind != "own" else []
    if kind != "book": tables.append(pd.concat([pd.read_parquet(folder/f"features_{day}.parquet") for day in sorted(rows.day.unique())]).loc[rows.tx])
    return pd.concat(tables, axis=1)


def judge(scores: np.ndarray, rows: pd.DataFrame, config: ModelConfig) -> dict:
    "Figures of a fold, and the same on resampled days."
    y, draws = rows.fraud.to_numpy(dtype=int), DayBootstrap(rows.day, config.training.bootstrap_samples, config.training.seed)
    found = card_precision(rows.day, rows.card, y, scores)
    samples = draws.threshold_samples(y, scores, {"auc": ThresholdCounts.roc_auc, "ap": ThresholdCounts.average_precision})
    return {"auc": (roc_auc(y, scores), samples["auc"]), "ap": (average_precision(y, scores), samples["ap"]),
            "cards": (found.mean(), draws.multiplicities @ found / len(found))}


def show(name: str, folds: list[dict], first: list[dict], seconds: float) -> None:
    "A row: means of the folds with 95 % over resampled days, their spread, and the difference to the first row of this run."
    cells = []
    for metric in ("auc", "ap", "cards"):
        of, to = (([f[metric][0] for f in x], np.mean([f[metric][1] for f in x], axis=0)) for x in (folds, first))
        def text(value, samples): return with_interval(dict(zip(("value", "low", "high"), (value, *np.quantile(samples, [.025, .975])))))
        cells.append(f"{text(np.mean(of[0]), of[1])} ± {np.std(of[0]):.3f}")
        if metric != "auc": cells.append("" if folds is first else text(np.mean(of[0]) - np.mean(to[0]), of[1] - to[1]))
    print(f"| {name} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


def main() -> None:
    "Command line."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weeks", choices=list(FOLD_STARTS), default="test", help="folds to judge (default: those of the book's test)")
    parser.add_argument("--only", nargs="+", help="candidates whose name contains one of these")
    parser.add_argument("--keep", type=Path, help="folder for batches and features, which stay and are used again; default: a temporary one")
    args = parser.parse_args()
    if not (DATA/FILE).is_file(): return print(f"no {FILE} in {DATA}; set AML_MINER_DATA to the folder that holds it")
    logger.remove()
    config = load_config(overrides={"training": {"num_threads": 1},
                                    "feature_engineering": {"groups": GROUPS, "label_delay_days": DELAY, "history_days": HISTORY}})
    chosen = {name: c for name, c in CANDIDATES.items() if not args.only or any(word in name for word in args.only)}
    begin = time.process_time()
    payments = read(DATA/FILE)
    book = book_features(payments)
    print(f"{len(payments):,} payments, {payments.fraud.sum():,} fraudulent; the book's {book.shape[1]} features in {time.process_time() - begin:.0f} CPU s")
    starts = [(FOLD_STARTS[args.weeks] - FIRST_DAY).days + WEEK * i for i in range(FOLDS)]
    with tempfile.TemporaryDirectory() as temporary:
        folder, begin = args.keep or Path(temporary), time.process_time()
        folder.mkdir(parents=True, exist_ok=True)
        days = {d for kind, n, _ in chosen.values() if kind != "book" for start in starts for part in fold_days(start, n) for d in part}
        make_own_features(payments, days, folder, config)
        print(f"own features of {len(days)} days in {time.process_time() - begin:.0f} CPU s (0: kept from before)\n\n"
              f"| {args.weeks} weeks | AUC | AP | AP, difference | card precision@{CARDS} | difference | CPU s |\n|---|---|---|---|---|---|---|")
        if args.weeks == "test": print("\n".join(f"| published: {name} | {auc} | {ap} | | {found} | | |" for name, (auc, ap, found) in PUBLISHED.items()))
        first = None
        for name, (kind, n, train) in chosen.items():
            folds, begin = [], time.process_time()
            for start in starts:
                learn, test = payments[payments.day.isin(fold_days(start, n)[0])], payments[test_rows(payments, start)]
                X, later = (columns_of(kind, book, rows, folder) for rows in (learn, test))
                used = X.columns[X.nunique() > 1]
                scores = train(X[used], learn.fraud.to_numpy(dtype=int), later[used], learn.terminal.astype(str).to_numpy(), config)
                folds.append(judge(scores, test, config))
            first = first or folds
            show(name, folds, first, time.process_time() - begin)
    print(f"\nMeans of {FOLDS} folds, 95 % over resampled days, ± the spread of the folds; differences are to the first row that ran. "
          f"Peak {peak_memory_mb():,.0f} MB.\nFine bins: {FINE['boosting']['max_bin']:,} instead of {config.alert_scorer.boosting.max_bin}, "
          "and trees by average precision instead of AUC; with few bins the amount that only frauds exceed is no threshold.")


if __name__ == "__main__": main()
