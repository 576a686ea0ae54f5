"""JupyterLab as its users have it: the start page, a notebook run from the menu in a real browser, tables that sort, errors that say first what is wrong."""
import json
import os
import re
import shutil
import subprocess
import sys
from urllib.parse import urlsplit

from browser import new_page
from conftest import ROOT, run_module, run_papermill, wait_until
import nbformat
import pytest

TOKEN = "a-token-for-tests"
DONE = """() => { const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(p => p.textContent);
    return prompts.length > 10 && prompts.every(p => !p.includes('*')) && /\\[\\d+\\]/.test(prompts[prompts.length - 1]); }"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A copy of the notebooks and the sample: JupyterLab writes where it runs."
    root = tmp_path_factory.mktemp("lab")
    for part in ("nbs", "data"): shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(ROOT / "settings.ini", root)
    return root


@pytest.fixture(scope="module")
def server(place):
    "The address of a JupyterLab, started as `make lab` starts it."
    pytest.importorskip("jupyterlab")
    done = run_module("-m", "aml_miner.utils.start_page", "--output", "runs/start.md", cwd=place)
    assert done.returncode == 0, done.stderr
    settings = place / "nbs" / "_lab" / "labconfig" / "default_setting_overrides.json"
    every_cell = {"@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"}}  # is in the page
    settings.write_text(json.dumps(json.loads(settings.read_text()) | every_cell))
    home = place / "home"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"JUPYTER_CONFIG_PATH": str(place / "nbs" / "_lab"), "PYTHONPATH": paths, "HOME": str(home),
                        "JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_DATA_DIR": str(home / "data"), "JUPYTER_RUNTIME_DIR": str(home / "runtime")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--IdentityProvider.token={TOKEN}", "--ServerApp.allow_root=True",
               "--MappingKernelManager.kernel_info_timeout=3600", "--LabApp.default_url=/lab/tree/runs/start.md"]
    log = place / "server.log"
    with log.open("w") as sink: running = subprocess.Popen(command, cwd=place, env=env, stdout=sink, stderr=sink)
    ended = lambda: None if running.poll() is None else f"JupyterLab ended: {log.read_text()[-2000:]}"
    try:
        told = wait_until(lambda: [p for p in (home / "runtime").glob("jpserver-*.json") if p.read_text().endswith("}")], ended)  # written when it listens
        yield f"http://127.0.0.1:{json.loads(told[0].read_text())['port']}"
    finally:
        running.terminate()
        try: running.wait(600)
        except subprocess.TimeoutExpired: running.kill()


@pytest.fixture(scope="module")
def page(server, browser):
    "A page of a headless browser; what it asks of other hosts, and what its console says in red, is kept on it."
    page = new_page(browser, viewport={"width": 1400, "height": 1000})
    page.elsewhere = []
    page.on("request", lambda r: None if urlsplit(r.url).hostname in ("127.0.0.1", None) else page.elsewhere.append(r.url))
    yield page
    page.context.close()


def open_notebook(page, name):
    "Open a notebook of the start page by its link."
    page.get_by_role("link", name=re.compile(name)).first.click()
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_selector("#jp-main-statusbar :text('| Idle')")


def run_all(page):
    "Run > Run All Cells, and wait for the end."
    page.click(".lm-MenuBar-itemLabel:text-is('Run')")
    page.click(".lm-Menu-item[data-command='runmenu:run-all']")
    page.wait_for_function(DONE)


def test_a_newcomer_runs_the_first_notebook(server, page):
    page.goto(f"{server}/?token={TOKEN}")  # what the printed link opens
    page.wait_for_selector(".jp-RenderedMarkdown h1:has-text('aml_miner')")
    names = page.locator(".jp-RenderedMarkdown table").first.locator("a").all_text_contents()
    assert [n[:2] for n in names] == [p.name[:2] for p in sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))]
    assert not page.locator(".Toastify__toast, .jp-Dialog").count()  # nobody asks for anything first
    open_notebook(page, "Explore batches")
    run_all(page)
    errors = page.locator(", ".join(f".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.{kind}']" for kind in ("error", "stderr")))
    assert errors.all_text_contents() == []
    page.wait_for_function("() => [...document.images].every(i => i.complete)")
    images = page.locator(".jp-OutputArea img").evaluate_all("all => all.map(i => [i.naturalWidth, i.naturalHeight, i.getBoundingClientRect().width])")
    assert len(images) >= 8 and all(w > 300 and h > 150 and shown > 200 for w, h, shown in images), images
    assert page.get_by_text("3,202 alerts on").count() >= 1
    assert page.elsewhere == []


def test_tables_sort_and_filter(page):
    "Goes on in the notebook that has been run."
    table = page.locator(".aml-table:has(th button:text-is('processing_date'))").last
    column = lambda: [int(row.split("\t")[3]) for row in table.locator("tbody").inner_text().splitlines()]
    before = column()
    heading = table.locator("th:has(button:text-is('alerts'))")
    heading.locator("button").click()
    assert column() == sorted(before) != before
    heading.locator("button").press("Enter")
    assert column() == sorted(before, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    page.locator("input.aml-table-filter").first.fill("2025-09-1")
    assert table.locator("tbody tr:visible").count() == 10


@pytest.mark.parametrize("arguments, reason", [
    (["-p", "clusters", "abc"], "ValueError: parameter clusters: 'abc' is no int"),
    (["-p", "cluster", "3"], "ValueError: parameter cluster: no such parameter; did you mean clusters?"),
    (["-p", "data_dir", "no_such_folder"], "no such directory"),
    (["-p", "data_dir", "damaged"], "alerts.parquet"),
])
def test_an_error_is_its_reason(arguments, reason, place, tmp_path):
    shutil.copytree(ROOT / "data" / "sample" / "2025-09-01", tmp_path / "damaged")
    (tmp_path / "damaged" / "META.json").unlink()
    (tmp_path / "damaged" / "alerts.parquet").write_bytes((tmp_path / "damaged" / "alerts.parquet").read_bytes()[:2000])
    done = run_papermill(ROOT / "nbs" / "00_explore_batches.ipynb", "out.ipynb", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    outputs = [o for c in nbformat.read(tmp_path / "out.ipynb", 4).cells if c.cell_type == "code" for o in c.outputs]
    error = next(o for o in outputs if o.output_type == "error" and "PapermillException" not in o.ename)
    first = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback[0])
    assert reason in first and len(error.traceback) == 1, error.traceback
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr).split("Exception encountered at", 1)[1].splitlines()[1:]
    assert reason in said[0] and len([line for line in said if line.strip()]) == len(first.splitlines()), said  # the reason, and nothing after it
