"""The docs site in a real browser. Needs what `make docs` builds, Playwright, and a Chromium; skipped, with the reason, without them."""
from pathlib import Path
import sys

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
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


@pytest.mark.parametrize("name", PAGES)
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
