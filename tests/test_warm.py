"""Processes that begin warm are what `python` starts, but for what is loaded: the same ends, texts, folders and variables, random numbers of their own."""
from multiprocessing.pool import ThreadPool
import random
import re
import signal

from conftest import ROOT, run_cold_papermill, run_module, run_papermill, run_warm
import nbformat
import pytest

WHERE = """
import matplotlib.pyplot as plt, os, plotly.io as pio, sys
from tqdm.auto import tqdm
print(os.getsid(0) == os.getpid(), os.getcwd(), plt.get_backend(), pio.renderers.default, tqdm.__module__, sys.argv[0].rpartition("/")[2], __name__)
print(sys.stdout.isatty(), type(sys.stderr).__module__, os.environ["MPLBACKEND"], "aml_miner" in sys.modules, sys.path[0])
"""


@pytest.mark.parametrize("arguments", [
    ("-c", "import sys; print(sys.argv, sys.path[:2], __name__, sys.stdin.read()); print('é', file=sys.stderr)", "a", "b c"),
    ("-c", "import sys; sys.exit('no')"),
    ("-c", "import os, sys; print(os.getcwd(), os.environ['COLUMNS'], flush=True); os._exit(3)"),
    ("-c", f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"),
    ("-c", "import atexit; atexit.register(print, 'end'); {}['key']"),
    ("-c", "import signal; print([signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)])"),
    ("-m", "aml_miner", "score", "--data-dir", "none"),
    ("-m", "aml_miner.scoring.score_batch", "--batch-dir", "none", "--models-dir", "none", "--output-dir", "o"),
])
def test_it_ends_as_a_process_that_was_started(arguments, tmp_path):
    warm, cold = (run(*arguments, cwd=tmp_path, COLUMNS="90") for run in (run_warm, run_module))
    last = [re.sub(r"^[\d:]{8} ", "", "".join(done.stderr.splitlines()[-1:])) for done in (warm, cold)]  # a traceback has other lines above
    assert (warm.returncode, warm.stdout, last[0]) == (cold.returncode, cold.stdout, last[1])


def test_so_does_a_script(tmp_path):
    (tmp_path / "says.py").write_text("import sys\nprint(sys.argv, __name__, __file__, sys.path[0])\n")
    warm, cold = (run(tmp_path / "says.py", "x") for run in (run_warm, run_module))
    assert (warm.returncode, warm.stdout, warm.stderr) == (cold.returncode, cold.stdout, cold.stderr)


def test_libraries_are_loaded_and_nothing_of_the_package():
    done = run_warm("-c", "import sys; print('lightgbm' in sys.modules, [m for m in sys.modules if m.startswith(('aml_miner', 'pytest', 'IPython'))])")
    assert done.stdout == "True []\n"


def test_each_has_random_numbers_and_files_of_its_own():
    code = "import numpy, random, tempfile; print(random.random(), numpy.random.random(), tempfile.gettempdir(), sep='|')"
    one, two = (run_warm("-c", code, TMPDIR=folder).stdout.strip().split("|") for folder in (ROOT, ROOT / "tests"))
    assert one[0] != two[0] and one[1] != two[1] and (one[2], two[2]) == (str(ROOT), str(ROOT / "tests"))


def test_several_at_a_time():
    "What each says goes to who asked; the first to come is not the first to end."
    delays = [random.Random(0).random() / 5 for _ in range(12)]
    code = "import sys, time; time.sleep(float(sys.argv[1])); print(sys.argv[1]); sys.exit(int(sys.argv[2]))"
    with ThreadPool(6) as pool: ended = pool.map(lambda i: run_warm("-c", code, delays[i], i), range(12))
    assert [(e.stdout, e.returncode) for e in ended] == [(f"{d}\n", i) for i, d in enumerate(delays)]


def test_a_kernel_finds_itself_where_any_kernel_does(tmp_path):
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(WHERE)], metadata={"kernelspec": spec}), tmp_path / "in.ipynb")
    said = []
    for run in (run_papermill, run_cold_papermill):
        done = run("in.ipynb", "out.ipynb", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        said.append([o.get("text") for o in nbformat.read(tmp_path / "out.ipynb", 4).cells[-1].outputs])
    assert said[0] == said[1] and str(tmp_path) in said[0][0]
