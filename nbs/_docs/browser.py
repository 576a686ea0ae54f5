"""The built site in a real browser: Debian's or any other Chromium, driven by Playwright, which brings none of its own."""
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
import os
from pathlib import Path
import shutil
import threading

ROOT = Path(__file__).resolve().parent.parent.parent
SITE = ROOT / "build" / "docs" / "html"
PATIENCE = 1_800_000  # milliseconds after which a page that does not answer counts as dead: a net, no measure
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
QUIET = [
    "--no-sandbox", "--no-first-run",
    *(f"--disable-{what}" for what in ("gpu", "quic", "background-networking", "component-update", "sync", "dev-shm-usage"))]


def chromium():
    "The browser's program, None where there is none; AML_MINER_CHROMIUM names it, or by an empty text none."
    if (named := os.environ.get("AML_MINER_CHROMIUM")) is not None: return named or None
    return next((found for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable") if (found := shutil.which(name))), None)


def axe_core():
    "The program of axe-core, named by AML_MINER_AXE or in a Python package that brings it; None where there is none."
    places = [Path(named)] if (named := os.environ.get("AML_MINER_AXE")) else [ROOT / "node_modules" / "axe-core" / "axe.min.js"]
    if spec := find_spec("axe_playwright_python"): places += Path(spec.origin).parent.rglob("axe.min.js")
    return next((place for place in places if place.is_file()), None)


def axe_violations(page):
    "What axe-core finds wrong with a page: rule, how many elements, the first of them."
    page.add_script_tag(path=axe_core())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [(v["id"], len(v["nodes"]), v["nodes"][0]["html"][:200]) for v in found]


def page_names(site=SITE):
    "Every page, as its path below the site."
    return sorted(p.relative_to(site).as_posix() for p in site.rglob("*.html") if "_static" not in p.parts)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_): pass


@contextmanager
def serving(site=SITE):
    "A file server for the site; yields its address."
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try: yield f"http://127.0.0.1:{server.server_port}/"
        finally: server.shutdown()


@contextmanager
def browsing():
    "A browser that starts no connection of its own. Raises RuntimeError where it does not start."
    from playwright.sync_api import Error, sync_playwright
    with sync_playwright() as play:
        try: browser = play.chromium.launch(executable_path=chromium(), headless=True, args=QUIET, timeout=PATIENCE)
        except Error as e: raise RuntimeError(f"{chromium()} does not start: {e.message[:2000]}") from None
        try: yield browser
        finally: browser.close()


def new_page(browser, **options):
    "A page of a context of its own, which waits as long as the machine needs."
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE)
    return context.new_page()


def settle(page):
    "Wait until figures are drawn and pictures are there."
    page.wait_for_function("""() => [...document.images].every(i => i.complete) &&
        [...document.querySelectorAll('.plotly-figure')].every(f => f.querySelector('.plot-container'))""")
