"""The committed models are whole, and belong with their reports, cards and picture. That the code still makes them: test_commands."""
import hashlib
import json
import platform

from make_models import FILES, FOLDER, MODELS, PICTURE, gain_picture
import pytest

from aml_miner.models.model_card import model_card

ROUNDED_ALIKE = 6  # significant digits: numbers that agree in so many were made by the same rules from the same data
REMAKE = "`make models` makes them anew; look at `git diff trained_models` before committing"


def read(folder, name): return {suffix: (folder / f"{name}{suffix}").read_bytes() for suffix in FILES}


def differing(old, new, path=""):
    "Where two reports differ: key path, old and new value."
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [line for key in keys for line in differing(old.get(key, "absent"), new.get(key, "absent"), f"{path}.{key}".lstrip("."))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for i, pair in enumerate(zip(old, new)) for line in differing(*pair, f"{path}[{i}]")]
    if old == new: return []
    return [f"{path}: {str(old)[:60]} -> {str(new)[:60]}" + (f", other from significant digit {digit} on" if (digit := parting_digit(old, new)) else "")]


def parting_digit(old, new):
    "The first significant digit in which two numbers differ, of the twelve that a report keeps; None for what are no numbers."
    if not all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (old, new)): return None
    (a, power), (b, other) = (f"{x:+.11e}".replace(".", "").split("e") for x in (old, new))
    return next((i for i, pair in enumerate(zip(a, b)) if pair[0] != pair[1]), 12) or 1 if power == other else 1


def only_rounding(old, new):
    "Whether two reports differ in nothing but late digits of numbers."
    if isinstance(old, dict) and isinstance(new, dict): return old.keys() == new.keys() and all(only_rounding(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list): return len(old) == len(new) and all(map(only_rounding, old, new))
    return old == new or (parting_digit(old, new) or 0) > ROUNDED_ALIKE


def explain(old, new):
    "What is to be said of committed files that are not those just made; empty where only the versions differ."
    was, now = json.loads(old[".json"]), json.loads(new[".json"])
    content = [{k: v for k, v in report.items() if k != "versions"} for report in (was, now)]
    other = differing(*content)
    if not other: return [] if old[".txt"] == new[".txt"] else ["the model text was edited: its report is the same"]
    stages = {"data": "the batches", "config": "the settings", "features": "the columns", "feature_groups": "the meaning of columns", "split": "the split",
              "model_sha256": "the trees", "test": "the judgement on test dates"}
    changed = [words for key, words in stages.items() if any(line.split(".")[0].split("[")[0].split(":")[0] == key for line in other)]
    moved = differing(was["versions"], now["versions"])
    if only_rounding(*content):
        machine = f"{platform.machine()}, {'; '.join(moved) or 'the same versions'}"
        return [
            f"differs in late digits only; {len(other)} values, the first:", *other[:8],
            f"nothing is wrong with this machine: a library that it has rounds otherwise ({machine}), "
            "see nbs/_docs/pages/explanations/determinism.md for what is promised", REMAKE,
        ]
    unmoved = "the same, so the code or data/sample changed, or a library of this machine rounds otherwise, which is no fault of the machine"
    return [
        f"differs in {', '.join(changed) or 'the report'}; {len(other)} values, the first:", *other[:8],
        "versions: " + ("; ".join(moved) or unmoved), REMAKE,
    ]


def test_nothing_is_there_that_is_not_listed():
    assert sorted(p.name for p in FOLDER.iterdir()) == sorted([PICTURE, *(f"{name}{suffix}" for name in MODELS for suffix in FILES)])


@pytest.mark.parametrize("name", MODELS)
def test_files_of_a_model_belong_together(name):
    files = read(FOLDER, name)
    report = json.loads(files[".json"])
    assert report["model_type"] == name
    assert hashlib.sha256(files[".txt"]).hexdigest() == report["model_sha256"], f"{name}.txt is not the model of its report"
    assert "undescribed" not in [group["group"] for group in report["feature_groups"]]
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


@pytest.mark.parametrize("old, new, digit", [
    (.0552461534008, .0552461534011, 11), (.9, .8, 1), (1.0, .99999999, 1), (1.5, -1.5, 1), (0.0, 1e-9, 1), (100, 101, 3),
    (True, 1.5, None), ("a", .5, None), (None, .5, None),
])
def test_the_digit_is_named(old, new, digit): assert parting_digit(old, new) == digit


def test_a_last_digit_is_no_fault_of_the_machine():
    report = {"versions": {"numpy": "2.4.6"}, "model_sha256": "a", "test": {"auc": [.9, .0552461534008]}}
    files = lambda r: {".json": json.dumps(r).encode(), ".txt": b"tree"}
    said = explain(files(report), files(report | {"test": {"auc": [.9, .0552461534011]}}))
    assert "test.auc[1]: 0.0552461534008 -> 0.0552461534011, other from significant digit 11 on" in said and "nothing is wrong with this machine" in said[-2]
    for other in ({"test": {"auc": [.9, .0553]}}, {"model_sha256": "b"}):
        assert "nothing is wrong" not in "".join(explain(files(report), files(report | other)))
