"""What a user of the library sees first: its names, its help, its silence. Each in a process of its own, where it matters what was imported before."""
import ast
from importlib import import_module
import inspect
import io
import itertools
from pathlib import Path
import pkgutil
import sys
import textwrap
import tokenize

from conftest import ROOT, run_module
import pandas as pd
import pytest

import aml_miner
from aml_miner.testing.tiny_batch import tiny_tables

PACKAGES = ["aml_miner", *(m.name for m in pkgutil.iter_modules(aml_miner.__path__, "aml_miner.") if m.ispkg)]
PROMISED = [
    "FeatureBuilder", "BatchDataLoader", "AlertScorerModel", "AlertRankerModel", "ClusterScorerModel",
    "train_alert_scorer", "train_alert_ranker", "train_cluster_scorer", "prepare_training_data", "prepare_ranking_data", "prepare_cluster_data",
    "HyperparameterTuner", "score_batch", "convert", "load_config", "compute_ndcg", "__version__",
]
SAME_NAMES = [
    "aml_miner.training.train_cluster_scorer", "aml_miner.scoring.score_batch", "aml_miner.conversion.convert", "aml_miner.conversion.propose",
    "aml_miner.exploration.explore", "aml_miner.utils.progress",
]
HEAVY = {"pandas", "numpy", "lightgbm", "sklearn", "duckdb", "optuna", "matplotlib", "plotly", "pydantic"}
ONE_LINE = "import sys; import {}; print(*sorted({{*sys.modules}} & {}))"


def run_code(code, **how):
    "Python in a process of its own; what it printed."
    done = run_module("-W", "error::RuntimeWarning", "-c", code, **how)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Names

@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_alone_loads_nothing_large(package):
    assert run_code(ONE_LINE.format(package, HEAVY)) == ""


def test_the_front_offers_what_users_need():
    assert {*PROMISED} <= {*aml_miner.__all__} & {*dir(aml_miner)}
    code = "before = {*dir()}; from aml_miner import *; print(*sorted({*dir()} - before - {'before'}))"
    assert run_code(code).split() == sorted(aml_miner.__all__)
    assert aml_miner.__version__ == run_code("import aml_miner; print(aml_miner.__version__)")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_what_it_is_and_offers(package):
    module = import_module(package)
    assert module.__doc__ and len(module.__doc__.splitlines()) == 1
    assert isinstance(module.__all__, list) and len({*module.__all__}) == len(module.__all__)
    assert package == "aml_miner.datasets" or module.__all__
    for name in module.__all__: assert getattr(module, name) is not None and name in dir(module), name
    with pytest.raises(AttributeError, match="has no attribute 'crystal_ball'"): _ = module.crystal_ball


@pytest.mark.parametrize("package", PACKAGES)
def test_editors_read_the_same_names(package):
    "The imports for type checkers are those that happen at run time."
    tree = ast.parse(Path(import_module(package).__file__).read_text())
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "offer"]
    offered = ast.literal_eval(calls[0].args[1])
    blocks = [n.body for n in tree.body if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"]
    typed = {name.name: f"{package}.{node.module}" if node.level else node.module for node in itertools.chain(*blocks) for name in node.names}
    assert len(calls) == 1 and all(n.name == n.asname for node in itertools.chain(*blocks) for n in node.names)
    assert typed == {name: f"{package}.{module}" for name, module in offered.items() if module != "hyperparameter_tuner"}  # which is another module's path


EVERY_ORDER = """
import gc, os, sys
# What others made is loaded once.
import cyclopts, duckdb, lightgbm, loguru, matplotlib.pyplot, optuna, pandas, plotly.graph_objects, pyarrow.parquet, pydantic, scipy.stats, sklearn.metrics
pydantic.create_model("First", x=(int, 0))  # for the first of a process all that is installed is searched for plugins
gc.freeze()  # a fork that collects garbage copies no page for it
for path, orders in ORDERS.items():
    package, _, name = path.rpartition(".")
    for order in orders:
        child = os.fork()
        if child:
            if os.waitpid(child, 0)[1]: print(path, order, flush=True)
            continue
        try:
            exec(order)
            exec(f"from {package} import {name} as found")
            module = sys.modules[path]
            assert callable(found) and found is getattr(module, name) and type(module).__name__ == "module", name
            os._exit(0)
        except BaseException as e: print(path, order, e, flush=True)
        os._exit(1)
os._exit(0)
"""


def orders_of(path):
    "Ways of importing a function that is called as its module is, each first."
    package, _, name = path.rpartition(".")
    ways = [
        f"from {package} import {name}", f"import {path}", f"import {path} as m", f"from {path} import {name}",
        f"import {package}; {package}.{name}", f"import importlib; importlib.import_module('{path}')",
    ]
    return ["; ".join([*ways[i:], *ways[:i]]) for i in range(len(ways))] + ["; ".join(ways[::-1]), *ways]


@pytest.fixture(scope="module")
def hidden():
    "What was said of orders that hide a function, each tried in a process of its own that has imported nothing of the package."
    return run_code(f"ORDERS = {({path: orders_of(path) for path in SAME_NAMES})!r}\n{EVERY_ORDER}").splitlines()


@pytest.mark.parametrize("path", SAME_NAMES)
def test_a_function_is_never_hidden_by_its_module(path, hidden):
    "Whatever is imported first, and by whatever way."
    assert [line for line in hidden if line.startswith(f"{path} ")] == []


@pytest.mark.parametrize("module", ["aml_miner.training.train_cluster_scorer", "aml_miner.scoring.score_batch", "aml_miner.conversion.convert"])
def test_commands_of_these_names_run_once(module):
    done = run_module("-W", "error::RuntimeWarning", "-m", module, "--help")
    assert done.returncode == 0 and "Usage" in done.stdout, done.stderr


@pytest.mark.parametrize("jedi", [True, False])
def test_tab_shows_the_names(jedi):
    code = f"""
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.Completer.use_jedi = {jedi}
shell.run_cell("import aml_miner, aml_miner.training")
for text in ("aml_miner.train_", "aml_miner.training.prepare_", "from aml_miner import Alert"):
    from IPython.core.completer import provisionalcompleter
    with provisionalcompleter(): print(*sorted(c.text.split(".")[-1] for c in shell.Completer.completions(text, len(text))))
"""
    lines = [{*line.split()} for line in run_code(code).splitlines()]
    assert {"train_alert_scorer", "train_alert_ranker", "train_cluster_scorer"} <= lines[0]
    assert {"prepare_training_data", "prepare_ranking_data", "prepare_cluster_data"} <= lines[1]
    assert {"AlertScorerModel", "AlertRankerModel"} <= lines[2]


# Help

def comments_beside(function):
    "Parameter -> the comment on its line; `return` -> what stands beside the type that comes back. Read by Python's own tokenizer."
    lines, _ = inspect.getsourcelines(function)
    source = textwrap.dedent("".join(lines))
    node = ast.parse(source).body[0]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.removeprefix("#").strip() for t in tokens if t.type == tokenize.COMMENT}
    a = node.args
    places = {("*" if x is a.vararg else "**" if x is a.kwarg else "") + x.arg: x for x in [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg] if x}
    places |= {"return": node.returns} if node.returns else {}
    return {name: comments[x.end_lineno] for name, x in places.items() if x.end_lineno in comments and x.lineno != node.lineno}


def sections_of(doc):
    "The same, as a docstring of numpydoc has it."
    words, name = {}, None
    starts = [doc.find(f"{head}\n---") for head in ("Parameters", "Returns") if f"{head}\n---" in doc]
    for line in doc[min(starts, default=len(doc)):].splitlines():
        if line in ("Parameters", "Returns", "----------", "-------"): name = "return" if line == "Returns" else None if line == "Parameters" else name
        elif line.startswith("    ") and name: words[name] = line.strip()
        elif name != "return": name = line.partition(" : ")[0]
    return words


def public_functions():
    "Every public function and method of the package, with its name."
    modules = [m.name for m in pkgutil.walk_packages(aml_miner.__path__, "aml_miner.") if not m.ispkg and not m.name.endswith("._modidx")]
    for module in map(import_module, modules):
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__: continue
            members = vars(thing).items() if isinstance(thing, type) else [(name, thing)]
            for member, function in members:
                function = getattr(function, "__func__", function)
                code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
                if not code or code.co_filename != module.__file__ or code.co_name == "<lambda>": continue
                if not member.startswith("_") or member == "__init__": yield f"{module.__name__}.{name}.{member}", function


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_help_says_what_the_comments_say():
    "Of every function and method, whichever module it is taken from."
    explained = 0
    for name, function in public_functions():
        if name.startswith(("aml_miner.utils.docstrings.", "aml_miner.utils.lazy.")): continue  # loaded before there is anything that explains
        comments, doc = comments_beside(inspect.unwrap(function)), inspect.getdoc(function) or ""
        said = sections_of(doc)
        if "->" not in str(inspect.signature(function)): said.pop("return", None)
        assert {k: v for k, v in said.items() if k in comments} == comments and len(said) == len(comments), (name, said)
        assert doc.count("Parameters\n----------") <= 1 and doc.count("Returns\n-------") <= 1, name
        explained += bool(comments)
    assert explained > 300


@pytest.mark.parametrize("module", ["aml_miner", "aml_miner.training", "aml_miner.training.train_ranker"])
def test_help_is_the_same_by_every_path(module):
    said = run_code(f"from {module} import train_alert_ranker; help(train_alert_ranker)")
    assert "Parameters\n    ----------\n    X : " in said
    assert "    ndcg_at : Sequence[int] | None, default None\n        the k of the report; default is the config's\n" in said
    assert "Returns\n    -------\n" in said


def test_shift_tab_shows_the_comments():
    "What a kernel answers to Shift-Tab and to `?`: functions, classes, and their methods."
    code = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("import aml_miner; from aml_miner import FeatureBuilder, AlertRankerModel")
for name in ("aml_miner.train_alert_ranker", "FeatureBuilder", "FeatureBuilder.build_all_features", "AlertRankerModel", "aml_miner.score_batch"):
    print(name, shell.object_inspect_mime(name)["text/plain"].replace("\\n", "|"))
"""
    said = dict(line.split(" ", 1) for line in run_code(code).splitlines())
    beside = {
        "aml_miner.train_alert_ranker": "the k of the report; default is the config's",
        "FeatureBuilder": "DuckDB threads; the result is the same for any number",
        "FeatureBuilder.build_all_features": "one row per address, window and date",
        "aml_miner.score_batch": "alerts from the top of the queue that get reasons",
    }
    for name, words in beside.items(): assert said[name].count(words) == 1, said[name]
    assert "Parameters|" in said["AlertRankerModel"]


def test_fields_are_explained():
    from aml_miner.batches.schema import Column
    assert "Parameters\n----------\nname : str\n    name in the normalised table\n" in inspect.getdoc(Column)


# Silence

LIBRARY = """
import numpy as np
import pandas as pd
import aml_miner
{first}
from aml_miner.testing import tiny_tables
tables = tiny_tables()
config = aml_miner.load_config({config!r})
builder = aml_miner.FeatureBuilder(config.feature_engineering).learn_vocabulary([tables["alerts"]], [tables["features"]], [tables["clusters"]])
builder.build_all_features(tables["alerts"], tables["features"], tables["clusters"])
X = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 3)), columns=["a", "b", "c"])
aml_miner.train_alert_scorer(X, (X.a > 0).astype(int), config)
aml_miner.score_batch({batch!r}, "trained_models", {out!r}, explain_top=1)
"""


def test_a_library_is_silent_until_logging_is_asked_for(tmp_path, sample, quick_config):
    "What a call has to say to its caller is a warning of Python's, and left out here."
    for first, is_silent in (("", True), ("aml_miner.setup_logging()", False)):
        code = LIBRARY.format(first=first, config=str(quick_config), batch=str(sample / "2025-09-21"), out=str(tmp_path / "scores"))
        done = run_module("-W", "ignore::UserWarning", "-c", code)
        assert done.returncode == 0 and not done.stdout and (done.stderr == "") == is_silent, done.stderr
    assert "INFO    loading: " in done.stderr and "WARNING batch: no money_flows" in done.stderr


# Tables that lack columns

@pytest.fixture(scope="module")
def tiny(): return tiny_tables()


@pytest.fixture(scope="module")
def builder(tiny):
    blank = aml_miner.FeatureBuilder(aml_miner.load_config().feature_engineering)
    return blank.learn_vocabulary([tiny["alerts"]], [tiny["features"]], [tiny["clusters"]])


@pytest.mark.parametrize("table, column", [
    ("alerts", "address"), ("alerts", "severity"), ("features", "window_days"), ("clusters", "related_alert_ids"), ("money_flows", "timestamp"),
])
def test_a_plain_table_without_a_required_column_is_refused(table, column, tiny, builder):
    tables = {name: tiny[name].drop(columns=column) if name == table else tiny[name] for name in ("alerts", "features", "clusters", "money_flows")}
    with pytest.raises(ValueError, match=f"{table}: column {column} is missing; needed are "): builder.build_all_features(*tables.values())


def test_a_plain_table_without_an_optional_column_is_warned_of_once(tiny, builder):
    with pytest.warns(UserWarning, match="no alerts.pattern_type, features.pagerank; what needs them is NaN") as told:
        alerts, features = tiny["alerts"].drop(columns=["pattern_type", "description"]), tiny["features"].drop(columns="pagerank")
        builder.build_all_features(alerts, features, tiny["clusters"], tiny["money_flows"])
    assert len(told) == 1 and Path(told[0].filename) == Path(__file__)


def test_whole_tables_warn_of_nothing(tiny, builder, recwarn):
    assert isinstance(builder.build_all_features(tiny["alerts"], tiny["features"], tiny["clusters"], tiny["money_flows"]), pd.DataFrame)
    assert not [w for w in recwarn if "NaN" in str(w.message)]


def test_types_are_shipped():
    "With `py.typed` in the package a type checker reads the annotations."
    assert (ROOT / "aml_miner" / "py.typed").read_text() == "" and sys.version_info >= (3, 11)
