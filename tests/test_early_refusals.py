"What cannot be written, or could never be read back, is told before any data is loaded or any tree is grown."
import importlib

import numpy as np
import pandas as pd
import pytest

from aml_miner.config.model_config import load_config
from aml_miner.models import AlertRankerModel, AlertScorerModel, ClusterScorerModel
from aml_miner.training.train_cluster_scorer import train_cluster_scorer
from aml_miner.training.train_ranker import train_alert_ranker
from aml_miner.training.train_scorer import train_alert_scorer

COMMANDS = {
    "training.train_scorer": ["--data-dir", "none", "--output", "{out}/m.txt"],
    "training.train_ranker": ["--data-dir", "none", "--output", "{out}/m.txt"],
    "training.train_cluster_scorer": ["--data-dir", "none", "--output", "{out}/m.txt"],
    "training.hyperparameter_tuner": ["--data-dir", "none", "--model-type", "scorer", "--output", "{out}/best.yaml"],
    "training.hyperparameter_tuner --storage": ["--data-dir", "none", "--model-type", "scorer", "--output", "best.yaml", "--storage", "{out}/s.journal"],
    "training.hyperparameter_tuner --plots": ["--data-dir", "none", "--model-type", "scorer", "--output", "best.yaml", "--plots", "{out}/plots"],
    "scoring.score_batch": ["--batch-dir", "none", "--output-dir", "{out}/scores"],
    "scoring.compare": ["--data-dir", "none", "--models", "none", "--output", "{out}/c.json"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_that_cannot_be_written_is_told_first(name, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"file").write_text("")
    main = importlib.import_module(f"aml_miner.{name.split()[0]}").main
    assert main([a.format(out=tmp_path/"file") for a in COMMANDS[name]]) == 2
    assert f"cannot be written ({tmp_path/'file'} is no folder)" in capfd.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


CONFIG = load_config(overrides={
    "alert_ranker": {"rivals": [], "boosting": {"n_estimators": 3}}, "alert_scorer": {"boosting": {"n_estimators": 3}},
    "cluster_scorer": {"boosting": {"n_estimators": 3}},
    "training": {"cv_folds": 0, "bootstrap_samples": 5, "num_threads": 1}})
KEPT = ("volume_usd", "VOLUME_USD", "金额", "é", "a=b", "a\\b", "(b)", "b%", "#b", "'b'", "b\u00a0c", "b\u2028c", "tree", "feature_names", "-1", "nan",
        "x" * 3000)
TRAINERS = {"scorer": (train_alert_scorer, {}, AlertScorerModel), "ranker": (train_alert_ranker, {"groups": [50] * 6}, AlertRankerModel),
            "cluster scorer": (train_cluster_scorer, {}, ClusterScorerModel)}


def table(rng, names=KEPT):
    X = pd.DataFrame(rng.normal(size=(300, len(names))), columns=list(names))
    return X, (X.iloc[:, 0] + rng.normal(size=300) > 1).astype(int).to_numpy()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", TRAINERS)
def test_every_name_that_is_taken_can_be_read_back(kind, tmp_path):
    X, y = table(np.random.default_rng(0))
    X = X.assign(whole=pd.array(np.arange(300) % 7, dtype="Int64"), flag=X["é"] > 0, word=pd.Categorical(np.where(X["é"] > 0, 'say "ü",\n', "b")))
    train, more, model_class = TRAINERS[kind]
    model = train(X, y, config=CONFIG, **more)
    model.save_model(tmp_path/"m.txt")
    again = model_class.load_model(tmp_path/"m.txt")
    assert again.feature_names == list(X) and np.array_equal(again.predict(X), model.predict(X))


@pytest.mark.parametrize("kind", TRAINERS)
def test_what_no_model_could_keep_is_refused_before_training(kind):
    X, y = table(np.random.default_rng(0), ("a", "b", "c"))
    train, more, _ = TRAINERS[kind]
    for wrong, words in ((X.rename(columns={"b": "b b"}), "column 'b b' of X cannot be named so: it holds ' '"), (X.rename(columns={"b": 'b"'}), "holds '\"'"),
                         (X[["a", "b", "a"]], "column 'a' of X is there twice"), (X[[]], "X has 0 columns"),
                         (X.set_axis(range(3), axis=1), "column 0 of X cannot be named so: it is a int"),
                         (X.assign(b=pd.Timestamp("2025-01-01")), "column 'b' of X is datetime64"), (X.assign(b="text"), "column 'b' of X is"),
                         (X.assign(b=pd.Categorical(X.b > 0)), "column 'b' of X has the category")):
        with pytest.raises(ValueError) as e: train(wrong, y, config=CONFIG, **more)
        assert words in str(e.value)
