"""The page of a run, opened from the disk in a headless Chromium as a person would open it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from shown_run import page_of, scored, trained

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium is installed (Debian: apt-get install chromium)", allow_module_level=True)
pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright  # noqa: E402  # after the skips

OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
MARGIN = 16  # around the map, as in report.js
PHONE, DESK = ViewportSize(width=360, height=740), ViewportSize(width=1280, height=800)

CONTRAST = """
() => {
  const part = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((value) => part(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at !== null; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  const read = "p, a, h2, .badge, .hint, dt, dd, figcaption, .label, .tools button";
  for (const element of document.querySelectorAll(read)) {
    const [one, other] = [light(getComputedStyle(element).color), light(ground(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    found.push([contrast, element.outerHTML.slice(0, 80)]);
  }
  return found.sort((one, other) => one[0] - other[0]);
}
"""


class Opened(NamedTuple):
    """A page, and what went wrong with it."""

    page: Page
    trouble: list[str]
    """Messages of the console that are errors or warnings, exceptions, and requests."""


@pytest.fixture(scope="module")
def file(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = trained(image_folder, tmp_path_factory.mktemp("runs") / "mine")
    scored(run)
    page_of(run)
    return run.report


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture(params=["desk", "phone", "dark"])
def opened(request: pytest.FixtureRequest, browser: Browser, file: Path) -> Iterator[Opened]:
    window = PHONE if request.param == "phone" else DESK
    scheme: Any = "dark" if request.param == "dark" else "light"
    context = browser.new_context(viewport=window, color_scheme=scheme)
    page, trouble = context.new_page(), list[str]()
    page.on("console", lambda message: trouble.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda sent: trouble.append(sent.url) if not _is_local(sent.url) else None)
    page.goto(file.as_uri(), timeout=60_000)
    yield Opened(page, trouble)
    context.close()


def _is_local(address: str) -> bool:
    return address.startswith(("file:", "data:"))


def drawn(page: Page) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(page.locator("#data").text_content() or "")
    return content


def place_of(page: Page, row: int) -> tuple[float, float]:
    """Where an image lies in the window."""
    page.locator("#canvas").scroll_into_view_if_needed()
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    x, y = drawn(page)["points"][row]
    return (
        box["x"] + MARGIN + x * (box["width"] - 2 * MARGIN),
        box["y"] + MARGIN + y * (box["height"] - 2 * MARGIN),
    )


def test_it_opens_without_trouble_and_fits_the_window(opened: Opened) -> None:
    page, trouble = opened
    assert "crosscontext" in page.title()
    page.wait_for_function("document.readyState === 'complete'")
    assert trouble == []
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0


def test_the_map_is_painted(opened: Opened) -> None:
    colours = """
    () => {
      const canvas = document.getElementById("canvas");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const seen = new Set();
      for (let i = 0; i < data.length; i += 4) {
        if (data[i + 3] > 0) seen.add((data[i] << 16) + (data[i + 1] << 8) + data[i + 2]);
      }
      return seen.size;
    }
    """
    opened.page.wait_for_function(f"({colours})() > 200")


def test_pointing_shows_the_picture_and_its_name(opened: Opened) -> None:
    page, trouble = opened
    assert not page.locator("#tip").is_visible()
    page.mouse.move(*place_of(page, 3))
    assert page.locator("#tip").is_visible()
    assert page.locator("#tip span").inner_text().startswith(drawn(page)["names"][3])
    page.mouse.move(1, 1)
    assert not page.locator("#tip").is_visible()
    assert trouble == []


def test_clicking_shows_the_neighbours_after_and_before(opened: Opened) -> None:
    page, trouble = opened
    page.mouse.click(*place_of(page, 5))
    told = drawn(page)
    assert f"Neighbours of {told['names'][5]}" in page.locator("#chosen").inner_text()
    rows = page.locator("#chosen button.thumb").evaluate_all("all => all.map(one => Number(one.dataset.row))")
    assert rows == [5, *told["after"][5][:8], *told["before"][5][:8]]
    assert trouble == []


def test_a_thumbnail_anywhere_leads_to_the_map(opened: Opened) -> None:
    page = opened.page
    page.locator("#surprises button.thumb").first.click()
    row = int(page.locator("#surprises button.thumb").first.get_attribute("data-row") or -1)
    assert f"Neighbours of {drawn(page)['names'][row]}" in page.locator("#chosen").inner_text()
    assert page.locator("#canvas").evaluate(
        "canvas => canvas.getBoundingClientRect().top < window.innerHeight"
    )


def test_the_map_can_be_used_with_the_keyboard(opened: Opened) -> None:
    page = opened.page
    page.locator("#canvas").focus()
    page.keyboard.press("ArrowRight")  # to the first image
    first = page.locator("#tip span").inner_text()
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
        if page.locator("#tip span").inner_text() != first:
            break
    pointed = page.locator("#tip span").inner_text()
    assert pointed != first
    page.keyboard.press("Enter")
    assert f"Neighbours of {pointed}" in page.locator("#chosen").inner_text()
    page.keyboard.press("Escape")
    assert "No image is chosen" in page.locator("#chosen").inner_text()


def test_pictures_can_become_dots(opened: Opened) -> None:
    page = opened.page
    page.locator("#as-dots").click()
    assert page.locator("#as-dots").get_attribute("aria-pressed") == "true"
    assert page.locator("#as-pictures").get_attribute("aria-pressed") == "false"


def test_text_can_be_read_on_its_ground(opened: Opened) -> None:
    least, where = opened.page.evaluate(CONTRAST)[0]
    assert least >= 4.5, where


def test_the_colours_follow_the_system(browser: Browser, file: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        page.goto(file.as_uri())
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        context.close()
    assert grounds == ["rgb(255, 255, 255)", "rgb(22, 22, 21)"]


def test_a_page_without_pictures_opens_too(browser: Browser, file: Path, tmp_path: Path) -> None:
    from crosscontext.run_folder import RunFolder

    page_of(RunFolder(file.parent), data=tmp_path / "moved", out=tmp_path / "page.html")
    page = browser.new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator(".remark").count() == 1
    assert trouble == []
    page.close()
