"""The page in a real browser: Debian's Chromium, headless, by Playwright."""

from __future__ import annotations

import csv
import io
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from page_runs import EVIL, FAMILIES

import daskim
from daskim.lake import read_reviewed
from daskim.report.page import write_page
from daskim.report.words import visible

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install daskim[test]")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# Elements of the page at any time.
ELEMENTS = 1500
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
# The picture of an entry that opens the dialog: not the kept one.
TILE = ".entry button.tile:not(.kept)"


@dataclass
class Opened:
    """A page in the browser, and what it said and asked for."""

    page: playwright.Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def count(self, selector: str) -> int:
        return self.page.locator(selector).count()

    def elements(self) -> int:
        return self.page.evaluate("document.querySelectorAll('*').length")

    def text(self, selector: str) -> str:
        return self.page.locator(selector).first.inner_text()

    def tab(self, name: str) -> None:
        self.page.click(f"#tab-{name}")

    def told(self) -> str:
        """How many entries are found."""
        return self.text("#panel .found > span")

    def until(self, script: str) -> None:
        """Wait until a script is true; Playwright's own way to wait evaluates a text, which the policy refuses."""
        end = time.monotonic() + 10
        while not self.page.evaluate(script):
            assert time.monotonic() < end, script
            time.sleep(0.02)


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    where = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if where is None:
        pytest.skip("no Chromium: install Debian's chromium, or name one by CHROMIUM")
    with playwright.sync_playwright() as made:
        browser = made.chromium.launch(executable_path=where, args=[*ARGUMENTS, "--no-first-run"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: playwright.Browser) -> Iterator[Open]:
    """`opened(run, viewport, scheme)`; afterwards the page must have said nothing and asked for nothing."""
    pages: list[Opened] = []

    def open_page(
        found: daskim.FinishedRun, viewport: dict[str, int] = DESK, scheme: str = "light", *, scripts: bool = True
    ) -> Opened:
        context = browser.new_context(
            viewport=viewport, color_scheme=scheme, java_script_enabled=scripts, offline=True, accept_downloads=True
        )
        if not (Path(found.run) / "report.html").exists():
            write_page(found)
        one = Opened(context.new_page())
        pages.append(one)
        url = (Path(found.run) / "report.html").as_uri()
        one.page.on("console", lambda message: one.said.append(message.text))
        one.page.on("pageerror", lambda error: one.said.append(str(error)))
        one.page.on("dialog", lambda dialog: dialog.accept())
        one.page.on("request", lambda request: one.asked.append(request.url))
        one.page.goto(url)
        if scripts:
            one.until("document.documentElement.dataset.ready")
        return one

    yield open_page
    for one in pages:
        assert one.said == []
        assert [url for url in one.asked if not url.startswith(("data:", "blob:"))] == one.asked[:1]
        one.page.context.close()


def test_nothing_hostile_runs_and_all_of_it_is_seen(hostile: daskim.FinishedRun, opened: Open) -> None:
    one = opened(hostile)
    assert one.count("#tabs button") >= 5
    for name in ("families", "influential", "borderline", "anomalies", "extremes", "broken", "decisions"):
        one.tab(name)
        one.page.wait_for_selector("#panel .entry, #panel table")
        assert one.elements() <= ELEMENTS
        assert one.page.evaluate("typeof window.broken") == "undefined"
        assert one.count("#panel img[src='x'], #panel script") == 0
        assert not set("\u202e\u2066\u200b\u0007") & set(one.text("#panel"))
    text = one.text("#panel")  # every id, as it is
    assert EVIL[0] in text
    assert "photo\\u202egpj.exe" in text
    assert "{{ 7 * 7 }}" in text
    one.tab("broken")
    assert EVIL[2] in one.text("#panel table")


def test_filters_order_and_pages(hostile: daskim.FinishedRun, opened: Open) -> None:
    one = opened(hostile)
    one.tab("families")
    assert one.told() == f"{FAMILIES} families"
    assert one.count(".entry") == 8
    assert one.count(".entry .tile.kept") == 8
    first = one.text(".entry")
    one.page.click(".pager >> text=Next")
    assert one.count(".entry") == FAMILIES - 8
    assert one.text(".pager span") == "Page 2 of 2"
    one.page.click(".pager >> text=Back")
    assert one.text(".entry") == first
    one.page.select_option(".filters label:has-text('Label') select", value=EVIL[1])
    one.until("document.querySelectorAll('.entry').length === 2")
    one.page.select_option(".filters label:has-text('Label') select", value="")
    one.page.fill(".filters input[type=search]", "000/<img")
    one.until("document.querySelectorAll('.entry').length === 1")
    assert one.told() == f"1 of {FAMILIES} families"
    one.page.fill(".filters input[type=search]", "no such id")
    one.until("document.querySelectorAll('.entry').length === 0")
    one.page.fill(".filters input[type=search]", "")
    one.page.fill(".filters label:has-text('Similarity from') input", "1")
    exact = hostile.plan[hostile.plan["similarity"].round(5) >= 1]["kept_id"].nunique()
    assert 0 < exact < FAMILIES
    one.until(f"document.querySelector('.found > span').textContent === '{exact} of {FAMILIES} families'")
    one.page.fill(".filters label:has-text('Similarity from') input", "")
    one.until(f"document.querySelector('.found > span').textContent === '{FAMILIES} families'")
    one.page.select_option(".filters label:has-text('Order') select", "least")
    lows = hostile.plan.groupby("kept_id")["similarity"].min().sort_values()
    assert f"{math.floor(1000 * lows.iloc[0]) / 1000:.3f}" in one.text(".entry")
    one.tab("decisions")
    one.page.wait_for_selector("#panel table")
    one.page.select_option(".filters label:has-text('Decision') select", "drop")
    assert one.told() == f"{(hostile.plan['decision'] == 'drop').sum()} images"
    one.page.select_option(".filters label:has-text('Split') select", "test")
    dropped = hostile.plan[(hostile.plan["decision"] == "drop") & (hostile.plan["split"] == "test")]
    assert one.told() == f"{len(dropped)} image" + "s" * (len(dropped) != 1)


def test_pairs_by_keyboard_alone(hostile: daskim.FinishedRun, opened: Open) -> None:
    one = opened(hostile)
    keys = one.page.keyboard
    one.page.focus("#tab-families")
    keys.press("ArrowRight")
    assert one.page.evaluate("document.activeElement.id") == "tab-influential"
    assert one.page.get_attribute("#tab-influential", "aria-selected") == "true"
    keys.press("Home")
    keys.press("j")
    keys.press("j")
    assert one.page.evaluate("document.activeElement.closest('.entry').dataset.place") == "1"
    keys.press("k")
    keys.press("Enter")
    one.page.wait_for_selector("dialog[open]")
    assert one.text("#pair-title").startswith(f"Families: 1 of {FAMILIES}")
    assert "kept" in one.text("dialog .side .badge")
    assert one.elements() <= ELEMENTS
    for key, selector in (("x", "dialog canvas"), ("b", "dialog canvas"), ("b", "dialog .sides")):
        keys.press(key)
        one.page.wait_for_selector(selector)
    keys.press("x")
    one.until("document.querySelector('.stage .badge').textContent.includes('grey levels')")
    shown = "document.querySelector('#pair-title').textContent"
    before = one.page.evaluate(shown)
    keys.press("ArrowRight")
    one.until(f"{shown} !== {before!r}")
    keys.press("k")
    one.until(f"{shown} === {before!r}")
    keys.press("Escape")
    one.until("!document.querySelector('dialog').open")
    one.until("document.activeElement.closest('.entry')?.dataset.place === '0'")  # focus goes back a moment later
    for _ in range(FAMILIES - 1):  # on to the next page
        keys.press("j")
    one.until("document.querySelector('.pager span').textContent === 'Page 2 of 2'")


def test_the_difference_of_a_mirrored_copy_is_small_once_aligned(hostile: daskim.FinishedRun, opened: Open) -> None:
    one = opened(hostile)
    one.page.click(TILE + ":has-text('0.9') >> nth=0")
    while "mirrored" not in one.text("dialog .facts"):
        one.page.keyboard.press("j")
    one.page.keyboard.press("x")
    mean = "parseFloat(document.querySelector('.stage .badge').textContent.split('mean ')[1])"
    one.until(f"{mean} >= 0")
    aligned = one.page.evaluate(mean)
    one.page.uncheck("dialog input[type=checkbox]")
    one.until(f"{mean} > {aligned}")
    assert aligned < 12
    assert one.page.evaluate(mean) > 2 * aligned


def test_verdicts_are_saved_as_a_file_that_a_run_reads(
    hostile: daskim.FinishedRun, opened: Open, tmp_path: Path
) -> None:
    one = opened(hostile)
    keys = one.page.keyboard
    one.page.click(TILE)
    wanted = []
    for key, verdict in (("s", "same"), ("d", "different"), ("o", "keep-b")):
        ids = [words.strip() for words in one.page.locator("dialog .side .id").all_inner_texts()]
        keys.press(key)
        assert one.count("dialog .judge button[aria-pressed=true]") == 1
        wanted.append((ids, verdict))
        keys.press("j")
    keys.press("k")
    keys.press("d")
    keys.press("d")  # taken back
    keys.press("o")
    keys.press("Escape")
    assert one.text("#verdicts p").startswith("3 verdicts.")
    with one.page.expect_download() as started:
        one.page.click("#save")
    assert started.value.suggested_filename == "reviewed.csv"
    file = tmp_path / "reviewed.csv"
    started.value.save_as(file)
    [head, *rows] = list(csv.reader(io.StringIO(file.read_bytes().decode("utf-8"), newline="")))
    assert head == ["a", "b", "verdict"]
    known = set(hostile.images["id"])
    kept = hostile.plan.dropna(subset=["kept_id"]).set_index("id")["kept_id"]
    for (ids, verdict), (a, b, said) in zip(wanted, rows):
        assert {a, b} <= known
        swapped = kept.get(a) == b
        assert kept.get(b) == a or swapped
        assert said == ({"keep-b": "keep-a"}.get(verdict, verdict) if swapped else verdict)
        assert {shown(a), shown(b)} == {" ".join(name.split()) for name in ids}
    found = read_reviewed(str(file))
    assert list(zip(found.a, found.b, found.verdict)) == [tuple(row) for row in rows]
    one.page.reload()
    one.until("document.documentElement.dataset.ready")
    assert one.text("#verdicts p").startswith("3 verdicts.")  # kept by the browser
    one.asked.pop()
    one.page.click("#forget")
    assert not one.page.is_visible("#verdicts")


def shown(name: str) -> str:
    """An id as the page shows it, its spaces run together."""
    return " ".join(visible(name).split())


@pytest.mark.parametrize("state", ["light", "dark", "phone", "dialog"])
def test_axe_finds_nothing(hostile: daskim.FinishedRun, opened: Open, state: str) -> None:
    one = opened(hostile, PHONE if state == "phone" else DESK, "dark" if state == "dark" else "light")
    if state == "dialog":
        one.page.click(TILE)
        one.page.keyboard.press("s")
        one.page.keyboard.press("x")
    if state == "dark":
        one.tab("decisions")
        one.page.wait_for_selector("#panel table")
    found = axe.Axe().run(one.page, options=RULES).response["violations"]
    assert [(rule["id"], node["html"][:200]) for rule in found for node in rule["nodes"]] == []
    if state == "phone":
        assert one.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        bottom = one.page.locator(".next .command").first.bounding_box()
        assert bottom is not None
        assert bottom["y"] + bottom["height"] < PHONE["height"]  # the answer and the next command without scrolling


def test_without_scripts_the_answer_and_the_figures_stay(hostile: daskim.FinishedRun, opened: Open) -> None:
    one = opened(hostile, scripts=False)
    assert "redundant" in one.text("h1")
    assert one.page.locator(".next code").first.is_visible()
    assert one.page.locator("figure.drawn").count() >= 3
    assert one.page.locator("figure.drawn svg, figure.drawn img").first.is_visible()
    assert "need scripts" in one.text("noscript")
    assert not one.page.is_visible("#tabs")
    assert not one.page.is_visible(".copy")


def test_the_theme_turns_and_stays(hostile: daskim.FinishedRun, opened: Open) -> None:
    one = opened(hostile)
    back = "getComputedStyle(document.body).backgroundColor"
    light = one.page.evaluate(back)
    one.page.click("#theme")
    dark = one.page.evaluate(back)
    assert dark != light
    one.page.reload()
    one.until("document.documentElement.dataset.ready")
    one.asked.pop()
    assert one.page.evaluate(back) == dark


def test_a_page_at_its_bound_opens_and_filters_at_once(large: daskim.FinishedRun, opened: Open) -> None:
    """30,000 images, 5 MB. Measured on two busy cores: ready in 0.3 s; bounds here are wide, for any machine."""
    one = opened(large)
    assert float(one.page.evaluate("document.documentElement.dataset.ready")) < 3000
    assert one.elements() <= ELEMENTS
    one.tab("decisions")
    one.page.wait_for_selector("#panel table")
    one.page.fill(".filters input[type=search]", "image 0000123")
    one.until("document.querySelector('.found > span').textContent === '10 images'")
    assert float(one.page.evaluate("document.querySelector('#panel').lastElementChild.dataset.milliseconds")) < 500
    assert "Shown are" not in one.text("#panel")
    one.tab("families")
    assert "of 3,000 families: in turn the largest" in one.text("#panel .note")


def test_a_comparison(report_runs: dict[str, daskim.FinishedRun], opened: Open) -> None:
    found = report_runs["compare"]
    one = opened(found)
    one.tab("leaks")
    assert one.count(".entry") == found.summary["leakage"]["images"]
    assert "different labels" in one.text("#panel")
    one.page.click(".entry button.tile")
    assert one.count("dialog .judge button") == 6  # same, different, left, right, and the two steps
    one.page.keyboard.press("l")
    assert one.text("dialog .judge button[aria-pressed=true]").startswith("Keep left")
