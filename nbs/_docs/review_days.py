"""Days of the sample that somebody has scored and read, for the how-to pages of the review loop."""
from contextlib import redirect_stdout
import csv
from io import StringIO
import os
from pathlib import Path
import shlex
import shutil

from aml_miner.batches.outcome_events import EVENT_COLUMNS
from aml_miner.cli.tree import main
import pandas as pd

SAMPLE = Path("data/sample")


class ReviewDays:
    "A folder of one page: `data` with the batches, `scores` of the days that were scored, `outcomes-<day>.csv` of those that were read."
    def __init__(self, page):
        os.environ["COLUMNS"] = "110"
        self.here = Path("runs") / page
        shutil.rmtree(self.here, ignore_errors=True)
        for day in sorted(SAMPLE.glob("2025*")): shutil.copytree(day, self.here / "data" / day.name)
        truth = pd.read_parquet(SAMPLE / "truth.parquet")
        self.truth = truth.groupby(truth.processing_date.astype(str)).account.agg(set)

    def run(self, line):
        "A command and what it prints."
        print(f"$ {line}")
        if main(shlex.split(line)[1:]) == 2: raise RuntimeError(line)

    def quietly(self, line):
        "A command, without what it prints."
        with redirect_stdout(StringIO()): self.run(line)

    def score(self, day):
        self.quietly(f"aml-miner score --data-dir {self.here}/data/{day} --output {self.here}/scores/{day} "
                     "--budget 30 --explore-share 0.2 --no-page --explain-top 0")

    def read(self, day):
        "What somebody finds who reads what the queue of a day asks for, as the page of the queue would give it out."
        queue = pd.read_parquet(self.here / "scores" / day / "queue.parquet")
        rows = queue[queue.read_because != ""]
        found = ["reported" if address in self.truth[day] else "closed_false" for address in rows.address]
        events = [[day, r.alert_id, event, f"{day}T{9 + i // 12:02}:{i % 12 * 5:02}:00Z", "Kim" if i % 2 else "Lee", 5, r.read_because, r.inclusion_probability]
                  for i, (r, event) in enumerate(zip(rows.itertuples(), found))]
        with open(self.here / f"outcomes-{day}.csv", "w", newline="") as f: csv.writer(f).writerows([EVENT_COLUMNS, *events])

    def take_back(self, days):
        "Add the outcomes of the first so many days to those of the directory."
        files = sorted(self.here.glob("outcomes-*.csv"))[:days]
        self.quietly(f"aml-miner review outcomes --outcomes {self.here}/data --add " + " ".join(map(str, files)))
