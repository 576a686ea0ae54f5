"""Laws of the day plan on drawn teams and queues: nobody is overfull, nothing is split or forgotten, and nothing better was possible."""
from itertools import product
import warnings

from hypothesis import given, settings, strategies as st
import numpy as np
import pandas as pd

from aml_miner.review.day_plan import PLAN_COLUMNS, day_alerts, plan_day, reading_groups

DAY = pd.Timestamp("2025-09-08")
TYPOLOGIES, GRADES = ["cycle", "fan_in"], ["low", "high"]
PACE = {"cycle": 25.5, "fan_in": 10}


@st.composite
def mornings(draw, most=12, reviewers=3):
    "A queue, what was carried over, and a team: few addresses and cases, so that groups are chains; ties in value."
    n, team = draw(st.integers(1, most)), draw(st.integers(1, reviewers))
    column = lambda values, size: draw(st.lists(st.sampled_from(values), min_size=size, max_size=size))
    age = column([0, 0, 0, 2, 5, 9], n)
    rows = pd.DataFrame({
        "processing_date": [DAY - pd.Timedelta(days=a) for a in age],
        "alert_id": [f"a{i:02}" for i in range(n)],
        "address": column([f"x{i}" for i in range(2 + n)], n),
        "case": column([None, None, "c1", "c2", "c3"], n),
        "rank": range(1, n + 1),
        "typology_type": column(TYPOLOGIES, n),
        "severity": column(GRADES, n),
        "expected_gain": column([0., .25, .5, .7, 2.], n),
        "read_because": column(["queue", "queue", "exploration"], n),
    })
    old = np.array(age) > 0
    people = pd.DataFrame({
        "reviewer": [f"r{i}" for i in range(team)],
        "capacity": column([0, 20, 30, 45, 61, 100], team),
        "typologies": column([None, None, ["cycle"], "fan_in; cycle"], team),
        "handles_severity": column([None, None, "low"], team),
    })
    return rows[~old], rows[old].assign(first_day=rows.processing_date[old]), people


def planned(queue, carried, team, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of typologies that no alert of the day has
        return plan_day(queue, team, carried, **{"day": DAY, "minutes": PACE} | more)


def groups_of(plan):
    "All alerts, those left with no reviewer, and the group of each."
    rows = pd.concat([plan.plan, plan.left]).sort_values(["processing_date", "alert_id"], ignore_index=True)
    return rows.assign(group=reading_groups(rows.address, rows.case))


@given(mornings())
def test_each_alert_is_in_the_plan_or_left_and_no_reviewer_is_overfull(morning):
    queue, carried, team = morning
    done = planned(*morning)
    assert sorted([*done.plan.alert_id, *done.left.alert_id]) == sorted([*queue.alert_id, *carried.alert_id])
    used = done.plan.groupby("reviewer").minutes.sum()
    assert (used <= team.set_index("reviewer").capacity.loc[used.index] + 1e-9).all()
    assert done.left.reason.notna().all() and list(done.plan) == PLAN_COLUMNS
    for _, own in done.plan.groupby("reviewer"): assert own.position.tolist() == [*range(1, len(own) + 1)]


@given(mornings())
def test_an_address_and_a_case_have_one_reviewer(morning):
    done = planned(*morning)
    for _, group in groups_of(done).groupby("group"): assert group.reviewer.isna().all() or group.reviewer.nunique(dropna=False) == 1
    for name in ("address", "case"): assert (done.plan.dropna(subset=name).groupby(name).reviewer.nunique() == 1).all()
    assert not {*done.plan.address} & {*done.left.address}


@given(mornings())
def test_nobody_reads_what_the_lists_leave_out(morning):
    done = planned(*morning)
    for _, r in morning[2].iterrows():
        own = done.plan[done.plan.reviewer == r.reviewer]
        if isinstance(r.typologies, (list, str)): assert {*own.typology_type} <= ({"cycle"} if isinstance(r.typologies, list) else {*TYPOLOGIES})
        if isinstance(r.handles_severity, str): assert {*own.severity} <= {"low"}


@given(st.data())
def test_the_order_of_rows_and_of_reviewers_does_not_count(data):
    queue, carried, team = data.draw(mornings())
    mixed = [t.iloc[data.draw(st.permutations(range(len(t))))] for t in (queue, carried, team)]
    ours, theirs = planned(queue, carried, team), planned(*mixed)
    for name in ("plan", "left", "reviewers"): pd.testing.assert_frame_equal(getattr(ours, name), getattr(theirs, name))
    assert (ours.method, ours.notes, ours.value) == (theirs.method, theirs.notes, theirs.value)


def worth(rows, read):
    "Days overdue and one of what is due, one of what was drawn; value, in millionths of the highest."
    overdue = rows.age - 5
    urgency = np.where(overdue >= 0, overdue + 1, rows.read_because == "exploration")
    steps = np.rint(rows.value / (rows.value.max() or 1) * 1e6)
    return urgency[read].sum(), steps[read].sum()


@settings(deadline=None)
@given(mornings(most=7, reviewers=2))
def test_no_plan_of_all_is_better(morning):
    "Against every way to give each group to somebody or to nobody."
    done, team = planned(*morning), morning[2]
    rows = groups_of(done)
    n_groups, best = rows.group.max() + 1, (-1, -1)
    allowed = lambda r, own: (not isinstance(r.typologies, list) or (own.typology_type == "cycle").all()) and \
        (not isinstance(r.handles_severity, str) or (own.severity == "low").all())
    people = [*team.itertuples()]
    may = {(g, i): allowed(r, rows[rows.group == g]) for g in range(n_groups) for i, r in enumerate(people)}
    size = rows.groupby("group").minutes.sum()
    for way in product(range(-1, len(people)), repeat=n_groups):
        if any(i >= 0 and not may[g, i] for g, i in enumerate(way)): continue
        if any(sum(size[g] for g in range(n_groups) if way[g] == i) > r.capacity + 1e-9 for i, r in enumerate(people)): continue
        best = max(best, worth(rows, np.array(way)[rows.group] >= 0))
    own = worth(rows, rows.reviewer.notna().to_numpy())
    assert done.method == "optimum"
    assert own[0] == best[0] and abs(own[1] - best[1]) <= n_groups ** 2, "but for the tie-break, a millionth of the highest value for each place"
    assert done.most == done.value


@given(mornings())
def test_more_minutes_never_read_less_of_what_is_due(morning):
    queue, carried, team = morning
    ours, more = (groups_of(planned(queue, carried, t)) for t in (team, team.assign(capacity=2 * team.capacity)))
    assert worth(ours, ours.reviewer.notna().to_numpy()) <= worth(more, more.reviewer.notna().to_numpy())


@settings(max_examples=20)
@given(st.data())
def test_over_days_nothing_is_forgotten(data):
    "What one plan leaves is what the next is given, until all is read once."
    queue, carried, team = data.draw(mornings())
    team = team.assign(capacity=1000, typologies=None, handles_severity=None)
    read, left = [], carried
    for i in range(3):
        today = queue[:0] if i else queue
        done = planned(today, left, team.assign(capacity=[45, 200, 1000][i]), day=DAY + pd.Timedelta(days=i))
        read, left = [*read, *done.plan.alert_id], done.left
        assert (done.plan.age >= i * (done.plan.processing_date == DAY)).all()
    assert not len(left) and sorted(read) == sorted([*queue.alert_id, *carried.alert_id])


def test_minutes_in_seconds_never_fill_a_day_beyond_its_end():
    "Thirds of an hour do not add up in binary; three of them are an hour."
    rows = pd.DataFrame({"processing_date": DAY, "alert_id": list("abcd"), "address": list("abcd"), "score": 1.})
    done = plan_day(rows, pd.DataFrame({"reviewer": ["r"], "capacity": [1.]}), minutes=1 / 3)
    assert len(done.plan) == 3 and len(day_alerts(rows, minutes=1 / 3)) == 4
