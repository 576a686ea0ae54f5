"""A few hundred changed models and reports in forks; tests/fuzz/fuzz_models.py does thousands."""
from collections import Counter
import random
import re

from conftest import EVERY
from fuzz.fuzz_models import CHANGES, ROOT, changed_text, is_bad, outcomes, quick_models, sizes_fit, whole_models
import lightgbm as lgb
import pytest

from aml_miner.models.model_text import check_model_text
from aml_miner.scoring.model_set import MODELS


@pytest.fixture(scope="module")
def small(tmp_path_factory): return quick_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def whole(): return whole_models()


@pytest.mark.usefixtures("uncounted")
@pytest.mark.parametrize("what, n", [("texts", 400), ("reports", 60)] if EVERY else [("texts", 120), ("reports", 24)])
def test_whatever_is_read_gives_a_sentence_or_scores(small, whole, what, n, tmp_path):
    found = [*outcomes(small if what == "texts" else whole, what, n, seed=1, keep=tmp_path)]
    assert not [(m.kind, m.how, word, detail) for m, word, detail in found if is_bad(word)]
    counts = Counter(word for _, word, _ in found)
    assert counts["refused"] > n / 4 and counts["same scores"] + counts["other scores"] > n / 20, counts  # both ways are walked
    for mutant, word, detail in found:
        if word == "refused": assert re.match(rf"\S*{mutant.kind}\.(txt|json): \S", detail) and "\n" not in detail, detail


@pytest.mark.usefixtures("uncounted")
def test_what_is_accepted_is_read_by_lightgbm_as_it_stands(small):
    "LightGBM writes the very bytes again: it has read nothing otherwise, and left nothing out."
    rng, accepted = random.Random(5), 0
    for _ in range(300 if EVERY else 100):
        how, text = changed_text(small.text["alert_ranker"], rng)
        try: model = check_model_text(text)
        except ValueError: continue
        accepted += 1
        assert lgb.Booster(model_str=model.text).model_to_string(num_iteration=-1).encode() == text, how
    assert accepted > 3


def test_committed_models_are_accepted_and_score_the_same(whole):
    "Read through the checks and by LightGBM from its file: not a bit of difference."
    for kind, X in whole.X.items():
        path = ROOT / "trained_models" / f"{kind}.txt"
        checked, raw = MODELS[kind].load_model(path, num_threads=1), lgb.Booster(model_file=path)
        assert checked.booster.predict(X, raw_score=True, num_threads=1).tobytes() == raw.predict(X, raw_score=True, num_threads=1).tobytes()
        assert checked.booster.model_to_string(num_iteration=-1) == raw.model_to_string(num_iteration=-1) == path.read_text()


def test_the_sizes_that_fit_are_those_that_were_there(small):
    for text in small.text.values(): assert sizes_fit(text) == text
    assert {change.__name__ for change in CHANGES} >= {"child", "deep", "categories", "parameter"}
