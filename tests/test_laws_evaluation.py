"""Laws of splits and metrics on drawn inputs: many ties, few rows, one class, one date, one address."""
import warnings

from hypothesis import assume, given, strategies as st
import ir_measures
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

from aml_miner.evaluation import metrics, splits

MONDAY = np.datetime64("2025-09-01")


# Splits

@st.composite
def labelled_rows(draw):
    "Dates, addresses and labels of few or many rows, in any order; from some date on nobody may be illicit."
    n, quiet_from = draw(st.sampled_from([4, 10, 20, 40])), draw(st.integers(3, 7))
    day, address, y = (np.array(draw(st.lists(st.integers(0, top), min_size=n, max_size=n))) for top in (6, 7, 1))
    return MONDAY + day, np.array([f"a{a}" for a in address]), y * (day < quiet_from)


def parts_of(make, *args):
    "Pairs of row positions and their method by one of the splits; none where it says that there is none."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fewer folds than were asked for
        try: split = make(*args)
        except ValueError as refusal:
            assert "no " in str(refusal)
            return [], "none"
    return [(split.train, split.test)] if isinstance(split, splits.Holdout) else [*split.pairs], split.method


def holdout(rows, fraction):
    dates, addresses, y = rows
    return parts_of(splits.time_holdout, dates, y, addresses, fraction, 3)


def forward(rows, n_folds):
    dates, addresses, y = rows
    return parts_of(splits.forward_folds, dates, y, n_folds, addresses, 3)


def grouped(rows, n_folds):
    _, addresses, y = rows
    return parts_of(splits.grouped_folds, y, addresses, n_folds, 3)


SPLITS = [(holdout, st.floats(.01, .99)), (forward, st.integers(1, 6)), (grouped, st.integers(2, 6))]
every_split = pytest.mark.parametrize("split, sizes", SPLITS, ids=[split.__name__ for split, _ in SPLITS])


@every_split
@given(data=st.data())
def test_no_row_is_on_both_sides_and_none_is_nowhere(split, sizes, data):
    dates, addresses, y = rows = data.draw(labelled_rows())
    pairs, method = split(rows, data.draw(sizes))
    for train, held in pairs:
        assert not set(train) & set(held) and len(train) and len(held)
        if method.startswith("dates"): assert dates[train].max() < dates[held].min()
        else: assert not set(addresses[train]) & set(addresses[held])
        if split is not forward or method == "addresses": assert sorted([*train, *held]) == [*range(len(y))]
    held = [row for _, held in pairs for row in held]
    assert len(held) == len({*held}), "two folds are judged on one row"
    if pairs and split is not holdout: assert sorted({*held, *pairs[0][0]} if method == "dates" else held) == [*range(len(y))]


@every_split
@given(data=st.data())
def test_both_classes_are_learnt_from_and_a_positive_is_held_out(split, sizes, data):
    "A licit row, too, but by folds forward in time, whose days may be illicit throughout."
    _, _, y = rows = data.draw(labelled_rows())
    for train, held in split(rows, data.draw(sizes))[0]: assert {*y[train]} == {0, 1} and (y[held].any() if split is forward else {*y[held]} == {0, 1})


@every_split
@given(data=st.data())
def test_a_split_goes_with_the_rows(split, sizes, data):
    "However they are ordered, and whatever the addresses are called as long as their order stays."
    dates, addresses, y = rows = data.draw(labelled_rows())
    order, size = np.array(data.draw(st.permutations(range(len(y))))), data.draw(sizes)
    pairs, method = split(rows, size)
    again, same_method = split((dates[order], np.char.add("x", addresses[order]), y[order]), size)
    assert same_method == method
    for (train, held), (train_again, held_again) in zip(pairs, again, strict=True):
        assert sorted(order[train_again]) == [*train] and sorted(order[held_again]) == [*held]


@pytest.mark.parametrize("split, sizes", SPLITS[:2], ids=["holdout", "forward"])
@given(data=st.data())
def test_who_is_illicit_within_a_day_moves_no_boundary(split, sizes, data):
    "A split by dates sees of the labels only how many each date has."
    dates, addresses, y = rows = data.draw(labelled_rows())
    size, other = data.draw(sizes), y.copy()
    for day in np.unique(dates):
        at = np.flatnonzero(dates == day)
        other[at] = y[data.draw(st.permutations([*at]))]
    (pairs, method), (again, same_method) = split(rows, size), split((dates, addresses, other), size)
    assume(method.startswith("dates"))
    assert same_method == method
    for (train, held), (train_again, held_again) in zip(pairs, again, strict=True): assert [*train] == [*train_again] and [*held] == [*held_again]


# Metrics

@st.composite
def scored_days(draw, ties=True):
    "Days in their order, relevance 0 to 4, one at least above 0, and whole-number scores, of few or many rows."
    n = draw(st.sampled_from([1, 2, 5, 10, 25]))
    day, relevance, scores = (np.array(draw(st.lists(st.integers(0, top), min_size=n, max_size=n))) for top in (3, 4, 6))
    relevance[draw(st.integers(0, n - 1))] += 1
    return np.sort(day), np.minimum(relevance, 4), scores if ties else np.array(draw(st.permutations(range(n))))


def figures(day, relevance, scores):
    "Every metric of these rows."
    groups, y = np.unique(day, return_counts=True)[1], (relevance > 0).astype(int)
    counts = metrics.threshold_counts(y, scores)
    return np.concatenate([
        metrics.ndcg_by_query(relevance, scores, groups, [1, 3, 30]).ravel(),
        metrics.found_at_budgets(y, scores, groups, [1, 4, .3, 1.]).ravel(),
        [counts.roc_auc(), counts.average_precision(), counts.recall_at_fpr(.2), counts.false_positives_removed(.8)],
    ])


@given(scored_days(), st.integers(1, 30))
def test_ndcg_is_that_of_scikit_learn(rows, k):
    _, relevance, scores = rows
    assume(len(scores) > 1)  # scikit-learn has none of a single row
    assert metrics.ndcg_at_k(relevance, scores, k) == pytest.approx(ndcg_score([2. ** relevance - 1], [scores], k=k), abs=1e-12)


@given(scored_days())
def test_areas_are_those_of_scikit_learn(rows):
    _, relevance, scores = rows
    y = (relevance > 0).astype(int)
    assert metrics.average_precision(y, scores) == pytest.approx(average_precision_score(y, scores), abs=1e-12)
    if not y.all(): assert metrics.roc_auc(y, scores) == pytest.approx(roc_auc_score(y, scores), abs=1e-12)


@given(scored_days(ties=False), st.integers(1, 30))
def test_without_ties_days_are_judged_as_queries_are(rows, k):
    "Against ir-measures, whose documents are the rows of a day."
    day, relevance, scores = rows
    y, names = (relevance > 0).astype(int), [f"row{i}" for i in range(len(day))]
    gains = [ir_measures.Qrel(str(d), name, int(2 ** r - 1)) for d, name, r in zip(day, names, relevance)]
    run = [ir_measures.ScoredDoc(str(d), name, float(s)) for d, name, s in zip(day, names, scores)]
    measures = [ir_measures.nDCG@k, ir_measures.P@k]
    theirs = {(value.query_id, value.measure): value.value for value in ir_measures.iter_calc(measures, gains, run)}
    for d in np.unique(day):
        at = day == d
        if y[at].any(): assert metrics.ndcg_at_k(relevance[at], scores[at], k) == pytest.approx(theirs[str(d), measures[0]], abs=1e-9)
        assert metrics.found_at_budgets(y[at], scores[at], [at.sum()], [k]).item() == pytest.approx(theirs[str(d), measures[1]] * k, abs=1e-9)


@given(scored_days(), st.one_of(st.integers(1, 30), st.floats(.01, 1)))
def test_recall_at_a_budget_is_each_illicit_rows_chance_to_be_read(rows, budget):
    day, relevance, scores = rows
    y, chances = (relevance > 0).astype(int), []
    for d, score in zip(day[y == 1], scores[y == 1]):
        of_day = scores[day == d]
        read = min(budget, len(of_day)) if isinstance(budget, int) else np.ceil(len(of_day) * budget - 1e-9)
        chances.append(np.clip((read - (of_day > score).sum()) / (of_day == score).sum(), 0, 1))
    groups = np.unique(day, return_counts=True)[1]
    assert metrics.recall_at_budget(y, scores, groups, budget) == pytest.approx(np.mean(chances), abs=1e-12)


@given(scored_days(), st.lists(st.floats(-1e9, 1e9), min_size=7, max_size=7, unique=True))
def test_only_the_order_of_scores_counts(rows, levels):
    "Any strictly rising map of the seven scores leaves every figure as it is, to the last bit."
    day, relevance, scores = rows
    np.testing.assert_array_equal(figures(day, relevance, np.sort(levels)[scores]), figures(day, relevance, scores))


@given(st.data())
def test_the_order_of_a_days_rows_does_not_count(data):
    day, relevance, scores = data.draw(scored_days())
    order = np.array(data.draw(st.permutations(range(len(day)))))
    order = order[np.argsort(day[order], kind="stable")]
    np.testing.assert_array_equal(figures(day, relevance[order], scores[order]), figures(day, relevance, scores))
