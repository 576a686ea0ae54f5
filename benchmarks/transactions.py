"""What the features of single transactions are worth on AMLworld: raw columns beside raw columns with them, LightGBM's settings beside this project's.

    python benchmarks/transactions.py [--seeds 5]

Needs the published cut below AML_MINER_DATA; without it it says so. Days 1 to 7 train, 8 to 10 test. Of the training days the last two choose the number of
trees (this project's settings) and the threshold (all); every model is then refitted on all seven. LightGBM's default settings draw nothing at random: their
seeds agree. The cut keeps whole laundering attempts and few of the normal transactions, so laundering accounts have more of their past left than others; the
second table says how much more. Figures do not compare with those on the full data. The figures in the list of baselines were made from columns that are not
written down: the rows of raw columns here come close to them, and only rows of one run are to be compared."""
import argparse
import os
from pathlib import Path
import resource
import tempfile

import lightgbm as lgb
from loguru import logger
import numpy as np
import pandas as pd

from aml_miner.config.model_config import load_config
from aml_miner.evaluation.metrics import average_precision, recall_at_fpr, roc_auc
from aml_miner.models.boosting import boosting_params, cross_validate, make_dataset, mean_raw_scores, train_final
from aml_miner.models.classification import watch_metric
from aml_miner.models.probability import sigmoid
from aml_miner.transactions.amlworld import read_amlworld
from aml_miner.transactions.table import read_transactions
from transaction_features import transaction_features, transaction_graph, transaction_values

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AML_MINER_DATA", ROOT.parent/"shared"/"data"))
CUT = "amlworld/amlworld_hi_small_cut15k.parquet"
VALIDATION, TEST = (6, 7), (8, 9, 10)  # days of the month; those before the first are learned from
PUBLISHED = "in the list of baselines: LightGBM default, raw columns"


def read(path):
    "Transactions of the ten days, in the order of their rows in the source."
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)/"transactions.parquet"
        read_amlworld(path, target)
        table = read_transactions(target).df().sort_values("tx_id", ignore_index=True)
    return table[table.timestamp.dt.day <= max(TEST)].reset_index(drop=True)


def as_known(values, learned):
    "Texts as categories: those of the training rows, none for the others."
    known = sorted(values[learned].unique())
    return pd.Categorical(values.where(values.isin(known)), known)


def raw_columns(table, learned, bank_kind):
    "Amounts, currencies, format, hour, banks: what a transaction says of itself. Categories are those of the training rows."
    to_itself = (table.source_account == table.target_account).astype(int)
    X = pd.DataFrame({"amount_received": table.amount_received, "amount_paid": table.amount, "hour": table.timestamp.dt.hour, "to_itself": to_itself})
    banks = {end: table[f"{end}_account"].str.split(":").str[0] for end in ("source", "target")}
    for name, values in {"currency_received": table.currency_received, "currency_paid": table.currency, "payment_format": table.payment_format}.items():
        X[name] = as_known(values, learned)
    for end, values in banks.items(): X[f"{end}_bank"] = as_known(values, learned) if bank_kind == "category" else values.astype(int)
    return X


def own_columns(table, config):
    "The features of this project; NaN for transfers of an account to itself."
    graph, rows = transaction_graph(table)
    return transaction_values(graph, config.feature_engineering).set_index(rows).reindex(range(len(table)))


def best_threshold(y, scores):
    "The threshold with the highest F1, between two scores."
    order = np.argsort(-scores, kind="stable")
    s, hits = scores[order], np.cumsum(y[order])
    ends = np.flatnonzero(np.append(s[1:] < s[:-1], True))
    best = ends[np.argmax(2 * hits[ends] / (ends + 1 + y.sum()))]
    return (s[best] + s[min(best + 1, len(s) - 1)]) / 2


def f1(y, flagged): return 2 * (y & flagged).sum() / (y.sum() + flagged.sum())


def default_model(X, y, days, seed, _):
    "LightGBM as it comes: (validation scores, test scores), refitted for the test."
    fit, valid, test = days < VALIDATION[0], np.isin(days, VALIDATION), np.isin(days, TEST)
    def scores(learn, score): return lgb.LGBMClassifier(verbosity=-1, n_jobs=1, random_state=seed).fit(X[learn], y[learn]).predict_proba(X[score])[:, 1]
    return scores(fit, valid), scores(fit | valid, test), 100


def project_model(X, y, days, seed, config):
    "The settings and the training of the alert scorer, with one fold: the last days of training."
    config = load_config(overrides={"training": {"seed": seed, "num_threads": 1}})
    train, test = X[days <= VALIDATION[-1]].reset_index(drop=True), X[np.isin(days, TEST)]
    labels, is_valid = y[days <= VALIDATION[-1]].astype(int), np.isin(days[days <= VALIDATION[-1]], VALIDATION)
    section, fold = config.alert_scorer, [(np.flatnonzero(~is_valid), np.flatnonzero(is_valid))]
    params = boosting_params(section.boosting, config.training, train.shape, objective="binary")
    dataset, cap = make_dataset(train, params), section.boosting.n_estimators
    watch, patience = watch_metric(labels, section.eval_metric), config.training.early_stopping_rounds
    watched = cross_validate(dataset, labels.astype(float), fold, params, cap, patience, watch, "days")[0]
    rounds = watched["best_iteration"]
    booster, _ = train_final(dataset, labels.astype(float), params, rounds)
    return sigmoid(mean_raw_scores(watched["boosters"], train.iloc[fold[0][1]], rounds)), booster.predict(test), rounds


def judge(name, X, y, days, train, seeds, config):
    "Figures of one arm for each seed, and what it flags of the test days."
    test, valid = np.isin(days, TEST), np.isin(days, VALIDATION)
    figures, flags = [], []
    for seed in range(seeds):
        seen, scores, trees = train(X, y, days, seed, config)
        threshold = best_threshold(y[valid], seen)
        flags.append(scores > threshold)
        truth = y[test].astype(int)
        figures.append((roc_auc(truth, scores), average_precision(truth, scores), f1(y[test], flags[-1]), recall_at_fpr(truth, scores, .05), trees, X.shape[1]))
    mean, spread = np.mean(figures, axis=0), np.std(figures, axis=0, ddof=1) if seeds > 1 else np.zeros(6)
    print(f"{name:<64}" + "".join(f"{m:>8.3f} ±{s:.3f}" for m, s in zip(mean[:4], spread)) + f"{mean[4]:>7.0f}{mean[5]:>9.0f}", flush=True)
    return np.array(flags)


def print_typologies(table, test, flags):
    "Share of the laundering transactions that each arm flags, by typology of their attempt."
    kinds = table.typology.where(table.typology.notna(), "no pattern")[test & (table.is_laundering == 1)]
    rows = np.flatnonzero(table.is_laundering[test] == 1)
    print(f"\nrecall by typology, test days{'':<12}{'rows':>6}" + "".join(f"{name:>22}" for name in flags))
    for kind, of_kind in kinds.reset_index(drop=True).groupby(kinds.reset_index(drop=True)):
        print(f"  {kind:<38}{len(of_kind):>6}" + "".join(f"{f[:, rows[of_kind.index]].mean():>22.3f}" for f in flags.values()))
    licit = np.flatnonzero(table.is_laundering[test] == 0)
    print(f"  {'(licit transactions flagged)':<38}{len(licit):>6}" + "".join(f"{f[:, licit].mean():>22.3f}" for f in flags.values()))


def print_pasts(table, test, own):
    "What the cut has left of the past: how many test transactions have an end that was seen before."
    print("\nwhat the cut has left of the past, test days; share of the transactions between two accounts")
    earlier_flows = {
        "the source sent before": own.transaction_source_out_count,
        "the source received before": own.transaction_source_in_count,
        "the receiver received before": own.transaction_dest_in_count}
    for name, count in earlier_flows.items():
        known = test & count.notna()
        shares = [(count[known & (table.is_laundering == label)] > 0).mean() for label in (1, 0)]
        print(f"  {name:<32} laundering {shares[0]:.1%}, licit {shares[1]:.1%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    if not (DATA/CUT).is_file(): return print(f"no {CUT} in {DATA}; set AML_MINER_DATA to the folder that holds it")
    logger.remove()
    config, table = load_config(), read(DATA/CUT)
    days, y = table.timestamp.dt.day.to_numpy(), (table.is_laundering == 1).to_numpy()
    test = np.isin(days, TEST)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    own = own_columns(table, config)
    cpu = resource.getrusage(resource.RUSAGE_SELF).ru_utime - start
    print(f"{len(table):,} transactions, {y.sum():,} laundering; test days: {test.sum():,}, {y[test].sum():,} laundering; "
          f"{len(transaction_features())} features in {cpu:.1f} CPU s")
    raw, as_category = (raw_columns(table, days <= VALIDATION[-1], kind) for kind in ("number", "category"))
    both = pd.concat([raw, own], axis=1)
    title = f"AMLworld cut, days 8 to 10; mean and spread of {args.seeds} seeds"
    print(f"\n{title:<64}{'AUC':>8}{'AP':>15}{'F1':>15}{'recall at 5% FPR':>23}{'trees':>6}{'columns':>9}")
    print(f"{PUBLISHED:<64}{'.970':>8}{'.948':>15}{'.860':>15}")
    judge("LightGBM default, raw columns, banks as categories", as_category, y, days, default_model, args.seeds, config)
    flags = {"default, raw": judge("LightGBM default, raw columns, banks as numbers", raw, y, days, default_model, args.seeds, config)}
    flags["settings, raw"] = judge("alert_scorer settings, raw columns", raw, y, days, project_model, args.seeds, config)
    flags["default, raw + own"] = judge("LightGBM default, raw columns + transaction features", both, y, days, default_model, args.seeds, config)
    flags["settings, raw + own"] = judge("alert_scorer settings, raw columns + transaction features", both, y, days, project_model, args.seeds, config)
    judge("alert_scorer settings, transaction features alone", own, y, days, project_model, args.seeds, config)
    print_typologies(table, test, flags)
    print_pasts(table, test, own)


if __name__ == "__main__": main()
