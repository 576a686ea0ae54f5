"""What is asked of a project before it is used: what it costs in time and memory, which license it and what it needs have, what has changed."""
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path
import re

from packaging.requirements import Requirement

from api import escaped, table
from execute import ROOT

HERE = Path(__file__).resolve().parent


def settings():
    "The one description of the project."
    parser = ConfigParser(delimiters=["="])
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


# Cost

def kept(name):
    "What a script of benchmarks/ printed."
    return (HERE / "benchmarks" / f"{name}.txt").read_text(encoding="utf-8")


def cells_of(text, row):
    "The groups of every line that fits; the build stops where none does, as the script then prints something else."
    if not (found := re.findall(row, text, flags=re.M)): raise SystemExit(f"about.py finds no line like {row} in a text of benchmarks/")
    return found


def flow_rows():
    "(flows, CPU seconds, seconds, GB) of building features from flows, by their number."
    return cells_of(kept("features"), r"^\| ([\d,]+) flows +\| +\d+ \| +([\d.]+) \| +([\d.]+) \| +([\d.]+) \|")


def scoring_rows():
    "(reasons, alerts, seconds, CPU seconds, MB) of scoring a day."
    return cells_of(kept("scoring"), r"^ +(\d+) +([\d,]+) +([\d.]+) +([\d.]+) +(\d+) ")


def rule_rows():
    "(transactions, alerts, CPU seconds, seconds, GB) of raising alerts by all rules."
    return cells_of(kept("monitoring"), r"^ +([\d,]+) +([\d,]+) +([\d.]+) +([\d.]+) +[\d.]+ +([\d.]+)$")


def conversion_rows():
    "(transactions, seconds, CPU seconds, MB) of a whole conversion."
    return cells_of(kept("convert"), r"^convert +([\d,]+) +([\d.]+) +([\d.]+) +(\d+) ")


def cost_page():
    from aml_miner.utils.commands import NEEDED_MB
    scored = [[f"{alerts} alerts", reasons, *rest] for reasons, alerts, *rest in scoring_rows()]
    scoring = table(["a day of", "of these with reasons", "seconds", "CPU seconds", "memory, MB"], scored)
    flows = table(["a day of", "CPU seconds", "seconds", "memory, GB"], [[f"{n} flows", *rest] for n, *rest in flow_rows()])
    rules = table(["a file of", "alerts", "CPU seconds", "seconds", "memory, GB"], [[f"{n} transactions", *rest] for n, *rest in rule_rows()])
    conversion = table(["a file of", "seconds", "CPU seconds", "memory, MB"], [[f"{n} transactions", *rest] for n, *rest in conversion_rows()])
    return f"""# What it costs

```{{index}} ! cost, ! costs, ! price, ! memory, ! time, ! hardware
```

In money: nothing. The project is free software ({{doc}}`license`), needs no key, no account and no other service, and nothing leaves the machine. It
runs on the processor: no graphics card is used.

In time and memory: the figures below are those that the scripts in `benchmarks/` printed on two shared cores ({{doc}}`/benchmarks` has them whole).
CPU seconds tell more than seconds.

## Scoring a day

Models are loaded, features built, alerts scored and put in order, and the first of them get reasons.

{scoring}
## Features, by the number of flows

All that reads flows, on a day of 50,000 alerts. What was built once is kept, so tuning and retraining do not build it again.

{flows}
## Rules: from transactions to alerts

{rules}
## A conversion: from a file of transactions to batches

Reading, rules, profiles, flows and clusters of every day.

{conversion}
## Training

Training reads the features of all days at once. Some {NEEDED_MB[0] / 1000:g} GB of addresses are needed to score a small batch, some {NEEDED_MB[1] /
1000:g} GB to train on a few, most of it for the libraries; then count as much for all days
together as scoring takes for each. `python benchmarks/ranker.py --data-dir my_batches` prints seconds and memory of loading, features and training on
your own batches. A search for better settings
trains some hundred times, most of them not to the end: {{doc}}`/tutorials/tune_and_compare`.

## What reading costs

The time of investigators is the largest cost by far. {{doc}}`/howto/review_budget` says how to choose how much to read.
"""


# License

LICENSES = {"apache2": "Apache-2.0"}  # nbdev's word: the usual name


def needed():
    "Every distribution that the package needs to run, however far away: name -> distribution."
    found, queue = {}, [Requirement(r) for r in settings()["requirements"].split()]
    while queue:
        requirement = queue.pop()
        if requirement.name.lower() in found or requirement.marker and not requirement.marker.evaluate({"extra": ""}): continue
        distribution = metadata.distribution(requirement.name)
        found[requirement.name.lower()] = distribution
        queue += [Requirement(r) for r in distribution.requires or []]
    return {d.metadata["Name"]: d for d in sorted(found.values(), key=lambda d: d.metadata["Name"].lower())}


def license_of(distribution):
    "What a distribution says of its license, in a word."
    said = distribution.metadata
    if said.get("License-Expression"): return said["License-Expression"]
    classes = [c.rpartition(" :: ")[2] for c in said.get_all("Classifier") or [] if c.startswith("License :: ")]
    return " or ".join(classes) if classes else next(iter((said.get("License") or "").strip().splitlines()), "")


def license_page():
    rows = [[escaped(name), d.version, escaped(license_of(d))] for name, d in needed().items()]
    for name, _, words in rows:
        if not words or "GPL" in words: raise SystemExit(f"about.py: the license of {name} is {words or 'not told'}")
    return f"""# License

```{{index}} ! license, ! licence, ! Apache-2.0, ! open source
```

{LICENSES[settings()['license']]}, in the file `LICENSE`: use it, change it, sell what you make of it, in a bank or elsewhere; keep the notices, and
say what you changed. There is no warranty. Nothing in it is proprietary, and nothing asks
for a key.

{{doc}}`limits` says what the models must not be used for, whatever the license allows.

## What it needs

The {len(rows)} packages that are installed with it, as they name their own licenses. None of them is under the GPL.

{table(["package", "version", "license"], rows)}"""


# Changes

def changelog():
    "The list of changes."
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def versions_listed():
    "The versions that it has a part of, the newest first."
    return re.findall(r"^## \[?([\w.]+)\]?", changelog(), flags=re.M)


def changelog_page():
    if settings()["version"] not in versions_listed(): raise SystemExit(f"CHANGELOG.md says nothing of version {settings()['version']}")
    return changelog()


def written_pages():
    "name -> Markdown."
    return {"explanations/cost": cost_page(), "explanations/license": license_page(), "reference/changelog": changelog_page()}
