"""Changed inputs, each read in a fork: a sentence or the right result, never a signal, a hang, another error, or another result without a word.

    python tests/fuzz/fuzz_inputs.py parquet --mutants 1000 --seed 1      # or config, result, meta, source, journal, history, cache; all: each of them
"""
import argparse
from collections import Counter, defaultdict
import copy
import hashlib
import json
import os
from pathlib import Path
import random
import sys
import tempfile
import time

if __name__ == "__main__": sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from fuzz.forked import run_forked
from loguru import logger
import optuna
import pandas as pd
import yaml

from aml_miner.batches.history import open_history
from aml_miner.batches.loader import read_batch
from aml_miner.config.model_config import default_config_path, load_config
from aml_miner.features.cluster_builder import ClusterFeatureBuilder
from aml_miner.features.feature_builder import FeatureBuilder
from aml_miner.features.feature_cache import FeatureCache
from aml_miner.testing.tiny_batch import tiny_batch
from aml_miner.transactions.amlworld import read_amlworld
from aml_miner.tuning.storage import claim_trial, count_trials, fail_stale_trials, open_study, worker_slot

# What every command ends with one line and exit code 2 for; BatchError, ConfigError, SourceError and HistoryError are ValueErrors.
REFUSALS = (ValueError, OSError)
UNTOLD = "other result without a word"
ODD = [
    None, 0, -1, 1.5, 1e308, float("nan"), float("inf"), True, "", "x", [], {}, [1], {"a": 1}, 10**30, 10**9, "1", "1e3", -0.0, [None], "*x",
    "2020-01-01", "9" * 5000, "x" * 20_000,
]
ODD_LINES = (b"\n", b"{}\n", b"[]\n", b"1\n", b"null\n", b'{"op_code":99,"worker_id":"x"}\n', b"\xff\xfe\n", b"x" * 100_000 + b"\n", b"[" * 100_000 + b"\n")
ODD_FIELDS = (
    b"", b"-1", b"1e400", b"nan", b"\"", b"\"\"\"", b"\xff", b"\0", b"9" * 400, b"x" * 3_000_000, b"a,b", b"2022/13/45 25:61", b"\r", b"Guilder",
)


def bytes_changed(content, rng):
    "What accidents do to bytes."
    b, how = bytearray(content), rng.choice(["flip", "flip", "flip", "flips", "cut", "zero", "double", "end", "insert"])
    if not b: return how, bytes(b)
    i = rng.randrange(len(b))
    if how == "flip": b[i] ^= 1 << rng.randrange(8)
    elif how == "flips":
        for _ in range(rng.choice((4, 50))): b[rng.randrange(len(b))] = rng.randrange(256)
    elif how == "cut": del b[i:i + rng.choice((1, 8, 100))]
    elif how == "zero": b[i:i + 16] = bytes(len(b[i:i + 16]))
    elif how == "double": b[i:i] = b[i:i + 64]
    elif how == "end": del b[i:]
    else: b[i:i] = rng.randbytes(8)
    return how, bytes(b)


def places(value, at=()):
    if at: yield at
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else (): yield from places(part, (*at, key))


def value_changed(value, rng):
    "One value of nested ones away, or another."
    value = copy.deepcopy(value)
    *way, last = rng.choice([*places(value)])
    inside = value
    for key in way: inside = inside[key]
    if rng.random() < .2: del inside[last]
    else: inside[last] = rng.choice(ODD)
    return f"value {last}", value


def lines_changed(content, rng):
    "A line away, twice, in another place, or of another kind."
    found = content.splitlines(keepends=True)
    i, j, how = rng.randrange(len(found)), rng.randrange(len(found)), rng.choice(["away", "twice", "moved", "value", "other"])
    if how == "away": del found[i]
    elif how == "twice": found.insert(i, found[j])
    elif how == "moved": found[i], found[j] = found[j], found[i]
    elif how == "value": found[i] = json.dumps(value_changed(json.loads(found[i]), rng)[1], separators=(",", ":")).encode() + b"\n"
    else: found[i] = rng.choice(ODD_LINES)
    return f"line {how}", b"".join(found)


def digest(*frames):
    rows = [pd.util.hash_pandas_object(f.reset_index().astype(str), index=False) for f in frames]
    return hashlib.sha256(b"".join(hashes.to_numpy().tobytes() for hashes in rows)).hexdigest()


class Config:
    "Files of settings."
    bombs = [
        "".join(f"{name}: &{name} [{', '.join([before] * 9)}]\n" for before, name in zip(["x", "*a", "*b", "*c", "*d", "*e", "*f", "*g"], "abcdefgh")),
        "training: &t {cv_folds: *t}\n", "training: &t\n  cv_folds: 3\n  <<: *t\n", "a: " + "[*a, " * 900,
        "!!python/object/apply:os.system ['true']\n", "training: !!python/name:os.system\n", "training: {seed: !!binary aGVsbG8=}\n", "? !!set {a}\n: 1\n",
        "? [a, b]\n: 1\n", "1: 2\n", "null: null\n", "~: {}\n", "---\na: 1\n---\nb: 2\n", "training:\n\tseed: 1\n", "a: 2021-13-45\n",
        "training: {seed: 1_000}\n", "training: {seed: 0o17}\n", "training: {seed: 2021-01-01}\n", "training: {seed: 0x" + "f" * 5000 + "}\n",
        "training: {seed: " + ":".join(["1"] * 3000) + "}\n", "training: {test_fraction: .nan}\n", "feature_engineering: {round_thresholds_usd: [.inf]}\n",
        "[" * 5000, "{a: " * 3000, "- " * 5000, "x" * 2_000_000, "x: " + "9" * 5000 + "\n", "alert_ranker: {label_gain: [" + "0," * 300_000 + "1]}\n",
    ]

    def __init__(self, folder):
        self.path, self.raw, self.section = folder/"c.yaml", default_config_path().read_bytes(), None
        self.value = yaml.safe_load(self.raw)

    def change(self, n, rng):
        if n < len(self.bombs): how, content = f"bomb {n}", self.bombs[n].encode()
        elif rng.random() < .4: how, content = bytes_changed(self.raw, rng)
        else:
            how, changed = value_changed(self.value, rng)
            content = yaml.safe_dump(changed, sort_keys=False).encode()
        self.path.write_bytes(content)
        return how

    def read(self):
        load_config(self.path, section=self.section)
        return "accepted"


class Result(Config):
    "What tuning wrote."
    def __init__(self, folder):
        self.path, self.section = folder/"best.yaml", "alert_scorer"
        folds = {"value": .8, "std": .1, "folds": [.7, .9]}
        space = {"num_leaves": {"low": 20, "high": 100}, "learning_rate": {"low": .01, "high": .1, "log": True}}
        self.value = {
            "model_type": "scorer", "best_params": {"num_leaves": 44, "learning_rate": .05, "n_estimators": 31},
            "metric": "auc", "value": .8, "value_std": .1, "fold_values": [.7, .9], "current": folds,
            "best_trial": 3, "sampled_n_estimators": 400, "trials": {"complete": 3, "pruned": 0, "failed": 1}, "search_space": space,
            "settings": {"alert_scorer": {"eval_metric": "auc"}, "training": {"seed": 7}}, "folds": "by address", "seed": 42,
            "input": {"rows": 9, "sha256": "0" * 64}, "versions": {"optuna": "5"},
        }
        self.raw = yaml.safe_dump(self.value, sort_keys=False).encode()
        self.path.write_bytes(self.raw)
        load_config(self.path, section=self.section)


class Parquet:
    "The files of a batch, three in ten of them with checksums."
    tables = ("alerts", "features", "clusters", "money_flows", "address_labels")

    def __init__(self, folder):
        self.source, self.batch = tiny_batch(folder/"source"), folder/"batch"
        groups = ["alert", "evidence", "address", "activity", "position", "cluster", "flow", "window"]
        self.config = load_config(overrides={"feature_engineering": {"min_category_rows": 1, "groups": groups}}).feature_engineering
        batch = read_batch(self.source)
        self.builders = [kind(self.config).learn_from([batch]) for kind in (FeatureBuilder, ClusterFeatureBuilder)]
        self.right = self.content(batch)

    def content(self, batch):
        "All that anybody takes from a batch."
        return digest(*(b.build(batch) for b in self.builders), *(t.to_pandas() for t in batch.tables.values()))

    def change(self, n, rng):
        self.batch.mkdir(exist_ok=True)
        for path in self.source.iterdir(): (self.batch/path.name).write_bytes(path.read_bytes())
        if rng.random() > .3: (self.batch/"META.json").unlink()
        file = self.batch/f"{self.tables[n % 5]}.parquet"
        raw = file.read_bytes()
        start = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
        if rng.random() < .5:
            how, footer = bytes_changed(raw[start:-8], rng)
            length = len(footer).to_bytes(4, "little") if rng.random() < .8 else raw[-8:-4]
            how, content = f"footer {how}", raw[:start] + footer + length + raw[-4:]
        elif rng.random() < .5:
            how, pages = bytes_changed(raw[4:start], rng)
            how, content = f"pages {how}", raw[:4] + pages[:start - 4].ljust(start - 4, b"\0") + raw[start:]
        else: how, content = bytes_changed(raw, rng)
        file.write_bytes(content)
        return f"{file.stem} {how}" + ", checksums" * (self.batch/"META.json").exists()

    def read(self):
        batch = read_batch(self.batch)
        if self.content(batch) == self.right: return "same result"
        return "other result, and the note" if any("no checksums" in note for note in batch.notes) else UNTOLD


class Meta(Parquet):
    "META.json."
    def change(self, n, rng):
        self.batch.mkdir(exist_ok=True)
        for path in self.source.iterdir(): (self.batch/path.name).write_bytes(path.read_bytes())
        raw = (self.source/"META.json").read_bytes()
        how, content = bytes_changed(raw, rng) if rng.random() < .5 else value_changed(json.loads(raw), rng)
        (self.batch/"META.json").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return how


class Source:
    "A file of transactions, as text and as parquet."
    def __init__(self, folder):
        self.folder = folder
        header = "Timestamp,From Bank,Account,To Bank,Account,Amount Received,Receiving Currency,Amount Paid,Payment Currency,Payment Format,Is Laundering\n"
        names = [
            "Timestamp", "from_bank", "from_account", "to_bank", "to_account", "amount_received", "receiving_currency", "amount_paid", "payment_currency",
            "payment_format", "is_laundering",
        ]
        day, minute, amount = "2022/09/{:02d}", "00:{:02d}", "{}.25,Euro"
        rows = [
            [f"{day.format(1 + i % 9)} {minute.format(i % 60)}", "1", f"A{i % 7}", "2", f"B{i % 5}", *[amount.format(500 + i)] * 2, "Wire", str(i % 2)]
            for i in range(60)
        ]
        text = header + "".join(",".join(row) + "\n" for row in rows)
        pd.DataFrame([row.split(",") for row in text.splitlines()[1:]], columns=names).to_parquet(folder/"t.parquet")
        self.raw = {"t.csv": text.encode(), "t.parquet": (folder/"t.parquet").read_bytes()}
        for self.path in (folder/"t.csv", folder/"t.parquet"):
            self.path.write_bytes(self.raw[self.path.name])
            found = run_forked(self.read)
            assert found.value == "accepted", found

    def change(self, n, rng):
        self.path = self.folder/rng.choice([*self.raw])
        raw = self.raw[self.path.name]
        how, content = lines_changed_text(raw, rng) if self.path.suffix == ".csv" and rng.random() < .5 else bytes_changed(raw, rng)
        self.path.write_bytes(content)
        return f"{self.path.suffix} {how}"

    def read(self):
        read_amlworld(self.path, self.folder/"out.parquet")
        return "accepted"


def lines_changed_text(content, rng):
    "A line of a table with other fields."
    found = content.splitlines(keepends=True)
    i = rng.randrange(len(found))
    fields = found[i].rstrip(b"\n").split(b",")
    fields[rng.randrange(len(fields))] = rng.choice(ODD_FIELDS)
    found[i] = b",".join(fields) + b"\n"
    return "field", b"".join(found)


class Journal:
    "A study's journal, gone on with to four trials of a toy."
    space = {"x": optuna.distributions.FloatDistribution(0, 1), "n": optuna.distributions.IntDistribution(1, 9)}

    def __init__(self, folder):
        self.path = folder/"j.journal"
        self.search(3)
        self.raw = self.path.read_bytes()
        self.right = self.search(4)

    def search(self, trials):
        study = open_study(self.path, "toy", True, {"seed": 1, "space": {"x": [0, 1]}})
        with worker_slot(self.path) as slot:
            fail_stale_trials(study, self.path, slot)
            while trial := claim_trial(study, self.path, slot, trials, self.space, 1, 2): study.tell(trial, trial.params["x"] - trial.params["n"] / 10)
        return [count_trials(study)["complete"], study.best_params, study.best_value]

    def change(self, n, rng):
        how, content = (bytes_changed if rng.random() < .5 else lines_changed)(self.raw, rng)
        self.path.write_bytes(content)
        return how

    def read(self): return "same result" if self.search(4) == self.right else UNTOLD


class History:
    "A history file, half of the time with the batches that it can be made from anew."
    def __init__(self, folder):
        for day in ("2025-08-01", "2025-08-20"): tiny_batch(folder/"days"/day, day)
        self.path, self.batch = folder/"h.duckdb", read_batch(tiny_batch(folder/"2025-09-03", "2025-09-03"))
        with open_history(self.path, folder/"days"): pass
        self.raw, self.days = self.path.read_bytes(), folder/"days"
        self.from_days = None
        found = run_forked(self.past)
        self.right = found.value
        assert self.right, found

    def past(self):
        with open_history(self.path, self.from_days) as store:
            found = store.past(self.batch, 2, 100).fingerprint
            store.add(self.batch)
            return found

    def change(self, n, rng):
        for path in self.path.parent.glob("h.duckdb*"): path.unlink()
        how, content = bytes_changed(self.raw, rng)
        if rng.random() < .3:
            content, at = bytearray(self.raw), rng.randrange(3)
            if at == 0: content[rng.randrange(12_288)] ^= 1 << rng.randrange(8)
            else: content[(page := rng.randrange(len(content) // 4096) * 4096):page + 4096] = rng.randbytes(4096)
            how = ("head", "page", "page")[at]
        self.path.write_bytes(bytes(content))
        if wal := rng.random() < .2: self.path.with_name("h.duckdb.wal").write_bytes(rng.randbytes(rng.choice((1, 100, 5000))))
        self.from_days = self.days if rng.random() < .5 else None
        return how + ", write-ahead file" * wal + ", made anew" * bool(self.from_days)

    def read(self): return "same result" if self.past() == self.right else UNTOLD


class Cache:
    "Entries of the feature cache; where the digest is made to fit, other features are what its modes guard against, and no more than that."
    def __init__(self, folder):
        self.batch, self.folder = read_batch(tiny_batch(folder/"2025-09-01")), folder/"cache"
        config = load_config(overrides={"feature_engineering": {"min_category_rows": 1, "groups": ["alert", "address", "cluster", "flow"]}}).feature_engineering
        self.builder = FeatureBuilder(config).learn_from([self.batch])
        self.right = digest(FeatureCache(self.folder, 1).build(self.builder, self.batch))
        self.raw = {path: path.read_bytes() for path in sorted(self.folder.iterdir())}

    def change(self, n, rng):
        for path, content in self.raw.items(): path.write_bytes(content)
        path, other = rng.sample([*self.raw], 2)
        self.fits = rng.random() < .5
        how, content = bytes_changed(self.raw[path][:-32] if self.fits else self.raw[path], rng)
        if rng.random() < .3:
            how, content = "another's", self.raw[other]
            if self.fits: content = content[:-32].replace(other.stem.encode(), path.stem.encode())
        path.write_bytes(content + hashlib.sha256(content).digest() if self.fits else content)
        return how + ", its digest fits" * self.fits

    def read(self):
        if digest(FeatureCache(self.folder, 1).build(self.builder, self.batch)) == self.right: return "same result"
        return "other result, digest made to fit" if self.fits else UNTOLD


KINDS = {"config": Config, "result": Result, "parquet": Parquet, "meta": Meta, "source": Source, "journal": Journal, "history": History, "cache": Cache}


def came_to(kind):
    "What came of reading a mutant, in a few words; whether it must not be; details."
    outcome = run_forked(kind.read, refusals=REFUSALS, cpu_seconds=20, megabytes=4000)
    if outcome.kind == "refused":
        named = len(outcome.detail) <= 8_000 and outcome.detail.strip()
        return ("refused", False, "") if named else ("refused without a sentence", True, outcome.detail[:200])
    if outcome.kind == "value": return outcome.value, outcome.value == UNTOLD, ""
    return f"{outcome.kind} {outcome.detail}"[:120], True, outcome.detail


def run(
    name,  # of a kind
    mutants,  # how many
    seed,
    folder,  # for files
):  # how often came what; (what was changed, what it came to) of those that must not be
    "Read the mutants of a kind."
    (own := Path(folder)/name).mkdir()
    kind, rng, tally, bad = KINDS[name](own), random.Random(f"{name} {seed}"), Counter(), defaultdict(list)
    for n in range(mutants):
        how = kind.change(n, rng)
        what, wrong, detail = came_to(kind)
        tally[what] += 1
        if wrong: bad[what].append(f"mutant {n}: {how} {detail}"[:300])
    return tally, dict(bad)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=[*KINDS, "all"])
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    args, failed = parser.parse_args(), False
    logger.remove()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name in KINDS if args.kind == "all" else [args.kind]:
        started = time.time()
        with tempfile.TemporaryDirectory() as folder: tally, bad = run(name, args.mutants, args.seed, folder)
        print(f"{name}, seed {args.seed}: {args.mutants} mutants, {time.time() - started:.0f} s")
        for what, n in tally.most_common(): print(f"  {n:7,}  {'BAD ' * (what in bad)}{what}")
        for what, cases in bad.items(): print(f"  {what}:", *cases[:3], sep="\n    ")
        failed |= bool(bad)
    return int(failed)


if __name__ == "__main__": sys.exit(main())
