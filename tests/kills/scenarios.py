"""What is killed: commands that write over what an earlier run left, or into an empty folder, and what a reader finds there."""
from functools import partial
import hashlib
from importlib import import_module
import json
from pathlib import Path
import shutil
import tempfile

import duckdb
import pyarrow as pa
import yaml

from aml_miner.batches.history import HistoryStore, open_history
from aml_miner.batches.loader import batch_folders, read_batch
from aml_miner.cli.tree import main as cli_main
from aml_miner.config.model_config import load_config
from aml_miner.conversion.alert_batches import open_output
from aml_miner.conversion.convert import main as convert_main
from aml_miner.features.feature_builder import FeatureBuilder
from aml_miner.features.feature_cache import FeatureCache, from_entry
from aml_miner.models.model_card import card_path
from aml_miner.models.model_files import report_path, save_model
from aml_miner.models.scoring_model import AlertRankerModel, AlertScorerModel, ClusterScorerModel
from aml_miner.scoring.score_batch import main as score_main
from aml_miner.conversion import simulate as simulator
from aml_miner.service.batch_store import BatchStore
from aml_miner.service.keys import add_key, read_keys
from aml_miner.training.train_cluster_scorer import main as train_clusters
from aml_miner.training.train_ranker import main as train_ranker
from aml_miner.training.train_scorer import main as train_scorer
from aml_miner.transactions.amlworld import read_amlworld
from aml_miner.transactions.amlworld_example import write_amlworld_example
from aml_miner.tuning import tuner as hyperparameter_tuner
from aml_miner.tuning.storage import count_trials, open_study

SETTINGS = """training: {cv_folds: 2, bootstrap_samples: 5, early_stopping_rounds: 3, num_threads: 1, ndcg_at: [5]}
alert_scorer: {boosting: {n_estimators: 4}}
alert_ranker: {rivals: [], boosting: {n_estimators: 4}}
cluster_scorer: {boosting: {n_estimators: 4}}
feature_engineering: {groups: [alert], label_delay_days: 1}
"""
SEARCH = "tuning: {startup_trials: 2, search_space: {n_estimators: {low: 3, high: 5}, num_leaves: {low: 4, high: 8}}}\n"
SIMULATED = ("--days", "5", "--alerts-per-day", "100", "--flows-per-day", "1000", "--illicit-share", "0.1", "--stealth", "0.7", "--seed", "3", "--labels-as-of",
             "2026-01-01")  # some illicit clusters on the last day, and before it
conversion = import_module("aml_miner.conversion.convert")  # the package's own name is the function's
pa.set_cpu_count(1)
pa.set_io_thread_count(1)


def digest(path): return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def tree(folder, hidden=True):
    "Relative path -> digest of every file; of an empty folder the path with a slash."
    found = [p for p in sorted(Path(folder).rglob("*")) if hidden or not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    return {p.relative_to(folder).as_posix() + "/" * p.is_dir(): "" if p.is_dir() else digest(p) for p in found if p.is_file() or not any(p.iterdir())}


class Inputs:
    "What the commands read, made when it is asked for; `apart(make)` makes it in a process of its own."
    def __init__(self, folder, apart): self.folder, self._apart = Path(folder), apart

    def _made(self, name, make):
        path = self.folder / name
        if not path.exists(): self._apart(partial(make, path))
        return path

    @property
    def batches(self): return self._made("batches", lambda path: simulator.main(["--output", str(path), *SIMULATED]))

    @property
    def day(self): return batch_folders(self.batches)

    @property
    def models(self):
        with_history = self.settings("history.yaml", SETTINGS.replace("[alert]", "[alert, history]"))
        return self._made("models", lambda path: self.train(train_scorer, path / "alert_scorer.txt", with_history))

    def settings(self, name="settings.yaml", text=SETTINGS): return self._made(name, lambda path: path.write_text(text) and 0)

    def train(self, main, model, settings, *more): return main(["--data-dir", str(self.batches), "--output", str(model), "--config", str(settings), *more])

    @property
    def source(self): return self._made("source", lambda path: (path.mkdir(), write_amlworld_example(path, rows=1_200, seed=5)) and 0)

    @property
    def transactions(self):
        table, patterns = (next(self.source.glob(name)) for name in ("*Trans*", "*atterns*"))
        return "--source", "amlworld", "--input", str(table), "--patterns", str(patterns), "--last-day", "2022-09-04"


class Scenario:
    """A command that writes below a folder. `command(folder)` is what is killed, `before(folder)` made what was there.
    `seen(folder)` is what a reader finds: unit -> value. Each unit must be as before the run or as after it, whatever the others are."""
    reproducible = True  # all bytes that a run writes are the same each time; else what a reader finds is

    def __init__(self, inputs): self.inputs = inputs

    def before(self, folder): "Nothing was there."

    def command(self, folder): raise NotImplementedError

    def seen(self, folder): raise NotImplementedError

    def allows(self, unit, value, before, after): return value in (before, after)

    def may_stay(self, name): return False  # a file that no undisturbed run leaves, and the next one of a killed one does not remove


def as_command(run, *args):
    "Call a function as the commands do: exit code 2 and a line for what cannot be written."
    try: run(*args)
    except (ValueError, OSError, duckdb.Error) as e:
        print(e)
        return 2


class Model(Scenario):
    "A training over the model of an earlier one, or into an empty folder."
    commands = {"ranker": (train_ranker, AlertRankerModel), "scorer": (train_scorer, AlertScorerModel), "cluster": (train_clusters, ClusterScorerModel)}

    def __init__(self, inputs, kind, new=False):
        super().__init__(inputs)
        (self.main, self.reader), self.new = self.commands[kind], new

    def before(self, folder):
        if not self.new: return self.command(folder, "--seed", "7")

    def command(self, folder, *more): return self.inputs.train(self.main, folder / "m.txt", self.inputs.settings(), *more)

    def seen(self, folder):
        path = folder / "m.txt"
        files = (path, report_path(path), card_path(path))
        if not any(p.exists() for p in files): return {}
        self.reader.load_model(path)
        return {"model, report and card": [digest(p) for p in files]}


class Save(Model):
    "A ready model that is written over an older one: the writing alone."
    def __init__(self, inputs): super().__init__(inputs, "scorer")

    def before(self, folder): return super().command(folder, "--seed", "7")

    def command(self, folder):
        path = self.inputs.models / "alert_scorer.txt"
        return as_command(save_model, folder / "m.txt", path.read_text(), json.loads(report_path(path).read_text()))


class Cache(Scenario):
    "Features that are built are kept for the next run."
    def command(self, folder):
        config, batches = load_config(self.inputs.settings()), [read_batch(d) for d in self.inputs.day[:2]]
        cache, builder = FeatureCache(folder / "cache", max_gb=1), FeatureBuilder(config.feature_engineering).learn_from(batches)
        for batch in batches: cache.build(builder, batch)

    def seen(self, folder):
        entries = [p for p in (folder / "cache").glob("*") if not p.name.startswith(".")]
        for p in entries: from_entry(p.read_bytes(), p.stem)
        return {p.name: digest(p) for p in entries}

    def may_stay(self, name): return name.endswith(".aml_miner/")  # an empty scratch folder, until the next entry is written


class Scores(Scenario):
    "A batch scored over the scores of the day before."
    def before(self, folder): return self.score(folder, self.inputs.day[3])

    def command(self, folder): return self.score(folder, self.inputs.day[4])

    def score(self, folder, day, *more):
        paths = ("--batch-dir", str(day), "--models-dir", str(self.inputs.models), "--output-dir", str(folder / "scores"))
        return score_main([*paths, "--no-latency", "--num-threads", "1", "--explain-top", "2", *more])

    def seen(self, folder): return {"scores": tree(folder / "scores")}


class Outcomes(Scenario):
    "Outcomes of a second evening added to those of the first."
    def before(self, folder):
        shutil.copytree(self.inputs.day[3], folder / "data" / "day")
        batch = read_batch(folder / "data" / "day")
        day, ids = batch.processing_date.isoformat(), sorted(batch.alerts.alert_id.unique())
        for n in (2, 4):
            rows = "".join(f"{day},{alert},reported,{day}T15:00:00Z,Ann\n" for alert in ids[:n])
            (folder / f"{n}.csv").write_text(f"processing_date,alert_id,event,time,reviewer\n{rows}")
        return self.add(folder, 2)

    def command(self, folder): return self.add(folder, 4)

    def add(self, folder, n): return cli_main(["review", "outcomes", "--outcomes", str(folder / "data"), "--add", str(folder / f"{n}.csv")])

    def seen(self, folder): return {"outcomes": (folder / "data" / "outcomes.csv").read_text()}

    def may_stay(self, name): return name.endswith(".aml_miner/")  # an empty scratch folder, until the next outcomes come in


class Accepted(Scenario):
    "A batch that the service takes in beside an earlier one: what was sent lies apart, and is sent again."
    def before(self, folder): return self.send(folder, self.inputs.day[3])

    def command(self, folder): return self.send(folder, self.inputs.day[4])

    def send(self, folder, day): return as_command(self._take, BatchStore(folder / "data"), folder / "data" / ".upload", day)

    def _take(self, store, sent, day):
        store.recover()
        shutil.rmtree(sent, ignore_errors=True)
        shutil.copytree(day, sent)
        store.accept(sent)
        shutil.rmtree(sent)

    def seen(self, folder):
        batches = BatchStore(folder / "data").every()
        for batch in batches: assert read_batch(batch.folder).sha256 == batch.sha256
        return {batch.id: batch.content for batch in batches}

    def may_stay(self, name): return name.startswith("data/.upload") or name.endswith(".aml_miner/")  # until the next one is sent


class AddedKey(Scenario):
    "A key beside an earlier one."
    reproducible = False  # each key is drawn

    def before(self, folder): return self.add(folder, "first")

    def command(self, folder): return self.add(folder, "second")

    def add(self, folder, name):
        if name in self.names(folder): return 0  # whoever never saw the key that stands there has to take another name
        return as_command(lambda: add_key(folder / "keys.yaml", name, "read") and None)

    def names(self, folder): return [key.name for key in read_keys(folder / "keys.yaml")] if (folder / "keys.yaml").exists() else []

    def seen(self, folder): return {"names": self.names(folder)}

    def may_stay(self, name): return name.endswith(".aml_miner/")  # an empty scratch folder, until the next key


class Morning(Scenario):
    "A morning as a scheduler starts it: scores, a plan, what is sent, and the page that tells of them."
    def before(self, folder):
        (folder / "team.csv").write_text("reviewer,capacity\nAnn,100\n")
        places = {"batches": str(self.inputs.batches), "models": str(self.inputs.models), "output": "mornings"}
        rest = {"latency": False, "explain_top": 1, "budget": 10, "drift": {"days": 1}, "plan": {"reviewers": "team.csv"}}
        (folder / "morning.yaml").write_text(yaml.safe_dump(places | rest))

    def command(self, folder): return 0 if cli_main(["morning", str(folder / "morning.yaml")]) in (0, 3) else 1

    def seen(self, folder):
        day = folder / "mornings" / read_batch(self.inputs.day[4]).processing_date.isoformat()
        files = {name: tree(day / name) for name in ("scores", "plan", "submission") if (day / name).exists()}
        return files | {name: digest(day / name) for name in ("summary.html", "summary.json") if (day / name).exists()}

    def may_stay(self, name): return name.endswith(".aml_miner/")  # an empty scratch folder beside what was made whole


def known_days(path):
    "What a history holds: day -> its row."
    if not path.exists(): return {}
    with HistoryStore(path) as store: batches = store.batches().drop(columns=["n_profiles", "has_profiles"])
    return {f"{row['processing_date']:%Y-%m-%d}": str(row) for row in batches.to_dict("records")}


class History(Scores):
    "The same with a history: begun from the earlier batches, with this day added, or with days that it lacks."
    reproducible = False  # a DuckDB file

    def __init__(self, inputs, kind):
        super().__init__(inputs)
        self.kind = kind

    def before(self, folder):
        if self.kind != "new": return self.score(folder, self.inputs.day[1 if self.kind == "behind" else 3], "--history", str(folder / "h.duckdb"))

    def command(self, folder):
        earlier = () if self.kind == "add" else ("--history-from", str(self.inputs.batches))
        return self.score(folder, self.inputs.day[4], "--history", str(folder / "h.duckdb"), *earlier)

    def seen(self, folder):
        return super().seen(folder) | {"history": known_days(folder / "h.duckdb")}

    def allows(self, unit, value, before, after):
        if unit != "history" or not before: return super().allows(unit, value, before, after)
        return before.items() <= value.items() <= after.items()  # each day is added whole


class AddedDay(Scenario):
    "A history to which one day is added: the file alone, and what it says of the days before that one."
    reproducible = False  # a DuckDB file

    def before(self, folder): self.add(folder, self.inputs.day[:3])

    def command(self, folder): self.add(folder, self.inputs.day[3:4])

    def add(self, folder, days):
        with HistoryStore(folder / "h.duckdb") as store:
            for day in days: store.add(read_batch(day))

    def seen(self, folder):
        with HistoryStore(folder / "h.duckdb") as store: past = store.past(read_batch(self.inputs.day[3]), 1, 180).fingerprint
        return {"history": known_days(folder / "h.duckdb"), "past": past}


class RepairedHistory(Scenario):
    "A damaged history is built anew from the batches, and kept aside."
    reproducible = False  # a DuckDB file

    def before(self, folder): (folder / "h.duckdb").write_bytes(b"damaged")

    def command(self, folder): open_history(folder / "h.duckdb", self.inputs.batches).close()

    def seen(self, folder):
        path, aside = folder / "h.duckdb", folder / "h.duckdb.damaged"
        kept = {"aside": aside.read_text()} if aside.exists() else {}
        return {"history": "damaged" if path.exists() and path.read_bytes() == b"damaged" else known_days(path)} | kept


class Conversion(Scenario):
    "Transactions converted into an empty folder, or over what was made with other settings."
    def __init__(self, inputs, again):
        super().__init__(inputs)
        self.again = again

    def before(self, folder):
        if self.again: return self.command(folder, "--window-days", "5")

    def command(self, folder, *more): return convert_main([*self.inputs.transactions, "--output", str(folder / "out"), *more])

    def seen(self, folder):
        parts = [p for p in (folder / "out").glob("*") if not p.name.startswith(".")]
        def value(path):
            if path.is_dir(): return tree(path)
            return isinstance(json.loads(path.read_text()), dict) if path.suffix == ".json" else digest(path)  # of the texts only that they are whole
        return {p.name: value(p) for p in parts}

    def allows(self, unit, value, before, after):
        return value is None or super().allows(unit, value, before, after)  # what is of other settings goes before anything is made


class FailedConversion(Conversion):
    "A first conversion whose source breaks off: all that it made goes again, last what says whose folder it is, so that another can begin there."
    def __init__(self, inputs): super().__init__(inputs, again=False)

    def command(self, folder):
        def breaks_off(source, path, out, *more, **files):
            (out / "transactions.parquet").write_bytes(b"half")
            raise ZeroDivisionError
        conversion.read_source = breaks_off  # in this process alone, which is a fork
        out = folder / "out"
        first = not out.exists()
        try: super().command(folder)
        except ZeroDivisionError: return int(first and out.exists())

    def seen(self, folder):
        if (folder / "out").exists(): open_output(folder / "out")
        return {}

    def may_stay(self, name): return name.startswith("out/")  # what the next conversion takes over


class Table(Scenario):
    "A source file read into the table of transactions, over an older table."
    def before(self, folder): (folder / "t.parquet").write_bytes(b"older")

    def command(self, folder):
        table, patterns = (next(self.inputs.source.glob(name)) for name in ("*Trans*", "*atterns*"))
        return as_command(read_amlworld, table, folder / "t.parquet", patterns)

    def seen(self, folder): return {"table": digest(folder / "t.parquet")}


class Simulation(Conversion):
    "Batches simulated into an empty folder, or over others."
    def before(self, folder):
        if self.again: return self.command(folder, seed="9")

    def command(self, folder, seed="4"):
        return simulator.main(["--output", str(folder / "out"), "--days", "2", "--alerts-per-day", "20", "--flows-per-day", "200", "--seed", seed])


class Search(Scenario):
    "A search for better settings, which goes on where it was killed."
    reproducible = False  # the journal tells of the killed run

    def command(self, folder):
        settings = self.inputs.settings("search.yaml", SETTINGS + SEARCH)
        paths = ("--data-dir", str(self.inputs.batches), "--output", str(folder / "best.yaml"), "--config", str(settings))
        return hyperparameter_tuner.main([*paths, "--trials", "2", "--model-type", "scorer"])

    def seen(self, folder):
        best, found = folder / "best.yaml", {}
        if best.exists():
            load_config(best)
            counts = ("trials", "best_trial")  # the trial that was killed, too
            found["settings"] = {name: value for name, value in yaml.safe_load(best.read_text()).items() if name not in counts}
        for page in folder.glob("plots/*.html"): found[page.name] = page.read_text().rstrip().endswith("</html>")
        if (folder / "best.journal").exists(): found["trials"] = self._finished(folder)
        return found

    def _finished(self, folder):
        study = open_study(folder / "best.journal", "scorer", True, {})
        assert count_trials(study)["running"] <= 1
        return [[t.params, t.value] for t in study.get_trials() if t.state.is_finished() and t.state.name != "FAIL"]

    def allows(self, unit, value, before, after):
        return super().allows(unit, value, before, after) if unit != "trials" or value is None else value == after[:len(value)]


class InPlace(Scenario):
    "Writes over the old file, and a temporary one that it forgets: what the harness has to find."
    def before(self, folder): self._write(folder, "old")

    def command(self, folder):
        with tempfile.NamedTemporaryFile("w", prefix=".left.", dir=folder) as f: f.write("temporary")
        self._write(folder, "new")

    def _write(self, folder, word):
        for name in ("a.txt", "b.txt"): (folder / name).write_text(word * 100)

    def seen(self, folder): return {"both": [(folder / name).read_text() for name in ("a.txt", "b.txt")]}


SCENARIOS = {
    "save": Save,
    "ranker": partial(Model, kind="ranker"), "scorer": partial(Model, kind="scorer"), "cluster": partial(Model, kind="cluster"),
    "new_model": partial(Model, kind="scorer", new=True),
    "cache": Cache, "scores": Scores, "outcomes": Outcomes, "morning": Morning, "accepted": Accepted, "key": AddedKey,
    "history_new": partial(History, kind="new"), "history_add": partial(History, kind="add"), "history_behind": partial(History, kind="behind"),
    "history_day": AddedDay, "history_repaired": RepairedHistory,
    "conversion_new": partial(Conversion, again=False), "conversion_again": partial(Conversion, again=True), "conversion_failed": FailedConversion,
    "table": Table,
    "simulation_new": partial(Simulation, again=False), "simulation_again": partial(Simulation, again=True),
    "search": Search,
}
CONTROLS = {"in_place": InPlace}


def fresh(folder, source=None):
    "A folder, empty or a copy."
    shutil.rmtree(folder, ignore_errors=True)
    if source is None: folder.mkdir(parents=True)
    else: shutil.copytree(source, folder)
    return folder
