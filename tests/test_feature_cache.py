"""What the feature cache must not do: change a result, serve old code, fail a run, or fight with another process."""
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys

from conftest import ROOT, run_module, run_warm
import pandas as pd
import pytest

from aml_miner.batches.loader import BatchDataLoader
from aml_miner.config.model_config import load_config
from aml_miner.features.feature_builder import FeatureBuilder
from aml_miner.features.feature_cache import FeatureCache, _sources

COMMANDS = {"scorer": ("aml_miner.training.train_scorer", "--cv-folds", "0"), "cluster": ("aml_miner.training.train_cluster_scorer", "--cv-folds", "0"),
            "compare": ("aml_miner.scoring.compare", "--models", ROOT / "trained_models" / "alert_scorer.txt")}
USED = re.compile(r"features of (\d+) of (\d+) batches read")
SMALL = """training: {bootstrap_samples: 0, num_threads: 1}
alert_scorer: {boosting: {n_estimators: 10}}
cluster_scorer: {boosting: {n_estimators: 10}}
"""


@pytest.fixture(scope="module")
def few(sample, tmp_path_factory):
    "The last days of the sample, that nothing was trained on."
    folder = tmp_path_factory.mktemp("few")
    for day in sorted(p for p in sample.iterdir() if p.is_dir())[-4:]: shutil.copytree(day, folder / day.name)
    return folder


@pytest.mark.parametrize("kind", [*COMMANDS])
def test_no_byte_depends_on_the_cache(kind, few, tmp_path):
    def run(name, cache, settings=SMALL):
        "The bytes of what was written, by name; what the log says of the cache."
        target, config = tmp_path / name, tmp_path / f"{name}.yaml"
        target.mkdir()
        config.write_text(settings)
        output = target / ("c.json" if kind == "compare" else "m.txt")
        done = run_warm("-m", *COMMANDS[kind], "--data-dir", few, "--output", output, "--config", config, AML_MINER_CACHE=cache)
        assert done.returncode == 0, done.stderr
        return {p.name: p.read_bytes() for p in target.iterdir()}, USED.findall(done.stderr), done.stderr.count("built again")

    cache = tmp_path / "cache"
    written, used, _ = run("cold", cache)
    assert used == [("0", "4")] and [*cache.glob("*.arrow")]
    assert str(tmp_path).encode() not in b"".join(written.values()) and b"max_gb" not in b"".join(written.values())
    assert run("warm", cache) == (written, [("4", "4")], 0)
    for p in sorted(cache.iterdir())[::3]: p.write_bytes(p.read_bytes()[:-1])
    damaged = run("damaged", cache)
    assert (damaged[0], damaged[2]) == (written, 1)
    assert run("off", tmp_path / "none", SMALL + "cache: {enabled: false}\n") == (written, [], 0)
    assert not (tmp_path / "none").exists()


SHARE = """
import sys
from aml_miner.batches.loader import BatchDataLoader
from aml_miner.config.model_config import load_config
from aml_miner.features.feature_builder import FeatureBuilder
from aml_miner.features.feature_cache import FeatureCache
batches = list(BatchDataLoader(sys.argv[1]))[:3]
builder = FeatureBuilder(load_config().feature_engineering).learn_from(batches)
want = [builder.build(b) for b in batches]
for turn in range(4):
    cache = FeatureCache(sys.argv[2], float(sys.argv[3]))
    for b, x in zip(batches, want): assert cache.build(builder, b).equals(x)
"""


@pytest.mark.parametrize("gb", [1, 3e-4])  # room for all; room for a few, so that each deletes what the other wrote
def test_processes_share_a_folder(gb, sample, tmp_path):
    folder = tmp_path / "cache"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SHARE, str(sample), str(folder), str(gb)]
    runs = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = [(r.communicate()[1], r.returncode) for r in runs]
    assert not any(code for _, code in ended), ended
    assert not any("WARNING" in text and "feature cache" in text for text, _ in ended), ended
    assert {p.suffix for p in folder.iterdir()} <= {".arrow"}
    assert sum(p.stat().st_size for p in folder.iterdir()) <= gb * 1e9


CLOSURE = """
import sys
import aml_miner.features.feature_builder, aml_miner.features.cluster_builder
print("\\n".join(m.__file__ for name, m in sys.modules.items() if name.startswith("aml_miner.") and not m.__file__.endswith("__init__.py")))
"""


def test_every_module_that_computes_features_is_in_the_key():
    "Settings are in the key by their values; all other modules that the builders import must be there by their bytes."
    done = run_module("-c", CLOSURE)
    used = {Path(line).relative_to(ROOT / "aml_miner").as_posix() for line in done.stdout.split("\n") if line}
    used -= {"config/model_config.py", "config/yaml_reader.py"}
    known = {Path(str(f)).relative_to(ROOT / "aml_miner").as_posix() for f in _sources()}
    assert used <= known, f"feature_cache._SOURCES lacks {sorted(used - known)}"


def test_a_later_day_builds_only_what_its_words_change(sample, tmp_path):
    "Retraining with one more day: what does not depend on the vocabulary comes from the cache."
    batches = list(BatchDataLoader(sample))
    config = load_config().feature_engineering
    few, more = (FeatureBuilder(config).learn_from(batches[:n]) for n in (4, 5))
    cache = FeatureCache(tmp_path / "cache", 1)
    for b in batches[:4]: cache.build(few, b)
    before = len([*cache.folder.iterdir()])
    later = [cache.build(more, b) for b in batches[:5]]
    for x, b in zip(later, batches): pd.testing.assert_frame_equal(x, more.build(b), check_exact=True)
    assert len([*cache.folder.iterdir()]) - before <= 4 * 4 + len(config.groups)
