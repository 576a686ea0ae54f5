"""The committed models are whole, and belong with their reports, cards and picture. That the code still makes them: test_commands."""
import hashlib
import json

from make_models import FILES, FOLDER, MODELS, PICTURE, gain_picture
import pytest

from aml_miner.models.model_card import model_card

REMAKE = "`make models` makes them anew; look at `git diff trained_models` before committing"


def read(folder, name): return {suffix: (folder / f"{name}{suffix}").read_bytes() for suffix in FILES}


def differing(old, new, path=""):
    "Where two reports differ: key path, old and new value."
    if isinstance(old, dict) and isinstance(new, dict):
        return [line for key in sorted(old.keys() | new.keys()) for line in differing(old.get(key, "absent"), new.get(key, "absent"), f"{path}.{key}".lstrip("."))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for i, pair in enumerate(zip(old, new)) for line in differing(*pair, f"{path}[{i}]")]
    return [] if old == new else [f"{path}: {str(old)[:60]} -> {str(new)[:60]}"]


def explain(old, new):
    "What is to be said of committed files that are not those just made; empty where only the versions differ."
    was, now = json.loads(old[".json"]), json.loads(new[".json"])
    other = [line for line in differing({k: v for k, v in was.items() if k != "versions"}, {k: v for k, v in now.items() if k != "versions"})]
    if not other: return [] if old[".txt"] == new[".txt"] else ["the model text was edited: its report is the same"]
    stages = {"data": "the batches", "config": "the settings", "features": "the columns", "feature_groups": "the meaning of columns", "split": "the split",
              "model_sha256": "the trees", "test": "the judgement on test dates"}
    changed = [words for key, words in stages.items() if any(line.split(".")[0].split("[")[0].split(":")[0] == key for line in other)]
    moved = differing(was["versions"], now["versions"])
    return [f"differs in {', '.join(changed) or 'the report'}; {len(other)} values, the first:", *other[:8],
            "versions: " + ("; ".join(moved) if moved else "the same, so the code or data/sample changed, or this machine rounds otherwise"), REMAKE]


def test_nothing_is_there_that_is_not_listed():
    assert sorted(p.name for p in FOLDER.iterdir()) == sorted([PICTURE, *(f"{name}{suffix}" for name in MODELS for suffix in FILES)])


@pytest.mark.parametrize("name", MODELS)
def test_files_of_a_model_belong_together(name):
    files = read(FOLDER, name)
    report = json.loads(files[".json"])
    assert report["model_type"] == name
    assert hashlib.sha256(files[".txt"]).hexdigest() == report["model_sha256"], f"{name}.txt is not the model of its report"
    assert files[".md"].decode() == model_card(report), f"{name}.md is not the card of its report; {REMAKE}"


def test_the_picture_is_drawn_from_the_report():
    drawn = gain_picture(json.loads((FOLDER / "alert_ranker.json").read_text()))
    assert drawn == (FOLDER / PICTURE).read_bytes(), f"{PICTURE} is not what the report gives; {REMAKE}"


def test_differences_are_named():
    report = {"versions": {"lightgbm": "4.7.0"}, "data": {"rows": [1, 2]}, "model_sha256": "a", "test": {"auc": .9}}
    files = lambda r, text="tree": {".json": json.dumps(r).encode(), ".txt": text.encode()}
    other = report | {"versions": {"lightgbm": "4.6.0"}}
    assert explain(files(report), files(report)) == [] and explain(files(other), files(report)) == []
    assert "edited" in explain(files(report, "tre"), files(report))[0]
    said = "\n".join(explain(files(other | {"model_sha256": "b", "data": {"rows": [1, 3]}}), files(report)))
    for words in ("the batches, the trees", "data.rows[1]: 3 -> 2", "lightgbm: 4.6.0 -> 4.7.0", "make models"): assert words in said, said
