"""The README's commands, one after the other as they are written, in one fresh copy of the project; what they make is what is committed."""
import json
import os
import shutil
import subprocess
import sys

from conftest import ROOT
from make_models import FOLDER, MODELS
import nbformat
import pandas as pd
import pytest
from test_readme import COMMANDS
from test_trained_models import explain, read

from aml_miner.models.model_files import versions
from aml_miner.transactions.amlworld_example import write_amlworld_example

RUN = [c for c in COMMANDS if not c.startswith("make ")]


def write_bank_file(root, source):
    "A bank's CSV of the same payments, and its map."
    rows = pd.read_csv(source, dtype=str)
    bank = {"booked": rows.Timestamp, "from": rows["From Bank"] + "/" + rows.Account, "to": rows["To Bank"] + "/" + rows["Account.1"],
            "amount": rows["Amount Paid"], "currency": rows["Payment Currency"], "kind": rows["Payment Format"], "sar": rows["Is Laundering"]}
    pd.DataFrame(bank).to_csv(root / "bank.csv", index=False)
    (root / "map.yaml").write_text("timestamp: booked\nsource_account: from\ntarget_account: to\namount: amount\ncurrency: currency\n"
                                   "payment_format: kind\nlabels: {flag: sar}\n")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "The project as it is checked out; beside it what a command takes as downloaded."
    root = tmp_path_factory.mktemp("copy")
    made_by_running = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for part in ("nbs", "aml_miner", "data", "trained_models"): shutil.copytree(ROOT / part, root / part, ignore=made_by_running)
    for part in ("settings.ini", "README.md"): shutil.copy(ROOT / part, root)
    write_bank_file(root, write_amlworld_example(root, name="HI-Small")[0])
    (root / "bin").mkdir()
    papermill = root / "bin" / "papermill"
    patient = ROOT / "tests" / "patient_papermill.py"  # which waits for its kernel however busy the machine is
    papermill.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{patient}" "$@"\n')
    ours = root / "bin" / "aml-miner"  # as an installation makes it: tests/check_wheel.py
    ours.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m aml_miner "$@"\n')
    for script in (papermill, ours): script.chmod(0o755)
    return root


def committed(copy, name):
    "Whether runs/ holds the model of trained_models/, with the report and the card; what differs is an error."
    made, kept = read(copy / "runs", name), read(FOLDER, name)
    if json.loads(kept[".json"])["versions"] == versions() and made == kept: return True
    faults = explain(kept, made)
    assert not faults, f"trained_models/{name}: " + "\n  ".join(faults)
    return True


@pytest.mark.parametrize("command", RUN)
def test_command_runs_as_written(command, copy):
    environment = os.environ | {"PATH": os.pathsep.join([str(copy / "bin"), os.path.dirname(sys.executable), os.environ["PATH"]]), "PYTHONPATH": str(copy)}
    done = subprocess.run(["bash", "-c", command], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr and "without encryption" not in done.stderr
    if "out.ipynb" in command:
        outputs = [o for c in nbformat.read(copy / "out.ipynb", 4).cells if c.cell_type == "code" for o in c.outputs]
        assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
        assert sum("image/png" in o.get("data", {}) for o in outputs) >= 1
    name = next((n for n in MODELS if f"runs/{n}.txt" in command and "train" in command), "alert_ranker" if command.endswith("-p cv_folds 5") else None)
    if name: assert committed(copy, name)


def test_every_model_was_made_anew(copy):
    for name in MODELS: assert committed(copy, name)


def test_the_queue_ranks_the_last_day(copy):
    queue = pd.read_parquet(copy / "runs" / "queue" / "alert_rankings.parquet")
    alerts = pd.read_parquet(copy / "my_batches" / "2025-09-15" / "alerts.parquet")
    assert queue["rank"].tolist() == list(range(1, len(queue) + 1)) and set(queue.alert_id) == set(alerts.alert_id)


def test_a_directory_and_a_history_file_give_the_same_scores(copy):
    "The newest day, scored within its directory, and alone with a file that was told of the days before."
    together, alone = (pd.read_parquet(copy / "runs" / folder / "alert_scores.parquet").drop(columns="latency_ms") for folder in ("scores", "today"))
    assert len(alone) > 50 and set(alone.processing_date.astype(str)) == {"2025-09-21"}
    pd.testing.assert_frame_equal(together, alone, check_exact=True)


def test_what_was_tuned_says_what_it_is_worth(copy):
    tuned, comparison = (json.loads((copy / "runs" / f"{name}.json").read_text()) for name in ("tuned_scorer", "comparison"))
    untuned = json.loads((FOLDER / "alert_scorer.json").read_text())
    assert tuned["model_type"] == "alert_scorer" and tuned["config"]["alert_scorer"]["boosting"] != untuned["config"]["alert_scorer"]["boosting"]
    assert set(comparison["test"]["scorings"]) >= {"alert_scorer", "alert_ranker"}


def test_transactions_became_batches(copy):
    for folder in ("aml_batches", "bank_batches"): assert len(list((copy / "runs" / folder).rglob("alerts.parquet"))) >= 5
