"""The data dictionary: what every feature and every column means, written from the definitions that compute them."""
from functools import cache
import json
from pathlib import Path
import re

from api import code, escaped, table
from execute import ROOT

from aml_miner.config.model_config import load_config
from aml_miner.features.address_features import address_features
from aml_miner.features.cluster_builder import CLUSTER_GROUPS, cluster_matrix_features
from aml_miner.features.feature_builder import absent_columns, matrix_features
from aml_miner.features.spec import GROUPS
from aml_miner.features.vocabulary import Vocabulary
from aml_miner.models.reasons_in_words import evidence_words, family_of
from aml_miner.utils.words import plural

HERE = Path(__file__).resolve().parent
MODELS = {"R": "alert_ranker", "S": "alert_scorer", "C": "cluster_scorer"}
FAMILIES = {  # group of features: what it knows of an alert
    "alert": "What the rule says of the alert: typology, severity, confidence, volume.",
    "evidence": "What the rule measured, key by key, and the signs of risk that it names.",
    "address": "The profile of the alerted address over the look-back window.",
    "activity": "The hours and the days of the week on which the address is active.",
    "position": "Where the alert and its address stand among the others of the day.",
    "cluster": "The clusters that the alert belongs to, and the other alerts in them.",
    "flow": "Amounts, counterparties and timing of the flows of the address.",
    "window": "The last hours, days and weeks of the address, and its busiest hours.",
    "pattern": "Money followed from flow to flow: how long it stays, what is passed on, chains, cycles, scatter and gather.",
    "graph": "Whom the counterparties deal with, and where the address stands in the network of flows.",
    "walk": "How near the address is, by random walks along the flows, to addresses whose outcome is known.",
    "community": "The circle that the address deals in, and who else in it is alerted or known.",
    "smurfing": "Whether money goes over many go-betweens to the same few ends.",
    "history": "Earlier alerts of the address, their outcomes, and what has changed in its profile since.",
}
CLUSTER_FAMILIES = FAMILIES | {  # the same of a cluster, where it is something else
    "cluster": "What the cluster reports of itself.",
    "alert": "The alerts of the cluster taken together.",
    "evidence": "What the rules measured at its alerts, key by key.",
    "address": "The profiles of its addresses taken together.",
    "flow": "The money inside the cluster, and what crosses its border.",
    **{group: f"Over the alerts of the cluster: {FAMILIES[group][0].lower()}{FAMILIES[group][1:]}" for group in CLUSTER_GROUPS
       if group not in ("cluster", "alert", "evidence", "address", "flow")},
}


# Features

@cache
def report_of(name):
    "The report of a model of the project."
    return json.loads((ROOT / "trained_models" / f"{name}.json").read_text(encoding="utf-8"))


def vocabulary_of(name):
    "The words that a model has learnt: typologies, evidence keys, signs of risk."
    return Vocabulary.from_dict(report_of(name)["data"]["vocabulary"])


def settings(groups):
    "The default settings of features, with some groups."
    return load_config(overrides={"feature_engineering": {"groups": list(groups)}}).feature_engineering


def alert_definitions():
    "Every feature of an alert, also those of groups that are off by default."
    return matrix_features(settings(GROUPS), vocabulary_of("alert_ranker"))


def cluster_definitions():
    "The same of a cluster."
    return cluster_matrix_features(settings(CLUSTER_GROUPS), vocabulary_of("cluster_scorer"))


def letters_of(feature, letters):
    "The models of the project that have a feature, by their letters."
    return " ".join(letter for letter in letters if feature in report_of(MODELS[letter])["features"])


def tables_read(group):
    "The tables that a group reads."
    from aml_miner.batches.schema import TABLES, connect
    with connect() as con: return absent_columns(con, {t: None for t in TABLES.values()}, (group,))


def meaning_of(feature):
    "What a feature means; a number that a rule reports has a name of its own."
    key = re.fullmatch(r"evidence '(.*)'; yes 1, no 0", feature.description)
    return f"{code(key[1])}, {escaped(evidence_words(key[1]))}" if key else escaped(feature.description.removesuffix("; yes 1, no 0"))


def family_section(group, words, features, letters, read):
    "A family of features: what it knows, and a table with a row for each."
    if not features: raise SystemExit(f"dictionary.py: group {group} has no feature")
    off = "" if group in load_config().feature_engineering.groups else " Off by default."
    rows = [[code(f.name), escaped(f.unit), *(["", ""] if f.depends_on == "cluster" else [f.depends_on, family_of(f.name)]), meaning_of(f),
             letters_of(f.name, letters)] for f in features]
    line = f"{words}{off} {len(features)} features{read}."
    return f"## {group}\n\n{line}\n\n{table(['feature', 'unit', 'rests on', 'on the queue page', 'what it means', 'of'], rows)}"
    line = f"{words}{off} {plural(len(features), 'feature')}{read}."
    return f"## {group}\n\n{line}\n\n{table(['feature', 'unit', 'rests on', 'what it means', 'of'], rows)}"


def check_families(words, groups):
    "Every group has its words."
    if lacking := [g for g in groups if g not in words]: raise SystemExit(f"dictionary.py says nothing of the groups {', '.join(lacking)}")


ALERT_WORDS = """# Features of an alert

Every column that the alert ranker (*R*) and the alert scorer (*S*) may see: {features} features. They come in {groups} families, the groups of the setting
`feature_engineering.groups` ({{doc}}`configuration`); {on} of these families are on by default. What is not known is empty, never 0; of evidence yes is 1 and
no is 0; in *powers of ten* 1 is ten times as much, and -1 a tenth. {{doc}}`cluster_features` are those of the cluster scorer.

What a feature *rests on*: **alert**, its own row with the profile and the flows of its address; **addresses of the batch** and **alerts of the batch**, the
others of the same day; **earlier batches**, what was known of them on the processing date. Only *alerts of the batch* changes with what is scored together.

Names in the families *alert* and *evidence* that come from data are those of the rules behind `data/sample`; those of your rules take their place.

*On the queue page* a reason stands under the heading that is named beside its feature.
"""
CLUSTER_WORDS = """# Features of a cluster

Every column that the cluster scorer (*C*) may see: {features} features in {groups} families, each of the cluster alone. A network feature is the mean over its
alerts; one that rests on earlier batches is the largest. {{doc}}`features` explains those of one alert.
"""


def features_page():
    features, known = alert_definitions(), load_config().feature_engineering.groups
    check_families(FAMILIES, GROUPS)
    parts = [ALERT_WORDS.format(features=len(features), groups=len(GROUPS), on=len(known))]
    for group in GROUPS:
        from_tables = ", ".join(code(t) for t in tables_read(group))
        parts.append(family_section(group, FAMILIES[group], [f for f in features if f.group == group], "RS", f", read from {from_tables}"))
    return "\n".join(parts)


def cluster_features_page():
    features = cluster_definitions()
    check_families(CLUSTER_FAMILIES, CLUSTER_GROUPS)
    parts = [CLUSTER_WORDS.format(features=len(features), groups=len(CLUSTER_GROUPS))]
    for group in CLUSTER_GROUPS: parts.append(family_section(group, CLUSTER_FAMILIES[group], [f for f in features if f.group == group], "C", ""))
    return "\n".join(parts)


# Columns

def column_lines():
    "Table -> column -> meaning, of columns.txt."
    found = {}
    for line in (HERE / "columns.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "): found[line[3:]] = {}
        elif line and not line.startswith("#"):
            name, meaning = re.split(r"\s{2,}", line.strip(), maxsplit=1)
            found[list(found)[-1]][name] = meaning
    return found


def profile_meanings():
    "Column of the profile -> what the feature of it means."
    known = {f.name.removeprefix("address_"): f for f in address_features(vocabulary_of("alert_ranker")) if f.sql == f.name.removeprefix("address_")}
    return {name: f.description for name, f in known.items()}


def column_meanings(name, columns):
    "What each column of a table means; the build stops where a line is missing or too many."
    own = column_lines().get(name, {})
    known = (profile_meanings() if name == "features" else {}) | own
    if missing := [c for c in columns if c not in known]: raise SystemExit(f"columns.txt does not explain: {', '.join(f'{name}.{c}' for c in missing)}")
    if unknown := [c for c in own if c not in columns]: raise SystemExit(f"columns.txt explains what is no column: {', '.join(f'{name}.{c}' for c in unknown)}")
    return {c: known[c] if "{doc}" in known[c] else escaped(known[c]) for c in columns}


ARROW_WORDS = {"date32[day]": "date", "string": "text", "double": "number", "uint32": "whole number", "int64": "whole number"}


def scores_page():
    from aml_miner.scoring.batch_scores import SCHEMAS
    from aml_miner.batches.outcome_events import EVENT_COLUMNS
    from aml_miner.scoring.queue_file import QUEUE_COLUMNS
    parts = ["# Tables of scores\n\n`aml-miner score` writes a folder with a parquet file for each model that there is, and `scores.json`: what was scored, "
             "with which models, what was unknown, and hashes of the tables. Beside them lie `queue.html`, the page to work from, and for each explained alert "
             "its evidence, in `evidence/`. All are written whole or not at all. {doc}`tables` are those of a batch.\n"]
    for name, schema in SCHEMAS.items():
        meanings = column_meanings(name, schema.names)
        rows = [[code(f.name), ARROW_WORDS[str(f.type)], meanings[f.name]] for f in schema]
        parts.append(f"## {name}\n\n`{name}.parquet`\n\n{table(['column', 'holds', 'what it is'], rows)}")
    kinds = {"str": "text", "int64": "whole number", "float64": "number", "datetime64[us]": "date"}
    marked = "What is marked on `queue.html` and downloaded from it, as CSV or JSON; an alert may have several rows, and the last one counts"
    queue = "`queue.parquet`, the queue with what stands on its page, one row for each alert"
    for name, line, columns in (("queue", queue, QUEUE_COLUMNS), ("outcomes", marked, EVENT_COLUMNS)):
        meanings = column_meanings(name, list(columns))
        rows = [[code(c), kinds[columns[c]] if isinstance(columns, dict) else "", meanings[c]] for c in columns]
        parts.append(f"## {name}\n\n{line}.\n\n{table(['column', 'holds', 'what it is'], rows)}")
    return "\n".join(parts)


def written_pages():
    "name -> Markdown."
    return {"reference/features": features_page(), "reference/cluster_features": cluster_features_page(), "reference/scores": scores_page()}
