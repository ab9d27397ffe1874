"""A report in a real Chromium, without a window: no error, no request, and what a reader does with it.

``bash tools/report_browser.sh`` runs these tests and installs Chromium where Debian's packages are there;
``python -m pytest`` does not collect them. ``FASTFID_SCREENSHOTS=DIR`` keeps the pictures of the pages.
"""

import io
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from PIL import Image
from report_pages import MARKUP, two_folders
from stubs import GridMeans

from fastfid.errors import SuspiciousInputWarning
from fastfid.report.make import make_report

WIDTHS = (1280, 400)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SuspiciousInputWarning)  # there are copies
        make_report(
            *two_folders(folder), folder / "a report.html", extractor=GridMeans(), recursive=True, labels="folder"
        )
    return folder / "a report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    running = Browser(tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_opens_without_a_problem_and_fits_its_window(browser, page, tmp_path, width, dark):
    browser.open(page, width=width, dark=dark)
    pictures = Path(os.environ.get("FASTFID_SCREENSHOTS", tmp_path))
    shot = pictures / f"report-{width}-{'dark' if dark else 'light'}.png"
    browser.screenshot(shot)
    assert browser.problems() == []
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
    levels = np.asarray(Image.open(io.BytesIO(shot.read_bytes())).convert("L"))
    assert (np.median(levels) < 128) == dark
    assert levels.std() > 10  # it is not blank


def test_the_sections_are_there_and_the_links_lead_to_them(browser, page):
    browser.open(page)
    titles = browser.run("[...document.querySelectorAll('section h2')].map((h) => h.textContent)")
    assert len(titles) == 10
    assert titles[0] == "Metrics"
    links = browser.run("[...document.querySelectorAll('nav a')].map((a) => [a.textContent, a.hash])")
    assert [text for text, _ in links] == titles
    for _, anchor in links:
        assert browser.run(f"document.querySelector('{anchor}') !== null")
    assert browser.run("document.images.length") > 100


def rows(browser):
    return browser.run(
        "[...document.querySelector('table.sortable').tBodies[0].rows].map((r) => r.cells[0].textContent)"
    )


def test_a_table_sorts_by_a_click_and_by_the_keyboard(browser, page):
    browser.open(page)
    assert rows(browser) == ["light", "dark"]  # the worst first
    button = "document.querySelectorAll('table.sortable thead button')[{}]"
    browser.run(f"{button.format(0)}.click()")
    assert rows(browser) == ["light", "dark"]
    browser.run(f"{button.format(0)}.click()")
    assert rows(browser) == ["dark", "light"]
    browser.run(f"{button.format(1)}.focus()")  # n real: 30 and 10
    browser.press("Enter", 13, "\r")
    assert rows(browser) == ["dark", "light"]
    assert browser.run(f"{button.format(1)}.parentElement.ariaSort") == "descending"
    browser.press("Enter", 13, "\r")
    assert rows(browser) == ["light", "dark"]
    assert browser.problems() == []


def test_the_first_stop_of_the_keyboard_leads_to_the_content(browser, page):
    browser.open(page)
    browser.press("Tab", 9)
    assert browser.run("document.activeElement.className") == "skip"
    assert browser.run("document.activeElement.getBoundingClientRect().left >= 0")


def test_markup_in_a_name_does_nothing(browser, page):
    browser.open(page)
    assert browser.run("document.title").startswith(str(page.parent / "fake"))
    names = browser.run("[...document.querySelectorAll('.name')].map((e) => e.textContent)")
    assert f"dark/07{MARKUP}.png" in names
    assert browser.run("document.querySelectorAll('main b, main [onerror]').length") == 0


def test_a_foreign_script_does_not_run(browser, page, tmp_path):
    text = page.read_text()
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text(text.replace("</main>", "<script>document.title = 'ran'</script></main>"))
    browser.open(spoilt)
    assert browser.run("document.title") != "ran"
    assert any("Content Security Policy" in str(problem) for problem in browser.problems())


def test_a_page_reads_without_its_script(browser, page):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.run("document.querySelectorAll('button').length") == 0
    assert rows(browser) == ["light", "dark"]


def test_text_has_contrast(browser, page):
    """WCAG 2.2 asks for 4.5 to 1; the colours are those of the page's variables."""

    def luminance(colour):
        digits = colour.strip().lstrip("#")
        digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
        shares = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for dark in (False, True):
        browser.open(page, dark=dark)
        get = "getComputedStyle(document.documentElement).getPropertyValue('--{}')"
        of = {
            name: luminance(browser.run(get.format(name))) for name in ("text", "quiet", "link", "page", "box", "line")
        }
        for front in ("text", "quiet", "link"):
            for back in ("page", "box"):
                low, high = sorted((of[front], of[back]))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (dark, front, back)


def test_a_page_prints_on_white_paper(browser, page, tmp_path):
    browser.open(page, dark=True)
    browser.pdf(tmp_path / "page.pdf")
    data = (tmp_path / "page.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 40
    browser.call("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.run("getComputedStyle(document.documentElement).getPropertyValue('--page').trim()") == "#fff"
    assert browser.run("getComputedStyle(document.querySelector('nav')).display") == "none"
