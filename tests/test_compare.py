"""The comparison as its users run it: papermill, command line, wrong input, other folders and thread counts."""
import json
import shutil

from conftest import ROOT, run_module, run_papermill, run_warm
import nbformat
import pytest

from aml_miner.scoring.compare import main

NOTEBOOK = ROOT / "nbs" / "06_evaluate_models.ipynb"
COMMAND = ("-m", "aml_miner.scoring.compare")


@pytest.fixture(scope="module")
def two_models(twelve_days, tmp_path_factory):
    "Two rankers of some days of the sample, quickly trained."
    folder = tmp_path_factory.mktemp("models")
    for name, objective in (("old", "binary"), ("new", "lambdarank")):
        config = folder / f"{name}.yaml"
        config.write_text("alert_ranker: {rivals: [], boosting: {n_estimators: 20}}\ntraining: {cv_folds: 0, bootstrap_samples: 20}\n")
        done = run_warm("-m", "aml_miner.training.train_ranker", "--data-dir", twelve_days, "--output", folder / f"{name}.txt", "--config", config,
                          "--objective", objective, "--num-threads", 1)
        assert done.returncode == 0, done.stderr
    return [folder / "old.txt", folder / "new.txt"]


@pytest.fixture(scope="module")
def compared(twelve_days, two_models, tmp_path_factory):
    output = tmp_path_factory.mktemp("compared") / "c.json"
    done = run_warm(*COMMAND, "--data-dir", twelve_days, "--models", *two_models, "--output", output)
    assert done.returncode == 0, done.stderr
    return output


def test_figures_are_those_of_the_reports(two_models, compared):
    "The test dates of the training are the dates that are judged here: both paths must measure the same."
    comparison = json.loads(compared.read_text())
    for path in two_models:
        report = json.loads(path.with_suffix(".json").read_text())
        of_training, here = report["test"]["scorings"][report["objective"]], comparison["test"]["scorings"][path.stem]
        assert {m: f["value"] for m, f in of_training.items()} == {m: f["value"] for m, f in here.items()}
        assert comparison["models"][path.stem]["model_sha256"] == report["model_sha256"]
    assert comparison["test"]["first_day"] > comparison["models"]["old"]["trained_until"]
    assert "new" in comparison["verdict"] and "old" in comparison["verdict"]


def test_place_and_order_of_folders_do_not_matter(twelve_days, two_models, compared, tmp_path):
    moved = tmp_path / "moved"
    for i, batch in enumerate(sorted(twelve_days.glob("2*"), reverse=True)): shutil.copytree(batch, moved / f"{i:02}" / batch.name[::-1])
    done = run_module(*COMMAND, "--data-dir", "moved", "--models", *two_models, "--output", "c.json", cwd=tmp_path, PYTHONHASHSEED=7)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "c.json").read_bytes() == compared.read_bytes()


def test_papermill_makes_the_same_bytes(twelve_days, two_models, compared, tmp_path):
    executed = tmp_path / "out.ipynb"
    models = ", ".join(map(str, two_models))
    done = run_papermill(NOTEBOOK, executed, "-p", "data_dir", twelve_days, "-p", "output", tmp_path / "c.json", "-y", f"models: [{models}]")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "c.json").read_bytes() == compared.read_bytes()
    outputs = [o for c in nbformat.read(executed, 4).cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 4


@pytest.mark.parametrize("args, message", [
    (("--models", "absent.txt"), "absent.json: absent"),
    (("--models", "data"), "no model of alerts in this folder"),
    (("--models", "trained_models", "--first-day", "2025-09-02"), "no later date"),
    (("--models", "trained_models", "--first-day", "soon"), "soon"),
    (("--models", "trained_models", "--data-dir", "absent"), "absent"),
    (("--models", "trained_models", "--config", "absent.yaml"), "absent.yaml"),
])
def test_wrong_arguments_are_named(args, message, refused, tmp_path):
    assert message in refused(main, "--data-dir", "data/sample", *args, "--output", tmp_path / "c.json")
    assert list(tmp_path.iterdir()) == []
