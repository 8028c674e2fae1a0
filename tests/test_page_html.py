"""The page of `ltx report`, read by a real browser without a window."""

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from axe_core_python.sync_playwright import Axe
from conftest import TINY
from playwright.sync_api import sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NAME = "<img src=x onerror=alert(1)>"
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as tool:
        chromium = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The page of a run whose experiment a stranger has named."""
    here = tmp_path_factory.mktemp("page")
    ltx = lambda *words: subprocess.run([sys.executable, "-m", "ltx", *words], cwd=here, check=True)
    ltx("run", *TINY, "out=runs")
    (folder,) = (path.parent for path in here.glob("runs/*/*/levels.csv"))
    levels = pd.read_csv(folder / "levels.csv")
    levels.assign(config=NAME).to_csv(folder / "levels.csv", index=False)
    ltx("report", str(folder), "--out", "page.html")
    return here / "page.html"


def opened(browser, file, **how):
    """The page in a browser, with all that it complained of and asked the network for."""
    page, heard = browser.new_page(**how), []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("dialog", lambda dialog: heard.append(dialog.message))
    page.on("request", lambda request: heard.append(request.url))
    page.goto(file.as_uri())
    assert heard.pop(0) == file.as_uri()
    return page, heard


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_readable_at_every_width_and_in_both_schemes(browser, file, width, scheme):
    page, heard = opened(browser, file, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = Axe().run(page)["violations"]
    assert not found, json.dumps([(one["id"], one["nodes"][0]["html"]) for one in found], indent=1)
    assert heard == []
    page.close()


@needs_browser
def test_a_strangers_name_is_text(browser, file):
    page, heard = opened(browser, file)
    assert page.locator("h1").inner_text() == NAME
    assert page.locator("img").count() == 0
    assert heard == []
    page.close()


@needs_browser
def test_tables_sort_by_click_and_by_keyboard(browser, file):
    page, _ = opened(browser, file)
    head = page.locator("table.sortable th").first
    first = lambda: page.locator("table.sortable").first.locator("tbody td:first-child").all_inner_texts()
    assert first() == ["100", "81.3", "66.3"]
    head.locator("button").click()
    assert (head.get_attribute("aria-sort"), first()) == ("ascending", ["66.3", "81.3", "100"])
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert (head.get_attribute("aria-sort"), first()) == ("descending", ["100", "81.3", "66.3"])
    page.close()


@needs_browser
def test_without_script_and_on_paper_all_of_it_is_there(browser, file):
    page, heard = opened(browser, file, java_script_enabled=False)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("table").first.is_visible()
    assert "of weights: " in page.locator("circle + title").first.text_content()
    assert page.locator("figure").count() >= 2
    assert heard == []
    page.close()


def test_the_answer_is_made_from_the_numbers(file):
    text = file.read_text()
    assert "Smallest matching ticket: " in text
    assert "networks from 2 seeds" in text
    assert "pruned weights exactly zero" in text  # a check, with how often it held
