"""A page of pictures, opened from the disk in a headless Chromium as a person would open it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import paint
from crosscontext.gallery import Section, Tile, write_gallery

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium is installed (Debian: apt-get install chromium)", allow_module_level=True)
pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")

from playwright.sync_api import Browser, sync_playwright  # noqa: E402  # after the skips

FOCUSED = "document.activeElement.querySelector('img')?.alt"
GROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    names = ["a.jpg", "<b> & 'ü'.jpg", f"{'long' * 40}.jpg"]
    for number, name in enumerate(names):
        paint(folder / name, number, 0, 300)
    tiles = [
        Tile(folder / name, name, "similarity 0.5", "query" if name == "a.jpg" else "") for name in names
    ]
    write_gallery(folder / "page.html", "Found", ["A fact."], [Section("One", "A note.", tuple(tiles))])
    return folder / "page.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield chromium
        chromium.close()


def test_pictures_load_and_the_console_is_silent(file: Path, browser: Browser) -> None:
    page = browser.new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("requestfailed", lambda request: trouble.append(request.url))
    page.goto(file.as_uri())
    assert page.evaluate("[...document.images].map((i) => i.naturalWidth)") == [192, 192, 192]
    assert trouble == []
    page.close()


def test_the_tab_key_walks_through_the_pictures_and_enter_opens_one(file: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(file.as_uri())
    seen = []
    for _ in range(2):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(FOCUSED))
    assert seen == ["a.jpg", "<b> & 'ü'.jpg"]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.url == (file.parent / "<b> & 'ü'.jpg").as_uri()
    page.close()


def test_it_fits_a_phone_and_the_dark(file: Path, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme="dark")
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    dark = page.evaluate(GROUND)
    page.emulate_media(color_scheme="light")
    assert (page.evaluate(GROUND), dark) == ("rgb(255, 255, 255)", "rgb(23, 23, 26)")
    page.close()
