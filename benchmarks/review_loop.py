"""The review loop simulated: what each way of choosing what is read finds, before and after a new kind of laundering comes, over several worlds.

    python benchmarks/review_loop.py [--seeds 5] [--scenarios beside instead] [--keep runs/review_loop]

Each strategy lives through the same 120 days with the same alerts, reads 20 of about 400 a day, hears of outcomes a week later and retrains each week from
what it has read itself in the last 60 days. The first 28 days are read alike by all: half by severity, half drawn. From day 60 on front companies launder:
accounts of a kind whose alerts were nearly all licit until then. Features that know outcomes are off for all. Scenarios: `beside`, they come beside the other
schemes; `instead`, in the place of four in five of them. What a strategy costs while nothing comes is what it costs before day 60.
Figures are illicit alerts found a day: the mean over worlds and Student's 95 % interval, in brackets; differences are paired by world. `reads` counts what
is read: where the share of the budget that is drawn is no whole number of alerts, a little less than the budget is read on average. A world that has been
counted is kept and not run again."""
import argparse
from pathlib import Path
import textwrap
import time

from loguru import logger
import pandas as pd

from aml_miner.exploration.loop_findings import draws_sentence, live_through, loop_phases, loop_sentence, loop_table, shown_table
from aml_miner.exploration.review_loop import STRATEGIES, LoopSettings, Strategy, loop_config
from aml_miner.utils.files import write_text

DAYS, CHANGE_DAY, ALERTS, SETTINGS = 120, 60, 400, LoopSettings(budget=20)
WORLD = {"days": DAYS, "alerts_per_day": ALERTS, "flows_per_day": 8 * ALERTS, "illicit_share": .04, "labels_as_of": "2026-03-01", "takeover_share": .8}
SCENARIOS = {
    "beside": {"takeover_day": CHANGE_DAY, "takeover_beside": True},
    "instead": {"takeover_day": CHANGE_DAY},
}
WEIGHTS = (Strategy("greedy, a drawn alert counts up to 10", max_weight=10),
           Strategy("explores 10%, a drawn alert counts up to 10", explore_share=.1, max_weight=10),
           Strategy("explores 10%, no cap on weights", explore_share=.1, max_weight=1e6))  # of the others a drawn alert counts as any other, the default


def counted(scenario, seed, keep):
    "Counts of all strategies in one world; from the folder where it has them."
    path = keep/f"{scenario}_{seed}.csv"
    if path.exists(): return pd.read_csv(path)
    start, strategies = time.process_time(), (*STRATEGIES, *(WEIGHTS if scenario == "beside" else ()))
    counts = live_through(seed, WORLD | SCENARIOS[scenario], strategies, SETTINGS, loop_config())
    keep.mkdir(parents=True, exist_ok=True)
    write_text(path, counts.to_csv(index=False))
    logger.info("{} {}: {:.0f} CPU seconds", scenario, seed, time.process_time() - start)
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="worlds of each scenario")
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS), choices=list(SCENARIOS))
    parser.add_argument("--keep", type=Path, default=Path("runs/review_loop"), help="folder for the counts of each world")
    args = parser.parse_args()
    logger.disable("aml_miner")
    phases = loop_phases(SETTINGS.warm_up_days, CHANGE_DAY, DAYS)
    for scenario in args.scenarios:
        counts = pd.concat([counted(scenario, seed, args.keep) for seed in range(1, args.seeds + 1)])
        table, new = loop_table(counts, phases), loop_table(counts, phases, column="found_new")
        draw = loop_table(counts, phases, column="drawn_new")
        after = counts[counts.day >= SETTINGS.warm_up_days].groupby("strategy", sort=False)[["read", "drawn"]].sum()
        days = args.seeds * (DAYS - SETTINGS.warm_up_days)
        print(f"\n== {scenario}: found a day, {args.seeds} worlds ==")
        print(shown_table(table).assign(reads=(after.read / days).round(1), drawn=(after.drawn / days).round(1)).to_string())
        print("\nmore than greedy, paired by world")
        print(shown_table(table, differences=True).drop(index="greedy").to_string())
        print("\nof these, found of front companies")
        print(shown_table(new).drop(columns="before").to_string())
        print("\nand of these, read because they were drawn")
        print(shown_table(draw[draw.strategy.str.startswith("explores")]).drop(columns="before").to_string())
        print()
        for s in STRATEGIES:
            if s.explore_share:
                said = (loop_sentence(table, s.name, SETTINGS.budget, args.seeds), draws_sentence(counts, CHANGE_DAY, s.name))
                print(*(textwrap.fill(text, 150) for text in said), "", sep="\n", flush=True)


if __name__ == "__main__": main()
