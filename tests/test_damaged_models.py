"""Damaged models, whose reports' hashes fit, for every entry that reads a model: each answers with one sentence, and no process dies of it."""
import ast
from contextlib import redirect_stderr
import hashlib
from io import StringIO
import json
from pathlib import Path
import random
import re
import shutil
from tempfile import TemporaryDirectory
from threading import Lock
from types import SimpleNamespace

from conftest import ROOT, run_coroutine, run_papermill, run_warm, some
from fastapi import APIRouter
from fuzz.forked import run_forked
from fuzz.fuzz_models import CHANGES, sizes_fit
import pytest

from aml_miner.batches.loader import read_batch
from aml_miner.config.model_config import load_config
from aml_miner.models.model_loading import ModelFileError, read_json, read_model, read_report
from aml_miner.models.model_text import check_model_text
from aml_miner.models.scoring_model import ScoringModel
from aml_miner.morning.run import morning_of_notebook, run_morning
from aml_miner.morning.settings import read_morning_settings
from aml_miner.scoring.compare import find_models, main as compare_main, read_models
from aml_miner.scoring.model_set import MODELS, load_model, load_models
from aml_miner.cli.tree import main as aml_miner
from aml_miner.scoring.score_batch import main as score_main, score_batch
from aml_miner.scoring.shadow_days import alert_models, follow_shadow
from aml_miner.service.app import make_app
from aml_miner.service.batch_scoring import ScoringSettings
from aml_miner.service.core import Service, ServiceSettings
from aml_miner.service.metrics import Metrics
from aml_miner.service.model_holder import ModelHolder, load_set
from aml_miner.service.operation_routes import add_models
from aml_miner.service.problems import Problem
from aml_miner.service.server import run_service
from aml_miner.submission.behaviour import read_earlier
from aml_miner.submission.scored_files import read_submission
from aml_miner.submission.validate import validate_submission
from aml_miner.testing.small_models import small_models
from aml_miner.training.commands import verify
from aml_miner.training.verify import verify_model

DOORS = ("models.model_loading.read_model", "models.model_loading.read_report", "models.model_loading.read_json")  # where files of models are opened
ALERT_MODELS = ("alert_scorer", "alert_ranker")
BATCH = ROOT / "data/sample/2025-09-05"


# Every entry, with how it is asked for a model: `folder` holds three models, of which the one named `kind` is damaged.


def score_command(folder, kind):
    return command_line(score_main, "--batch-dir", BATCH, "--models-dir", folder, "--output-dir", folder / "scores")


def compare_command(folder, kind):
    return command_line(compare_main, "--data-dir", BATCH.parent, "--models", folder / f"{kind}.txt", "--output", folder / "c.json")


def command_line(main, *args):
    "What a command says as it ends with exit code 2, as the error that it is."
    with redirect_stderr(StringIO()) as log: code = main([*map(str, args)])
    if code == 2: raise ModelFileError(log.getvalue().rstrip("\n").rpartition("\n")[2])
    return code


def morning_file(folder):
    "Settings of a morning with these models."
    file = folder.parent / "morning.yaml"
    file.write_text(f"batches: {BATCH.parent}\nmodels: {folder}\noutput: mornings\n")
    return file


def service_settings(folder):
    return ServiceSettings(folder, folder.parent / "served", ScoringSettings(load_config().review))


def running_service(folder):
    "A service that began with other models, and reads the folder next."
    holder, service = object.__new__(ModelHolder), object.__new__(Service)
    vars(holder).update(folder=folder, num_threads=1, _lock=Lock(), fault=None, current=SimpleNamespace(id="old", files={}))
    vars(service).update(settings=SimpleNamespace(keys_file=None), models=holder, metrics=Metrics(), keys=None)
    return service


def reload_route(service):
    "What a request to read the models again does."
    router = APIRouter()
    add_models(router, service)
    return lambda: run_coroutine(next(route.endpoint for route in router.routes if route.path == "/v1/models/reload")())


def reload_refused(holder):
    "What a holder says, as the error that it is."
    if not holder.reload() and holder.fault: raise ModelFileError(holder.fault)


def told(reload):
    "What a client is told of models, as the error that it is."
    try: return reload()
    except Problem as e: raise ModelFileError(e.faults[-1]["message"]) from None


def beside_scores(ask, report=None):
    "Ask with a folder of scores, which holds the report as scores.json where one is given."
    with TemporaryDirectory() as folder:
        (Path(folder) / "alert_scores.parquet").touch()
        if report: shutil.copy(report, Path(folder) / "scores.json")
        return ask(folder)


def up_to_batches(ask):
    "Verify a model that was trained on a table: once its report is read, there is nothing to train from."
    try: ask()
    except ModelFileError: raise
    except ValueError as e: assert "names no batches" in str(e)


READERS = {  # entries that give a whole model
    "models.model_loading.read_model": lambda folder, kind: read_model(folder / f"{kind}.txt", kind),
    "models.scoring_model.ScoringModel.load_model": lambda folder, kind: ScoringModel.load_model(folder / f"{kind}.txt"),
    **{f"{model.__name__}.load_model": lambda folder, kind: MODELS[kind].load_model(folder / f"{kind}.txt") for model in MODELS.values()},
    "scoring.model_set.load_model": lambda folder, kind: load_model(folder / f"{kind}.txt"),
    "scoring.model_set.load_models": lambda folder, kind: load_models(folder),
    "scoring.compare.read_models": lambda folder, kind: read_models([folder / f"{kind}.txt"]),
    "scoring.shadow_days.alert_models": lambda folder, kind: alert_models(folder),
}
USERS = {  # entries that do more with it
    "morning.commands.morning": lambda folder, kind: command_line(aml_miner, "morning", morning_file(folder)),
    "morning.run.morning_of_notebook": lambda folder, kind: morning_of_notebook(str(morning_file(folder))),
    "morning.run.run_morning": lambda folder, kind: run_morning(read_morning_settings(morning_file(folder))),
    "scoring.commands.compare": lambda folder, kind: command_line(
        aml_miner, "compare", "--data-dir", BATCH.parent, "--models", folder / f"{kind}.txt", "--output", folder / "c.json"),
    "scoring.commands.score": lambda folder, kind: command_line(aml_miner, "score", "--data-dir", BATCH, "--models", folder, "--output", folder / "scores"),
    "scoring.commands.shadow": lambda folder, kind: command_line(
        aml_miner, "review", "shadow", "--data-dir", BATCH.parent, "--shadow", folder, "--output", folder / "shadow"),
    "scoring.compare.main": compare_command,
    "scoring.score_batch.score_batch": lambda folder, kind: score_batch(BATCH, folder, folder / "scores"),
    "scoring.score_batch.main": score_command,
    "scoring.shadow_days.follow_shadow": lambda folder, kind: follow_shadow(BATCH.parent, folder, folder / "shadow", folder, load_config().review, 10.),
    "service.app.make_app": lambda folder, kind: make_app(service_settings(folder)),
    "service.commands.serve": lambda folder, kind: command_line(
        aml_miner, "serve", "--data", folder.parent / "served", "--models", folder, "--insecure-local", "--port", "0"),
    "service.core.Service.reload": lambda folder, kind: told(running_service(folder).reload),
    "service.model_holder.ModelHolder.reload": lambda folder, kind: reload_refused(running_service(folder).models),
    "service.model_holder.load_set": lambda folder, kind: load_set(folder),
    "service.operation_routes.add_models": lambda folder, kind: told(reload_route(running_service(folder))),
    "service.server.run_service": lambda folder, kind: run_service(service_settings(folder), port=0),
    "submission.commands.validate": lambda folder, kind: beside_scores(
        lambda scores: command_line(aml_miner, "validate", scores, "--batch", BATCH, "--models", folder)),
    "submission.validate.validate_submission": lambda folder, kind: beside_scores(lambda scores: validate_submission(scores, BATCH, folder)),
}
REPORT_READERS = {  # entries that look into a report alone
    "models.model_loading.read_json": lambda folder, kind: read_json(folder / f"{kind}.json"),
    "models.model_loading.read_report": lambda folder, kind: read_report(folder / f"{kind}.txt"),
    "scoring.compare.find_models": lambda folder, kind: find_models([folder]),
    "submission.behaviour.read_earlier": lambda folder, kind: read_earlier([], None),
    "submission.scored_files.read_submission": lambda folder, kind: beside_scores(read_submission, folder / f"{kind}.json"),
    "training.commands.verify": lambda folder, kind: up_to_batches(lambda: verify(folder / f"{kind}.txt", data_dir=BATCH)),
    "training.verify.verify_model": lambda folder, kind: up_to_batches(lambda: verify_model(folder / f"{kind}.txt", BATCH)),
}
NOTEBOOKS = {  # notebooks to run that read models
    "nbs/05_score_batch.ipynb": lambda folder, kind: ("-p", "models_dir", folder, "-p", "batch_dir", BATCH, "-p", "output_dir", folder / "scores"),
    "nbs/10_morning.ipynb": lambda folder, kind: ("-p", "settings", morning_file(folder)),
    "nbs/06_evaluate_models.ipynb": lambda folder, kind: ("-y", f"models: [{folder / kind}.txt]", "-p", "output", folder / "c.json"),
}
ONLY = {  # kinds that an entry takes, where it does not take all
    **{f"{model.__name__}.load_model": (name,) for name, model in MODELS.items()},
    "models.scoring_model.ScoringModel.load_model": ALERT_MODELS,
    "scoring.compare.read_models": ALERT_MODELS,
    "scoring.shadow_days.alert_models": ALERT_MODELS,
    "scoring.compare.main": ALERT_MODELS,
    "scoring.commands.compare": ALERT_MODELS,
}


def source_readers():
    "Public functions and methods of the package, and notebooks to run, from which a call leads to one of `DOORS`, over however many functions."
    uses, names = {}, {}
    for path in sorted((ROOT / "aml_miner").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT / "aml_miner").with_suffix("").parts)
        names[module], functions = module_names(ast.parse(path.read_text()), module)
        uses |= functions
    reached = {*DOORS}
    while more := {f for f, (module, body) in uses.items() if f not in reached and leads_to(body, names[module], reached)}: reached |= more
    notebooks = {path for path, (known, body) in run_notebooks().items() if leads_to(body, known, reached)}
    return {f for f in reached if not f.rpartition(".")[2].startswith("_")} | notebooks


def module_names(tree, module):
    "The names that a module knows, and its functions: dotted name -> (module, body)."
    known, functions = {}, {}
    for part in ast.walk(tree):
        if isinstance(part, ast.ImportFrom): known |= {alias.asname or alias.name: f"{imported_module(part, module)}.{alias.name}" for alias in part.names}
    for part in tree.body:
        if isinstance(part, (ast.FunctionDef, ast.ClassDef)): known[part.name] = f"{module}.{part.name}"
        if isinstance(part, ast.FunctionDef): functions[f"{module}.{part.name}"] = (module, part)
        if isinstance(part, ast.ClassDef): functions |= {f"{module}.{part.name}.{f.name}": (module, f) for f in part.body if isinstance(f, ast.FunctionDef)}
    return known, functions


def imported_module(part, module):
    "The module that is imported from, without the package's name."
    if not part.level: return (part.module or "").removeprefix("aml_miner.")
    return ".".join([*module.split(".")[:-part.level], *filter(None, [part.module])])


def leads_to(body, known, reached):
    "Whether code names a function that is reached, or a method of that name."
    methods = {f.rpartition(".")[2] for f in reached if f.count(".") == 3}
    for part in ast.walk(body):
        if isinstance(part, ast.Name) and known.get(part.id) in reached or isinstance(part, ast.Attribute) and part.attr in methods: return True
    return False


def run_notebooks():
    "Notebooks to run: path -> (names they know, code)."
    found = {}
    for path in sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb")):
        tree = ast.parse("\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"))
        found[path.relative_to(ROOT).as_posix()] = (module_names(tree, "notebook")[0], tree)
    return found


def test_every_entry_is_in_the_list():
    "A new function, command or notebook that reads a model gets its line in one of the tables above, and with it all damages."
    subclasses = {f"{model.__name__}.load_model" for model in MODELS.values()}
    assert source_readers() == {*READERS, *USERS, *REPORT_READERS, *NOTEBOOKS} - subclasses


# What is done to a model. Where a text is changed, the report's hash is that of the changed text.


def fuzzed(change):
    "The text after the first change of a kind that is no model any more."
    def other(text, seed=0):
        rng = random.Random(f"{change.__name__} {seed}")
        text_after = sizes_fit(change(text, rng))
        try: check_model_text(text_after)
        except ValueError: return text_after
        return other(text, seed + 1)
    return other


TEXTS = {  # name: change of the text
    "cut to two thirds": lambda t: t[:len(t) * 2 // 3],
    "cut in its trees": lambda t: t[:t.rindex(b"leaf_value")],
    "without its last byte": lambda t: t[:-1],
    "empty": lambda t: b"",
    "no number": lambda t: re.sub(rb"leaf_value=\S+", b"leaf_value=nan", t, count=1),
    "child far away": lambda t: re.sub(rb"left_child=\S+", b"left_child=70000", t, count=1),
    "NUL byte": lambda t: t + b"\0",
    **{f"fuzz: {change.__name__}": fuzzed(change) for change in dict.fromkeys(CHANGES)},
}
REPORTS = {  # name: change of the report
    "LightGBM 2.0.0": lambda r: r | {"versions": r["versions"] | {"lightgbm": "2.0.0"}},
    "without versions": lambda r: {key: value for key, value in r.items() if key != "versions"},
    "another's features": lambda r: r | {"features": ["pagerank", *r["features"][1:]]},
    "hash of another": lambda r: r | {"model_sha256": "0" * 64},
}


@pytest.fixture(scope="module")
def models(sample, tmp_path_factory):
    "Three small models; their reports name training dates, as a comparison asks for."
    folder = small_models(tmp_path_factory.mktemp("models"), [read_batch(sample / day) for day in ("2025-09-03", "2025-09-04")], trees=40)
    side = {"first": "2025-09-03", "last": "2025-09-04", "dates": 2, "rows": 99}
    split = {"train": side, "test": side, "method": "dates", "reason": ""}
    for path in folder.glob("*.json"): path.write_text(json.dumps(json.loads(path.read_text()) | {"split": split}))
    return folder


def damaged(models, folder, kind, name):
    "A folder of three models, one of them damaged."
    shutil.copytree(models, folder, dirs_exist_ok=True)
    path = folder / f"{kind}.txt"
    text, report = path.read_bytes(), json.loads(path.with_suffix(".json").read_text())
    if name in TEXTS:
        text = TEXTS[name](text)
        report["model_sha256"] = hashlib.sha256(text).hexdigest()
    else: report = REPORTS[name](report)
    path.write_bytes(text)
    path.with_suffix(".json").write_text(json.dumps(report))
    return folder


def takes(entry, kind): return kind in ONLY.get(entry, MODELS)


def used(entry, folder, kind):
    "Ask an entry; its value is thrown away."
    (READERS | USERS | REPORT_READERS)[entry](folder, kind)


@pytest.mark.parametrize("kind", MODELS)
def test_a_whole_model_is_taken_by_every_entry(models, tmp_path, kind):
    "Or else a refusal would show nothing."
    shutil.copytree(models, tmp_path / "m")
    for entry in [e for e in READERS | REPORT_READERS if takes(e, kind)]:
        found = run_forked(used, entry, tmp_path / "m", kind, refusals=(ModelFileError,))
        assert found.kind == "value", (entry, found)


@pytest.mark.parametrize("name", some([*TEXTS, *REPORTS], 12))
def test_every_entry_refuses_a_damaged_model_in_one_sentence(models, tmp_path, name):
    "Every entry meets every damage, of the kinds of models in turn."
    folders = {kind: damaged(models, tmp_path / kind / "m", kind, name) for kind in MODELS}
    for turn, entry in enumerate([*READERS, *USERS], [*TEXTS, *REPORTS].index(name)):
        kinds = [kind for kind in MODELS if takes(entry, kind)]
        kind = kinds[turn % len(kinds)]
        found = run_forked(used, entry, folders[kind], kind, refusals=(ModelFileError,))
        assert found.kind == "refused" and re.search(rf"{kind}\.(txt|json): \S", found.detail) and "\n" not in found.detail, (entry, kind, found)
    for kind, folder in folders.items():
        for entry in REPORT_READERS:
            found = run_forked(used, entry, folder, kind, refusals=(ModelFileError,))
            assert not found.bad, (entry, found)
        assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in models.iterdir()), "something was written"


@pytest.mark.parametrize("name", ["cut to two thirds", "LightGBM 2.0.0"])
@pytest.mark.parametrize("module, args", [
    ("aml_miner.scoring.score_batch", ("--batch-dir", BATCH, "--output-dir", "out", "--models-dir", "m")),
    ("aml_miner.scoring.compare", ("--data-dir", BATCH.parent, "--output", "c.json", "--models", "m/alert_scorer.txt")),
])
def test_commands_end_with_a_line_and_exit_code_2(models, tmp_path, module, args, name):
    damaged(models, tmp_path / "m", "alert_scorer", name)
    done = run_warm("-m", module, *args, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1, (done.returncode, done.stderr)
    assert re.search(r"alert_scorer\.txt: (cut short|made with LightGBM 2\.0\.0)", done.stderr), done.stderr


@pytest.mark.parametrize("name", ["cut to two thirds", "LightGBM 2.0.0"])
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_notebooks_stop_with_the_sentence_and_their_kernel_lives(models, tmp_path, notebook, name):
    folder = damaged(models, tmp_path / "m", "alert_scorer", name)
    done = run_papermill(ROOT / notebook, tmp_path / "out.ipynb", *NOTEBOOKS[notebook](folder, "alert_scorer"))
    assert done.returncode != 0 and "DeadKernel" not in done.stderr, done.stderr[-500:]
    assert re.search(r"ModelFileError: \S*alert_scorer\.txt: (cut short|made with LightGBM 2\.0\.0)", done.stderr), done.stderr[-500:]
