"""Kernels of the notebooks that are run here: reached by files of their own, and without a word about encryption. The plain command says none either."""
from pathlib import Path
import sys

from conftest import ROOT, run_cold_papermill, run_module
import nbformat
import pytest

import kernels

WARNING = "without encryption"
LOOK = """
import glob, json
from ipykernel.connect import get_connection_file
told = json.load(open(get_connection_file()))
print(told["transport"], told["ip"], len(glob.glob(told["ip"] + "-*")))
"""


@pytest.fixture
def notebook(tmp_path):
    "A notebook that tells how its kernel is reached."
    path = tmp_path / "in.ipynb"
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(LOOK)], metadata={"kernelspec": spec}), path)
    return path


def told(path): return nbformat.read(path, 4).cells[-1].outputs[0].text.split()


def test_kernels_are_reached_by_files_that_go_with_them(notebook, tmp_path):
    done = run_cold_papermill(notebook, tmp_path / "out.ipynb", IPYTHONDIR=tmp_path / "none")
    assert done.returncode == 0 and WARNING not in done.stderr, done.stderr
    transport, sockets, n = told(tmp_path / "out.ipynb")
    assert transport == "ipc" and int(n) == 5 and Path(sockets).is_absolute() and not Path(sockets).parent.exists()


def test_where_a_path_is_too_long_for_a_socket_kernels_keep_to_ports(notebook, tmp_path):
    long = tmp_path / ("x" * kernels.LONGEST)
    long.mkdir()
    done = run_cold_papermill(notebook, tmp_path / "out.ipynb", TMPDIR=long)
    assert done.returncode == 0, done.stderr
    assert told(tmp_path / "out.ipynb")[0] == "tcp"


def test_the_plain_command_is_quiet(notebook, tmp_path):
    "In the environment of `make env`, whose kernels read a file that leaves the warning out."
    config = ROOT / "nbs" / "_lab" / "ipython_kernel_config.py"
    installed = Path(sys.prefix) / "etc" / "ipython" / config.name
    if not installed.is_file(): pytest.skip(f"no {installed}: the environment is not that of `make env`")
    assert installed.read_text() == config.read_text()
    done = run_module("-m", "papermill", notebook, tmp_path / "out.ipynb", "--start-timeout", kernels.PATIENCE, IPYTHONDIR=tmp_path / "none")
    assert done.returncode == 0 and WARNING not in done.stderr, done.stderr
    assert told(tmp_path / "out.ipynb")[0] == "tcp"


def test_without_that_file_the_warning_is_there(notebook, tmp_path):
    "A newer ipykernel may say it otherwise: then the file has nothing to do, or another text to look for."
    config = (ROOT / "nbs" / "_lab" / "ipython_kernel_config.py").read_text()
    code = "import logging, sys; log = logging.getLogger('IPKernelApp'); exec(sys.argv[1]); log.warning(sys.argv[2]); log.warning('another')"
    import inspect
    from ipykernel.kernelapp import IPKernelApp
    text = next(line.strip().strip('"') for line in inspect.getsource(IPKernelApp.init_sockets).splitlines() if WARNING in line)
    assert run_module("-c", code, config, text).stderr.splitlines() == ["another"]
