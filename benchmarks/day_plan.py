"""What a day plan costs and brings: seconds, and the value read beside that of a greedy plan and beside what is possible at most.

    python benchmarks/day_plan.py [--repeats 5]

Queues are drawn: a third of the alerts are in cases of two to five, the gain falls off steeply, one in twenty was drawn for exploration, some are carried
over. Minutes are 20 for each alert, or those of its typology (12, 17, 25 and 35), or drawn between 8 and 45 alert by alert. Half of the teams have lists of
typologies. Greedy: what is due, then by value, each to the reviewer with the most time left; it may come to more than all that is possible where it reads less
of what is due. `optimum` counts the days on which nothing better was proven to be possible."""
import argparse
import time
import warnings

import numpy as np
import pandas as pd

from aml_miner.review import day_plan

TYPOLOGIES = ["fan_in", "fan_out", "cycle", "layering"]
PACES = {"20 each": dict.fromkeys(TYPOLOGIES, 20.), "by typology": dict(zip(TYPOLOGIES, (12., 17., 25., 35.))), "each its own": None}
SIZES = [(50, 2), (150, 4), (150, 4), (400, 10), (1000, 20), (5000, 40)]


def drawn_day(rng, n, pace):
    "A queue, and the minutes of its typologies; where each alert takes its own, each minute from 8 to 45 is a typology."
    in_case = np.repeat(np.arange(n), 1 + rng.integers(1, 5, n) * (rng.random(n) < .15))[:n]
    typologies = TYPOLOGIES if pace else [f"{m} minutes" for m in range(8, 46)]
    queue = pd.DataFrame({
        "processing_date": "2025-09-08",
        "alert_id": [f"a{i:05}" for i in range(n)],
        "address": [f"x{i:05}" for i in rng.permutation(n)],
        "case": [f"c{c:05}" for c in in_case],
        "typology_type": rng.choice(typologies, n),
        "severity": rng.choice(["low", "medium", "high", "critical"], n),
        "expected_gain": rng.random(n) * rng.random(n) * rng.random(n),
        "read_because": np.where(rng.random(n) < .05, "exploration", "queue"),
    })
    old = rng.random(n) < .1
    carried = queue[old].assign(processing_date="2025-09-01", first_day=np.where(rng.random(old.sum()) < .5, "2025-09-01", "2025-09-05"))
    return queue[~old], carried, pace or {t: float(t.split()[0]) for t in typologies}


def drawn_team(rng, reviewers, lists, typologies):
    "Capacities from half a day to a whole one; with lists, every second reads three quarters of the typologies."
    n_read = max(1, 3 * len(typologies) // 4)
    own = [None if not lists or i % 2 else sorted(rng.choice(sorted(typologies), n_read, replace=False)) for i in range(reviewers)]
    return pd.DataFrame({"reviewer": [f"r{i:02}" for i in range(reviewers)], "capacity": rng.choice([240., 360., 420.], reviewers), "typologies": own})


def greedy_value(queue, team, carried, minutes):
    "The same day, and the solver is given nothing."
    largest, day_plan.LARGEST = day_plan.LARGEST, 0
    try: return day_plan.plan_day(queue, team, carried, minutes=minutes)
    finally: day_plan.LARGEST = largest


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="days drawn for each row")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of a typology that no alert of a drawn day has
    head = f"{'alerts':>6} {'reviewers':>9} {'lists':>5} {'minutes':>13} | {'seconds':>7} {'slowest':>7} | {'optimum':>7} | {'of the most':>11} {'greedy':>7}"
    print(f"{head} | {'read':>5}")
    for place, (n, reviewers) in enumerate(SIZES):
        lists = place % 2 == 1
        for kind, pace in PACES.items():
            seconds, best, ours, theirs, read = [], 0, [], [], []
            for repeat in range(args.repeats):
                rng = np.random.default_rng([place, repeat, len(kind)])
                queue, carried, minutes = drawn_day(rng, n, pace)
                team = drawn_team(rng, reviewers, lists, minutes)
                start = time.perf_counter()
                plan = day_plan.plan_day(queue, team, carried, minutes=minutes)
                seconds.append(time.perf_counter() - start)
                greedy = greedy_value(queue, team, carried, minutes)
                best += plan.method == "optimum"
                ours.append(plan.value / plan.most)
                theirs.append(greedy.value / plan.most)
                read.append(len(plan.plan))
            row = f"{n:>6} {reviewers:>9} {'yes' if lists else 'no':>5} {kind:>13} | {np.mean(seconds):>7.2f} {max(seconds):>7.2f}"
            print(f"{row} | {best:>2} of {args.repeats} | {np.mean(ours):>11.2%} {np.mean(theirs):>7.2%} | {np.mean(read):>5.0f}", flush=True)


if __name__ == "__main__": main()
