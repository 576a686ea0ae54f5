"""Changed models and reports, each read and used in a fork: a sentence or a score, never a signal, a hang, another error or a score that is none.

    python tests/fuzz/fuzz_models.py --mutants 10000 --seed 1      # texts, the report's hash made to fit, and a tenth as many reports
"""
import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator
import copy
import hashlib
from itertools import islice
import json
import os
from pathlib import Path
import random
import re
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

if __name__ == "__main__": sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from fuzz.forked import BAD, Outcome, run_forked

from aml_miner.batches.loader import Batch, read_batch
from aml_miner.models.model_card import model_card
from aml_miner.models.model_loading import ModelFileError
from aml_miner.scoring.batch_scores import apply_models, check_tables, output_tables, scores_summary
from aml_miner.scoring.compare import read_models, trained_until
from aml_miner.scoring.model_set import MODELS
from aml_miner.scoring.queue_page import reference_scores
from aml_miner.testing.small_models import small_models

ROOT = Path(__file__).resolve().parents[2]
ODD_NUMBERS = (
    "-1", "0", "1", "-0", "7", "65536", "999999999", "2147483647", "2147483648", "-2147483649", "4294967295", "99999999999999999999",
    "1e308", "1e400", "1e-320", "1e+30", "-1e+30", "nan", "inf", "-inf", "", " ", "1 1", "0x10", "abc", "1.5", "%s", "\t", "１", "-", "=",
)
ODD_LEAVES = (b"1e+30", b"-1e+30", b"0", b"-0", b"1.0000000000000001e-300", b"inf", b"-inf", b"12345", b"9.9999999999999996e-36")
ODD_COLUMNS = (b"", b"0", b"5,5", b"1,0", b"-1", b"5,6,7,8,87,88,99999", b"1e+3")
ODD_PARAMETERS = ("0", "-1", "2147483647", "1e999", "abc", "a:b", "]", "", "/etc/passwd", "cuda", "dart", "\"", "1,2,x", "nan")
ODD_VALUES = (
    None, 0, -1, 1.5, 1e308, True, "", "x", [], {}, [1], ["a", "a"], {"a": 1}, "9" * 50, "\0", "<b>", [[[]]], 10**30, 10**400,
    "2025-99-99", "NaN", "\ud800", -0.0, 2**53 + 1,
)

# What a text is changed by: each takes the text and a random generator, and returns another text.


def flip(text, rng):
    data = bytearray(text)
    for _ in range(rng.choice((1, 1, 4, 20))):
        i = rng.randrange(len(data))
        data[i] = rng.choice((data[i] ^ 1 << rng.randrange(7), rng.randrange(256)))
    return bytes(data)


def cut(text, rng):
    at, n = rng.randrange(len(text)), rng.choice((1, 10, 200, 5000))
    return text[:at] + text[at + n:]


def double(text, rng):
    at, n = rng.randrange(len(text)), rng.choice((1, 50, 2000))
    return text[:at + n] + text[at:]


def lines(text, rng):
    "A line away, twice, or in another place."
    found = text.split(b"\n")
    i, j = rng.randrange(len(found)), rng.randrange(len(found))
    how = rng.randrange(3)
    if how == 0: del found[i]
    elif how == 1: found.insert(j, found[i])
    else: found[i], found[j] = found[j], found[i]
    return b"\n".join(found)


def number(text, rng):
    "One to three numbers, anywhere."
    for _ in range(rng.choice((1, 1, 3))):
        found = rng.choice([*re.finditer(rb"-?\d+\.?\d*(?:e[-+]?\d+)?", text)])
        new = rng.choice((*ODD_NUMBERS, str(rng.randint(-5, 500)), found[0].decode() + "1")).encode()
        text = text[:found.start()] + new + text[found.end():]
    return text


def array(text, rng):
    "The values of a line: other, fewer, more, in another order."
    found = text.split(b"\n")
    i = rng.choice([i for i, line in enumerate(found) if b"=" in line])
    key, _, values = found[i].partition(b"=")
    values, how = values.split(b" "), rng.randrange(7)
    if how == 0: values[rng.randrange(len(values))] = rng.choice(ODD_NUMBERS).encode()
    elif how == 1: values.pop()
    elif how == 2: values += values
    elif how == 3: values = []
    elif how == 4: rng.shuffle(values)
    elif how == 5: values = [rng.choice(ODD_NUMBERS).encode()] * len(values)
    else: values[rng.randrange(len(values))] = rng.choice(values)
    found[i] = key + b"=" + b" ".join(values)
    return b"\n".join(found)


def child(text, rng):
    "A tree whose children are near to right ones: swapped, one further, one of another place; half of them a cycle."
    found = text.split(b"\n")
    rows = [i for i, line in enumerate(found) if line.startswith((b"left_child=", b"right_child=")) and b" " in line]
    i = rng.choice(rows)
    key, _, values = found[i].partition(b"=")
    values, n = [*map(int, values.split(b" "))], values.count(b" ") + 1
    a, b = rng.randrange(n), rng.randrange(n)
    if rng.random() < .5: values[a], values[b] = values[b], values[a]
    else: values[a] = rng.choice((values[a] + rng.choice((-1, 1)), rng.randrange(-n - 1, n), a, 0))
    found[i] = key + b"=" + " ".join(map(str, values)).encode()
    return b"\n".join(found)


def value(text, rng):
    "Leaves and thresholds that a training could have found, if hardly."
    key = rng.choice((b"leaf_value", b"threshold"))
    found = text.split(b"\n")
    i = rng.choice([i for i, line in enumerate(found) if line.startswith(key)])
    parts = found[i].partition(b"=")[2].split(b" ")
    for _ in range(rng.choice((1, len(parts)))): parts[rng.randrange(len(parts))] = rng.choice(ODD_LEAVES)
    found[i] = key + b"=" + b" ".join(parts)
    return b"\n".join(found)


def trees(text, rng):
    "Trees away, twice, or in another order."
    head, parts, tail = _trees(text)
    i, j, how = rng.randrange(len(parts)), rng.randrange(len(parts)), rng.randrange(4)
    if how == 0: del parts[i]
    elif how == 1: parts.insert(j, parts[i])
    elif how == 2: parts[i], parts[j] = parts[j], parts[i]
    else: parts = parts * rng.choice((2, 20))
    if rng.random() < .8: parts = [re.sub(rb"^Tree=\d+", b"Tree=%d" % n, part) for n, part in enumerate(parts)]
    return head + b"".join(parts) + tail


def deep(text, rng):
    "A tree that is a chain of splits."
    head, parts, tail = _trees(text)
    n = rng.choice((2, 50, 999, 1000, 1001, 5000, 20_000))
    row = lambda key, values: f"{key}={' '.join(map(str, values))}\n"
    chain = "".join([
        f"num_leaves={n + 1}\nnum_cat=0\n",
        row("split_feature", [0] * n),
        row("split_gain", [0] * n),
        row("threshold", [rng.choice((0, 1, "inf"))] * n),
        row("decision_type", [rng.choice((0, 2, 10))] * n),
        row("left_child", [*range(1, n), -1]),
        row("right_child", range(-2, -n - 2, -1)),
        row("leaf_value", [rng.choice((0, "0.5", "1e+30"))] * (n + 1)),
        row("leaf_weight", [1] * (n + 1)),
        row("leaf_count", [1] * (n + 1)),
        row("internal_value", [0] * n),
        row("internal_weight", [0] * n),
        row("internal_count", range(n + 1, 1, -1)),
        "is_linear=0\nshrinkage=1\n\n\n",
    ]).encode()
    i = rng.randrange(len(parts))
    parts[i] = b"Tree=%d\n" % i + chain
    return head + b"".join(parts) + tail


def parameter(text, rng):
    "What the training was told."
    found = [*re.finditer(rb"^\[(\w+): (.*)\]$", text, flags=re.M)]
    at = rng.choice(found)
    return text[:at.start(2)] + rng.choice(ODD_PARAMETERS).encode() + text[at.end(2):]


def categories(text, rng):
    "The categories of the columns, and which columns have any."
    at = text.rfind(b"pandas_categorical:") + 19
    found = json.loads(text[at:])
    how = rng.randrange(6)
    if how == 0: del found[rng.randrange(len(found))]
    elif how == 1: found.append(["x"])
    elif how == 2: found[rng.randrange(len(found))].append(rng.choice(("a", "\0", 1, None, ["b"], "\"", "ü")))
    elif how == 3: found[rng.randrange(len(found))] = rng.choice(([], None, "x", {"a": 1}))
    elif how == 4: rng.shuffle(found[rng.randrange(len(found))])
    else: return re.sub(rb"^\[categorical_feature: .*\]$", b"[categorical_feature: " + rng.choice(ODD_COLUMNS) + b"]", text, flags=re.M)
    return text[:at] + json.dumps(found).encode() + b"\n"


CHANGES = (flip, cut, double, lines, number, number, array, array, array, child, value, trees, deep, parameter, categories)


def _trees(text):
    "Head, the texts of the trees, and what follows them."
    a, b = text.index(b"Tree=0\n"), text.rindex(b"end of trees")
    return text[:a], re.split(rb"(?=^Tree=\d+\n)", text[a:b], flags=re.M)[1:], text[b:]


def sizes_fit(text):
    "The same text, with the sizes of its trees and how often each feature is split on as they are now, as somebody would do who knows the form."
    try: head, parts, tail = _trees(text)
    except ValueError: return text
    head = re.sub(rb"^tree_sizes=.*$", b"tree_sizes=" + b" ".join(b"%d" % len(part) for part in parts), head, flags=re.M)
    names, used = head.partition(b"feature_names=")[2].partition(b"\n")[0].split(b" "), Counter()
    for part in parts:
        features, gains = (part.partition(b"\n" + key + b"=")[2].partition(b"\n")[0].split(b" ") for key in (b"split_feature", b"split_gain"))
        used.update(int(f) for f, gain in zip(features, gains) if f.isdigit() and int(f) < len(names) and gain != b"0" and not gain.startswith(b"-"))
    counted = b"".join(b"%s=%d\n" % (names[f], n) for f, n in sorted(used.items(), key=lambda item: (-item[1], item[0])))
    return head + b"".join(parts) + re.sub(rb"(?<=feature_importances:\n)(.*?)(?=\nparameters:)", lambda _: counted, tail, flags=re.S)


def changed_text(text, rng):
    "Another text, and what was done to it."
    change = rng.choice(CHANGES)
    part = rng.choice(("trees", "trees", "all")) if change in (flip, cut, double, lines, number, array) else "all"
    if part == "all": other = change(text, rng)
    else:
        head, inner, tail = _trees(text)
        other = head + change(b"".join(inner), rng) + tail
    return f"{change.__name__} ({part})", sizes_fit(other) if rng.random() < .9 else other


# What a report is changed by.


def places(part, path=()):
    "Every path in a report; of lists the first values."
    inner = part.items() if isinstance(part, dict) else enumerate(part[:4]) if isinstance(part, list) else ()
    for key, at in inner: yield from [(*path, key), *places(at, (*path, key))]


def changed_report(report, rng):
    "The bytes of another report, and what was done to it."
    if rng.random() < .12:
        opened = lambda data, rng: data.replace(b"{", b"[" * rng.choice((2, 100_000)), 1)
        return "bytes", rng.choice((flip, cut, double, lines, opened))(json.dumps(report, indent=1).encode(), rng)
    report, done = copy.deepcopy(report), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        root = rng.choice([*report])
        path = (root, *rng.choice([(), *[p for p in places(report[root]) if len(p) <= rng.randint(1, 6)]]))
        at = report
        for key in path[:-1]: at = at[key]
        how = rng.random()
        if how < .25: del at[path[-1]]
        elif how < .3 and isinstance(at[path[-1]], list): at[path[-1]] = at[path[-1]] * 2
        elif how < .35 and isinstance(at[path[-1]], list): at[path[-1]] = at[path[-1]][::-1]
        elif how < .4 and isinstance(at, dict): at[rng.choice(("", "x", "ndcg@0", "recall@", "0.5", "\0", *at))] = copy.deepcopy(at[path[-1]])
        elif how < .45 and isinstance(at[path[-1]], (int, float)): at[path[-1]] = at[path[-1]] * rng.choice((-1, 2, 1e6, 1e-300))
        else: at[path[-1]] = copy.deepcopy(rng.choice(ODD_VALUES))
        done.append("/".join(map(str, path)))
        if not report: break
    return ", ".join(done), json.dumps(report).encode()


# How a model is used.


def use_scores(kind, path, models):
    "Load a model, score, explain; the hash of the scores. Raises AssertionError for a score or a contribution that is none."
    model = MODELS[kind].load_model(path, num_threads=1)
    scores = model.predict(models.X[kind]).score.to_numpy(dtype=float)
    most = np.inf if getattr(model, "gain", None) else 1  # an expected gain has its own unit
    assert np.isfinite(scores).all() and (scores >= 0).all() and (scores <= most).all(), f"scores from {scores.min()} to {scores.max()}"
    reasons = model.create_explanations(models.X[kind].iloc[:2], 3).contribution.to_numpy(dtype=float)
    assert np.isfinite(reasons).all(), "a contribution is no number"
    return hashlib.sha256(scores.tobytes()).hexdigest()


def use_report(kind, path, models):
    "The same, and all else that reads a report: the tables of a scored batch and their summary, the card, a comparison."
    found, model = use_scores(kind, path, models), MODELS[kind].load_model(path, num_threads=1)
    scored = apply_models(models.batch, {kind: model}, 2, 2)
    tables = output_tables(scored, latency=False)
    check_tables(tables, models.batch)
    scores_summary(scored, tables, latency=False)
    reference_scores(model.report.get("score_quantiles"))
    assert model_card(model.report)
    if kind != "cluster_scorer": trained_until(*read_models([path]).values())
    return found


class Models:
    "Models to be changed, by kind, and what they are used on."
    def __init__(self, folder: Path, batch: Batch):
        self.batch, self.text, self.report, self.X, self.scores = batch, {}, {}, {}, {}
        for kind in MODELS:
            path = folder/f"{kind}.txt"
            self.text[kind], self.report[kind] = path.read_bytes(), json.loads(path.with_suffix(".json").read_bytes())
            self.X[kind] = MODELS[kind].load_model(path).prepare_features(batch).iloc[:40]
            self.scores[kind] = use_scores(kind, path, self)


class Mutant(NamedTuple):
    "A changed model or report."
    number: int
    kind: str  # of model
    how: str  # it was changed
    text: bytes
    report: bytes


def mutants(
    models: Models,
    what: str,  # "texts" or "reports"
    n: int,  # how many
    seed: int,
) -> Iterator[Mutant]:
    "Changed models, the same ones for a seed."
    rng = random.Random(f"{what} {seed}")
    for i in range(n):
        kind = rng.choice([*models.text])
        text, report = models.text[kind], models.report[kind]
        if what == "texts":
            how, text = changed_text(text, rng)
            data = json.dumps(report | {"model_sha256": hashlib.sha256(text).hexdigest(), "features": _names(text, report)}).encode()
        else: how, data = changed_report(report, rng)
        yield Mutant(i, kind, how, text, data)


def outcomes(
    models: Models,
    what: str,  # "texts" or "reports"
    n: int,  # how many changed models
    seed: int,
    keep: Path | None = None,  # folder for those that must not be
    together: int = 20,  # in one fork; where that ends badly, each gets its own
) -> Iterator[tuple[Mutant, str, str]]:  # what was used, how it ended, detail
    "Use changed models in forks, and say how each ended."
    use = use_scores if what == "texts" else use_report
    with tempfile.TemporaryDirectory() as folder:
        def end(mutant):
            path = _write(mutant, Path(folder))
            try: return "value", "", use(mutant.kind, path, models)
            except ModelFileError as e: return "refused", str(e), None

        made = mutants(models, what, n, seed)
        while group := [*islice(made, together)]:
            outcome = run_forked(lambda: [*map(end, group)])
            if outcome.bad: ends = [run_forked(use, m.kind, _write(m, Path(folder)), models, refusals=(ModelFileError,)) for m in group]
            else: ends = [Outcome(*f, outcome.megabytes) for f in outcome.value]
            for mutant, ended in zip(group, ends):
                if ended.bad and keep: _write(mutant, keep/f"{what}_{seed}_{mutant.number}")
                yield mutant, _word(ended, models.scores[mutant.kind]), ended.detail


def _write(mutant, folder):
    "The model's files; the path of its text."
    folder.mkdir(parents=True, exist_ok=True)
    path = folder/f"{mutant.kind}.txt"
    path.write_bytes(mutant.text)
    path.with_suffix(".json").write_bytes(mutant.report)
    return path


def _names(text, report):
    "The features that a text names: a report that fits names the same."
    found = re.search(rb"^feature_names=(.*)$", text, flags=re.M)
    return found[1].decode("utf-8", "replace").split(" ") if found else report["features"]


def _word(found, scores):
    if found.kind == "value": return "same scores" if found.value == scores else "other scores"
    return f"signal {found.detail}" if found.kind == "signal" else found.kind


def is_bad(
    word: str,  # from `outcomes`
) -> bool:
    "Whether that must not be."
    return word.split()[0] in BAD


def quick_models(folder: Path) -> Models:
    "Three models of a few trees, made of three days of the sample, used on a fourth."
    batches = [read_batch(ROOT/"data"/"sample"/f"2025-09-0{day}") for day in (3, 4, 5)]
    return Models(small_models(folder, batches[:2], trees=4), batches[2])


def whole_models() -> Models:
    "The committed models, whose reports hold all that a training finds out."
    return Models(ROOT/"trained_models", read_batch(ROOT/"data"/"sample"/"2025-09-05"))


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description="Change models and their reports, and see what reading them comes to.")
    parser.add_argument("--mutants", type=int, default=1000, help="changed texts")
    parser.add_argument("--reports", type=int, help="changed reports (default: a tenth)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for models that were not refused as they should")
    args = parser.parse_args(argv)
    start, tally, examples = time.monotonic(), defaultdict(Counter), defaultdict(list)
    reports = args.mutants // 10 if args.reports is None else args.reports
    with tempfile.TemporaryDirectory() as folder:
        for what, n, make in (("texts", args.mutants, lambda: quick_models(Path(folder))), ("reports", reports, whole_models)):
            if not n: continue
            for mutant, word, detail in outcomes(make(), what, n, args.seed, args.keep):
                tally[what][word] += 1
                if is_bad(word): examples[f"{word}: {detail}"].append(f"{what}, {mutant.kind}, {mutant.how}")
    for what, counts in tally.items(): print(f"seed {args.seed}, {counts.total():,} {what}: " + ", ".join(f"{word} {n:,}" for word, n in counts.most_common()))
    for fault, found in examples.items(): print(f"  {len(found)} x {fault}: {found[0]}")
    print(f"{time.monotonic() - start:.0f} s")
    return 1 if examples else 0


if __name__ == "__main__":
    from loguru import logger
    logger.remove()
    sys.exit(main())
