"""The built site in a real browser: Debian's or any other Chromium, driven by Playwright, which brings none of its own."""
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import shutil
import threading

ROOT = Path(__file__).resolve().parent.parent.parent
SITE = ROOT / "build" / "docs" / "html"
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]


def chromium():
    "The browser's program, None where there is none."
    return next((found for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable") if (found := shutil.which(name))), None)


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
    "A browser that starts no connection of its own."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), headless=True, args=QUIET)
        try: yield browser
        finally: browser.close()


def settle(page):
    "Wait until figures are drawn and pictures are there."
    page.wait_for_function("""() => [...document.images].every(i => i.complete) &&
        [...document.querySelectorAll('.plotly-figure')].every(f => f.querySelector('.plot-container'))""", timeout=20_000)
