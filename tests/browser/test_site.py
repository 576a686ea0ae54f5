"""The docs site in a real browser. Needs what `make docs` builds, Playwright, and a Chromium; skipped, with the reason, without them."""
from io import BytesIO
from pathlib import Path
import re
import sys

from conftest import ROOT, some
from matplotlib.pyplot import imread
import pytest

sys.path.insert(0, str(ROOT / "nbs" / "_docs"))
import browser as site  # noqa: E402

PAGES = site.page_names() if site.SITE.is_dir() else []
pytestmark = pytest.mark.skipif(not PAGES, reason="no site in build/docs/html: make docs")

PLOTS = """() => {
  const blank = img => {
    const c = document.createElement('canvas'); c.width = c.height = 48;
    const pen = c.getContext('2d'); pen.drawImage(img, 0, 0, 48, 48);
    return new Set(new Uint32Array(pen.getImageData(0, 0, 48, 48).data.buffer)).size < 8;
  };
  const static_ = [...document.querySelectorAll('.cell_output img')];
  const figures = [...document.querySelectorAll('.plotly-figure')];
  const marks = f => [...f.querySelectorAll('.trace path, .trace rect')].filter(m => { const b = m.getBBox(); return b.width + b.height > 4; }).length;
  return {broken: [...document.images].filter(i => !i.naturalWidth).map(i => i.src), blank: static_.filter(i => i.naturalWidth && blank(i)).map(i => i.src),
          empty: figures.filter(f => !marks(f)).map(f => f.id), plots: static_.length + figures.length};
}"""

OVERFLOW = "() => document.documentElement.scrollWidth - window.innerWidth"

CONTRAST = """() => {
  const parse = s => { const m = s.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const linear = x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const light = c => { const v = c.slice(0, 3).map(x => linear(x / 255)); return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const ground = e => {
    const layers = [];
    for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); layers.push(c); if (c[3] === 1) break; }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]); };
  const bad = [];
  const walk = document.createTreeWalker(document.querySelector('.bd-article') || document.querySelector('main'), NodeFilter.SHOW_TEXT);
  for (let n; (n = walk.nextNode());) {
    const e = n.parentElement;
    if (!n.data.trim() || !e.getClientRects().length || e.closest('svg, math, script, style, .plotly-figure, .search-button__kbd-shortcut')) continue;
    const style = getComputedStyle(e);
    if (style.visibility === 'hidden' || +style.opacity === 0) continue;
    const back = ground(e), front = over(parse(style.color), back), a = light(front), b = light(back);
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05), size = parseFloat(style.fontSize);
    const needed = size >= 24 || size >= 18.5 && +style.fontWeight >= 700 ? 3 : 4.5;
    if (ratio < needed) bad.push(`${ratio.toFixed(1)} "${n.data.trim().slice(0, 40)}" ${e.tagName}.${e.className}`);
  }
  return bad;
}"""


@pytest.fixture(scope="module")
def address():
    with site.serving() as url: yield url


@pytest.fixture(scope="module")
def tab(browser):
    "One tab for all pages; what it says and asks for is kept."
    page = site.new_page(browser, viewport=site.SIZES["desktop"], color_scheme="dark")
    page.said, page.asked = [], []
    page.on("console", lambda m: page.said.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: page.said.append(str(e)))
    page.on("request", lambda r: page.asked.append(r.url))
    yield page
    page.context.close()


ROOMS = tuple(f"{folder.name}/" for folder in (ROOT / "nbs").iterdir() if folder.is_dir() and folder.name[0] not in "_.")
MODULES = [name for name in PAGES if name.startswith(ROOMS)]  # laid out alike


@pytest.mark.parametrize("name", [*(name for name in PAGES if name not in MODULES), *some(MODULES, 60)])
def test_page(tab, address, name):
    "Loads without an error and without another host; plots have marks; dark text can be read; nothing is wider than the screen, also on a phone."
    tab.said.clear(); tab.asked.clear()
    tab.set_viewport_size(site.SIZES["desktop"])
    tab.goto(address + name)
    site.settle(tab)
    assert not tab.said
    assert not [url for url in tab.asked if not url.startswith((address, "data:"))]
    found = tab.evaluate(PLOTS)
    assert not (found["broken"] or found["blank"] or found["empty"]), found
    assert not tab.evaluate(CONTRAST)
    assert tab.evaluate(OVERFLOW) <= 0
    tab.set_viewport_size(site.SIZES["phone"])
    assert tab.evaluate(OVERFLOW) <= 0


def attribute(element, name):
    found = re.search(rf'\b{name}="([^"]*)"', element)
    return found[1] if found else ""


def test_pictures_are_told_in_words():
    "No picture of the site is told by nothing, a hash or the name of a file; figures by a sentence, and a phone has its own drawing of those that are wide."
    texts = {name: (site.SITE / name).read_text(encoding="utf-8") for name in PAGES}
    drawn = 0
    for name, text in texts.items():
        for picture in re.findall(r"<img\b[^>]*>", text):
            source, said = attribute(picture, "src"), attribute(picture, "alt").strip()
            assert said and Path(source).stem not in said and not re.fullmatch(r"\S*\.(png|svg|jpe?g|gif)|[0-9a-f]{12,}\S*", said), (name, picture)
            if re.search(r"_images/[0-9a-f]{20}\.png", source):
                assert len(said) >= 20 and " " in said, (name, picture)
                drawn += 1
        for figure in re.findall(r'<div class="plotly-figure[^>]*>', text): assert " " in attribute(figure, "aria-label"), (name, figure)
        if name[:2].isdigit() and "/" not in name: assert '<source media="(max-width: 600px)"' in text, name
    assert drawn > 100


KINDS = {
    "front": "index.html", "tutorial": "tutorials/own_transactions.html", "how-to with a figure": "howto/review_budget.html",
    "symptoms": "howto/faq.html", "explanation with formulas": "explanations/ndcg.html", "reference": "reference/reports.html",
    "benchmarks": "benchmarks.html", "index": "genindex.html", "search": "search.html", "list of notebooks": "notebooks.html",
    "module": "evaluation/plots.html", "sortable tables": "utils/page.html", "card": "models/model_card.html",
    "exploring": "00_explore_batches.html", "tuning": "04_tune_hyperparameters.html", "scoring": "05_score_batch.html", "comparing": "06_evaluate_models.html"}


@pytest.mark.skipif(site.axe_core() is None, reason="no axe-core: AML_MINER_AXE names its axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, address, scheme):
    "No violation on a page of each kind."
    page = site.new_page(browser, viewport=site.SIZES["desktop"], color_scheme=scheme)
    found = {}
    for kind, name in KINDS.items():
        page.goto(address + name)
        site.settle(page)
        if faults := site.axe_violations(page): found[kind] = faults
    page.context.close()
    assert not found


def test_tables_sort_by_keyboard(browser, address):
    "A heading is a button: Enter and the space bar sort, and the heading says how."
    page = site.new_page(browser, viewport=site.SIZES["desktop"])
    page.goto(address + "utils/page.html")
    table = page.locator(".aml-table table").first
    heading, column = table.locator("th", has_text="alerts"), table.locator("tbody td:last-child")
    alerts = lambda: [int(text.replace(",", "")) for text in column.all_text_contents()]
    for key, order, reverse in (("Enter", "ascending", False), ("Space", "descending", True)):
        heading.locator("button").press(key)
        assert heading.get_attribute("aria-sort") == order and table.locator("th[aria-sort]").count() == 1
        assert alerts() == sorted(alerts(), reverse=reverse) and len(alerts()) > 2
    page.context.close()


def test_figures_fit_the_theme_and_the_screen(browser, address):
    "Their ground is dark in the dark; a phone shows the drawing that was made for it, no wider than its screen."
    shown = {}
    for size, scheme in (("desktop", "light"), ("desktop", "dark"), ("phone", "dark")):
        page = site.new_page(browser, viewport=site.SIZES[size], color_scheme=scheme)
        page.goto(address + "00_explore_batches.html")
        site.settle(page)
        figure = page.locator(".cell_output picture img").first
        corner = imread(BytesIO(figure.screenshot()))[2, 2, :3].mean()
        shown[size, scheme] = figure.evaluate("i => i.currentSrc")
        assert corner > .95 if scheme == "light" else corner < .2, (size, scheme, corner)
        assert figure.bounding_box()["width"] <= site.SIZES[size]["width"]
        page.context.close()
    assert shown["desktop", "light"] == shown["desktop", "dark"] != shown["phone", "dark"]


def test_notebooks_that_are_run_show_plots(tab, address):
    for name in PAGES:
        if name[:2].isdigit() and "/" not in name:
            tab.goto(address + name)
            site.settle(tab)
            assert tab.evaluate(PLOTS)["plots"] >= 1, name


@pytest.mark.parametrize("word, title, places", [
    ("NDCG", "NDCG", 1000), ("csv", "Which start is mine?", 3), ("cost", "What it costs", 3), ("license", "License", 3),
    ("walk_hops_illicit", "Features of an alert", 3)])
def test_search_finds(tab, address, word, title, places):
    tab.set_viewport_size(site.SIZES["desktop"])
    tab.goto(f"{address}search.html?q={word}")
    tab.wait_for_selector("#search-results li a")
    titles = tab.locator("#search-results li").all_inner_texts()[:places]
    assert any(title in t for t in titles), titles


def test_interactive_figure_says_values(browser, address):
    page = site.new_page(browser, viewport=site.SIZES["desktop"])
    page.goto(address + "howto/review_budget.html")
    site.settle(page)
    figure = page.locator(".plotly-figure .nsewdrag").first
    figure.scroll_into_view_if_needed()
    box, said = figure.bounding_box(), page.locator(".plotly-figure .hovertext")
    for turn in range(site.PATIENCE // 100):  # a figure that does not listen yet misses a move
        page.mouse.move(box["x"] + box["width"] * (.55 + .01 * (turn % 10)), box["y"] + box["height"] * .3)
        page.wait_for_timeout(100)
        if said.count(): break
    assert "read" in said.first.text_content()
    page.context.close()


def test_theme_can_be_chosen(browser, address):
    page = site.new_page(browser, viewport=site.SIZES["desktop"], color_scheme="light")
    page.goto(address + "index.html")
    for wanted in ("dark", "light"):
        page.locator("button.theme-switch-button:visible").first.click()
        page.locator(f"button.theme-change-button[data-mode={wanted}]:visible").first.click()
        assert page.evaluate("document.documentElement.dataset.theme") == wanted
    page.context.close()


def test_every_page_offers_its_notebook(tab, address):
    for name in PAGES:
        if name in ("search.html", "genindex.html", "py-modindex.html"): continue
        text = (site.SITE / name).read_text(encoding="utf-8")
        assert f"_notebooks/{name.removesuffix('.html')}.ipynb" in text, name
