"""The queue page as an investigator uses it: in a browser, by mouse and keyboard, on a phone, printed, with texts that mean harm; and its marks read back."""
import csv
from html.parser import HTMLParser
from importlib.util import find_spec
import json
import os
from pathlib import Path
import re
import sys

from conftest import ROOT
import pytest

from aml_miner.batches.loader import read_batch
from aml_miner.batches.outcome_events import EVENT_COLUMNS, outcomes, read_events
from aml_miner.scoring.score_batch import score_batch
from aml_miner.config.model_config import load_config
from aml_miner.testing.small_models import small_models
from aml_miner.testing.tiny_batch import tiny_batch

sys.path.insert(0, str(ROOT / "nbs" / "_docs"))
from browser import SIZES, new_page  # noqa: E402

EVIL = "</script><img src=x onerror=\"document.title='taken'\">\u202e'&"
IDS = {"a01": "=1+1", "a02": "@sum", "a03": "-5", "a04": "+x", "a05": "-\tx", "a06": "'=y", "a07": EVIL, "a08": "../../up", "a09": "zebra",
       "a10": "a,\"b\"\r\nc"}


REVIEW = load_config(overrides={"review": {"budget": 8, "explore_share": 0.25}}).review  # six above the line, two of four drawn below it


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A day whose texts mean harm, scored; its folder and scores."
    folder = tmp_path_factory.mktemp("queue")
    days = [tiny_batch(folder / "days" / day, day) for day in ("2025-09-01", "2025-09-02", "2025-09-03")]
    models = small_models(folder / "models", [read_batch(day) for day in days], trees=5)
    def alerts(a): return a.assign(alert_id=a.alert_id.map(IDS), description=EVIL + a.description, address=a.address.replace("dave", EVIL))
    hostile = tiny_batch(
        folder / "hostile", "2025-09-04", alerts=alerts,
        clusters=lambda c: c.assign(related_alert_ids=c.related_alert_ids.map(lambda ids: [IDS[i] for i in ids]), cluster_type=EVIL),
        money_flows=lambda f: f.assign(asset=EVIL))
    scores, _ = score_batch(hostile, models, folder / "out", explain_top=6, num_threads=1, latency=False, no_history=True, review=REVIEW)
    return folder / "out", scores


@pytest.fixture
def tab(browser, made):
    "The page in a tab; what it says and asks for is kept."
    page = new_page(browser, viewport=SIZES["desktop"])
    page.said, page.asked = [], []
    page.on("console", lambda m: page.said.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: page.said.append(str(e)))
    page.on("request", lambda r: page.asked.append(r.url))
    page.goto((made[0] / "queue.html").as_uri())
    yield page
    assert not page.said and not [url for url in page.asked if not url.startswith(("file:", "blob:"))]
    page.context.close()


def saved(tab, action, path):
    "What a button of the page lets one keep."
    with tab.expect_download() as download: tab.locator(f"[data-do={action}]").dispatch_event("click")
    download.value.save_as(path)
    return path


def focus_text(tab): return tab.evaluate("document.activeElement.textContent")


def test_reads_sorts_and_filters_by_keyboard(tab, made):
    "Cases are in the order of their best alerts; j, k and arrows move, Enter opens, a heading sorts and says so, the search leaves what fits."
    assert tab.title().startswith("Queue of 2025-09-04")
    cases = tab.locator("tbody[data-case]").count()
    assert tab.locator("tr.more:visible").count() == 1  # the first is open
    shown = [int(re.search(r"Rank (\d+)", text)[1]) for text in tab.locator("article h3").all_text_contents()]
    assert sorted(shown) == list(range(1, len(made[1].queue) + 1))
    best = [int(re.search(r"Rank (\d+)", tab.locator("tbody[data-case]").nth(i).locator("h3").first.text_content())[1]) for i in range(cases)]
    assert best == sorted(best)
    tab.keyboard.press("j"); assert focus_text(tab) == "1"
    tab.keyboard.press("j"); assert focus_text(tab) == "2"
    tab.keyboard.press("ArrowDown"); assert focus_text(tab) == "3"
    tab.keyboard.press("k"); assert focus_text(tab) == "2"
    tab.keyboard.press("Enter"); assert tab.locator("tr.more:visible").count() == 2
    heading = tab.locator("th[data-by=volume]")
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending" and tab.locator("#cases > thead th[aria-sort]").count() == 1
    def volumes(): return [float(re.sub(r"[^\d.]", "", text)) for text in tab.locator("tr.case td[data-h=largest]").all_text_contents()]
    falling = volumes()
    assert falling == sorted(falling, reverse=True)
    heading.locator("button").press("Enter")
    assert volumes() == sorted(falling) and heading.get_attribute("aria-sort") == "ascending"
    tab.locator("body").press("/")
    tab.keyboard.type("ZEBRA")
    assert tab.locator("tbody[data-case]:visible").count() == 1 and "1 of" in tab.locator("#say").text_content()
    tab.keyboard.press("Escape")
    assert tab.locator("tbody[data-case]:visible").count() == cases
    tab.locator("summary", has_text="export").click()
    tab.locator("#keys").uncheck()
    tab.locator("tr.case button").first.focus()
    tab.keyboard.press("j"); assert focus_text(tab) != "2" or tab.locator("tr.case button").first.text_content() == "2"


def test_marks_go_out_and_come_back(tab, made, tmp_path):
    "An outcome needs a name; it stays over a reload; a second click withdraws it; CSV and JSON say the same, with the ids as they are, and are read back."
    ids = {alert["rank"]: alert["alert_id"] for alert in json.loads(tab.locator("#data").text_content())["alerts"]}
    assert ids == dict(zip(made[1].queue["rank"], made[1].queue.alert_id))
    def mark(rank, event): tab.locator(f'[aria-label="Outcome of the alert at rank {rank}"] [data-event={event}]').dispatch_event("click")
    drawn = [rank for rank, because in zip(made[1].queue["rank"], made[1].queue.read_because) if because == "exploration"]
    tab.locator("[data-do=drawn]").click()
    assert len(drawn) == 2 and f"drawn below the line: the alert at rank {drawn[0]}" in tab.locator("#say").text_content()
    assert tab.locator("h3", has_text="drawn below the line").count() == 2
    mark(1, "reported")
    assert "Name the reviewer" in tab.locator("#say").text_content() and focus_text(tab) == ""
    tab.locator("#reviewer").fill("=Kim")
    for rank in ids: mark(rank, "closed_false")
    mark(1, "reported"); mark(2, "closed_false")
    tab.reload()
    assert tab.locator("#count").text_content() == str(len(ids) - 1) and tab.locator("#reviewer").input_value() == "=Kim"
    assert tab.locator('[aria-label="Outcome of the alert at rank 1"] [aria-pressed=true]').text_content() == "illicit"
    mark(2, "escalated")
    tab.locator("[data-do=drawn]").dispatch_event("click")
    assert "every alert that was drawn" in tab.locator("#say").text_content()
    files = [saved(tab, f"events-{kind}", tmp_path / f"e.{kind}") for kind in ("csv", "json")]
    read = [read_events(file, ids.values(), "2025-09-04") for file in files]
    assert read[0].equals(read[1]) and len(read[0]) == len(ids) + 3
    found = outcomes(read[0]).set_index("alert_id")
    assert found.event.to_dict() == {ids[rank]: "reported" if rank == 1 else "escalated" if rank == 2 else "closed_false" for rank in ids}
    because = json.loads(tab.locator("#data").text_content())["alerts"]
    assert found.read_because.to_dict() == {a["alert_id"]: a["read_because"] or "ad_hoc" for a in because} and found.reviewer.eq("=Kim").all()
    assert found.inclusion_probability.dropna().to_dict() == {a["alert_id"]: a["inclusion_probability"] for a in because if a["read_because"]}
    assert {*found.read_because} == {"queue", "exploration", "ad_hoc"}
    with files[0].open(newline="") as lines: cells = list(csv.reader(lines))
    assert cells[0] == EVENT_COLUMNS and not [cell for row in cells for cell in row if cell[:1] in tuple("=+-@\t\r")]
    assert tab.locator("td.marked", has_text="unread").count() == 0


def test_the_queue_goes_out_as_a_table(tab, made, tmp_path):
    "Every shown alert once, no cell that a spreadsheet would run, numbers as numbers."
    with saved(tab, "queue-csv", tmp_path / "q.csv").open(newline="") as lines: rows = list(csv.DictReader(lines))
    assert [int(row["rank"]) for row in sorted(rows, key=lambda row: int(row["rank"]))] == made[1].queue["rank"].tolist()
    assert not [cell for row in rows for cell in row.values() if cell[:1] in tuple("=+-@\t\r")]
    assert {row["alert_id"].lstrip("'") for row in rows} == {i.lstrip("'") for i in IDS.values()}
    tab.locator("#filter").fill("zebra")
    with saved(tab, "queue-csv", tmp_path / "one.csv").open(newline="") as lines: assert [row["alert_id"] for row in csv.DictReader(lines)] == ["zebra"]


def test_prints_all_and_fits_a_phone(tab):
    "Printed, every case and every detail is there and no button; on a phone nothing is wider than the screen, also with all unfolded."
    tab.emulate_media(media="print")
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("tr.more:visible").count() == tab.locator("tr.more").count() > 1
    assert tab.locator("main details:not([open])").count() == 0 and tab.locator(".outcome button:visible, .tools:visible").count() == 0
    tab.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert tab.locator("main details[open]").count() == 0
    tab.emulate_media(media="screen")
    tab.set_viewport_size(SIZES["phone"])
    tab.locator("[data-do=open-all]").click()
    tab.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert tab.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0


def test_without_scripts_or_storage(browser, made):
    "Without scripts everything is shown and nothing that needs them; where nothing can be kept, the page says so and still gives the outcomes out."
    address = (made[0] / "queue.html").as_uri()
    page = new_page(browser, java_script_enabled=False)
    page.goto(address)
    assert page.locator("tr.more:visible").count() == page.locator("tr.more").count() and page.locator(".tools:visible, .outcome:visible").count() == 0
    page.context.close()
    page = new_page(browser)
    page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('refused'); }})")
    page.goto(address)
    assert page.locator("#loses").is_visible()
    page.locator("#reviewer").fill("Kim")
    page.locator("[data-event=reported]").first.click()
    assert page.locator("#count").text_content() == "1"
    page.context.close()


def axe():
    "The program of axe-core, named by AML_MINER_AXE or in a Python package that brings it; None where there is none."
    places = [Path(named)] if (named := os.environ.get("AML_MINER_AXE")) else [ROOT / "node_modules" / "axe-core" / "axe.min.js"]
    if spec := find_spec("axe_playwright_python"): places += Path(spec.origin).parent.rglob("axe.min.js")
    return next((place for place in places if place.is_file()), None)


@pytest.mark.skipif(axe() is None, reason="no axe-core: AML_MINER_AXE names its axe.min.js")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, made, size, scheme):
    "No violation, with all unfolded, on the queue and on a page of evidence."
    for name in ("queue.html", next((made[0] / "evidence").glob("*.html")).relative_to(made[0])):
        page = new_page(browser, viewport=SIZES[size], color_scheme=scheme, bypass_csp=True)
        page.goto((made[0] / name).as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        page.evaluate("document.querySelectorAll('tr.more').forEach(r => { r.hidden = false; })")
        page.add_script_tag(path=axe())
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        assert not [(v["id"], v["nodes"][0]["html"][:200]) for v in found]
        page.context.close()


class Elements(HTMLParser):
    "The elements and attributes of a page."
    def __init__(self, html): super().__init__(); self.found, self.texts = [], []; self.feed(html)

    def handle_starttag(self, tag, attrs): self.found.append((tag, dict(attrs)))

    def handle_data(self, data): self.texts.append(data)


def test_texts_of_a_batch_stay_texts(made):
    "No element, attribute or address of a page comes from the data; file names are plain; pages reach no host."
    pages = [*made[0].glob("**/*.html")]
    assert len(pages) == 9
    for path in made[0].rglob("*"): assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", path.name), path
    for path in pages:
        text = path.read_text()
        page = Elements(text)
        assert not {tag for tag, _ in page.found} & {"img", "iframe", "object", "link", "base", "form"} and "\u202e" not in text
        assert not [name for _, attrs in page.found for name in attrs if name.startswith("on") or name in ("src", "srcdoc", "action")]
        links = [attrs["href"] for tag, attrs in page.found if tag == "a"]
        assert all(re.fullmatch(r"evidence/[A-Za-z0-9._-]+\.(html|json)", link) and (made[0] / link).is_file() for link in links)
        assert "<img src=x" in "".join(page.texts)  # shown as it is


def test_same_bytes_again(made, tmp_path):
    folder, scores = made
    score_batch(scores.batch.path, folder.parent / "models", tmp_path / "again", explain_top=6, num_threads=1, latency=False, no_history=True, review=REVIEW)
    first, second = ({p.relative_to(where).as_posix(): p.read_bytes() for p in where.rglob("*") if p.is_file()} for where in (folder, tmp_path / "again"))
    assert first == second
