"""The built pages: whole, at home on any screen, and silent towards other hosts."""

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ZENSICAL = Path(sys.executable).parent / "zensical"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGES = [path.relative_to(ROOT / "docs") for path in sorted((ROOT / "docs").rglob("*.md"))]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ZENSICAL.is_file(), reason="zensical is not installed (extra docs)"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as `make docs` builds them, from a copy."""
    place = tmp_path_factory.mktemp("pages")
    shutil.copytree(ROOT / "docs", place / "docs")
    shutil.copy(ROOT / "mkdocs.yml", place)
    command = [str(ZENSICAL), "build", "--strict"]
    built = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return place / "site"


def listed(entry: object) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict | list):
        for inner in entry.values() if isinstance(entry, dict) else entry:
            yield from listed(inner)


def test_every_page_is_in_the_navigation() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert sorted(listed(nav)) == sorted(map(str, PAGES))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_scripts_styles_and_pictures_come_from_here_and_links_lead_somewhere(page: Path, site: Path) -> None:
    file = site / page.with_suffix(".html")
    html = file.read_text(encoding="utf-8")
    loaded = re.findall(r'(?:<link[^>]*\bhref|\bsrc|\bsrcset)="([^"]+)"', html)
    assert len(loaded) >= 3
    assert [url for url in loaded if re.match(r"(https?:)?//", url)] == []
    links = re.findall(r'<a[^>]*\bhref="([^"#?]+)', html)
    inside = [url for url in [*loaded, *links] if not re.match(r"[a-z]+:", url)]
    assert [url for url in inside if not (file.parent / unquote(url)).exists()] == []


def test_styles_load_nothing_from_elsewhere(site: Path) -> None:
    styles = list(site.rglob("*.css"))
    assert styles
    for style in styles:
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)]*", style.read_text()) == []


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")
def test_a_browser_is_content_with_every_page_also_on_a_phone(address: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
    trouble: list[str] = []
    with playwright.sync_playwright() as started:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = started.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith(address) else trouble.append(asked.url))
        for name in PAGES:
            page.goto(f"{address}{name.with_suffix('.html')}")
            assert page.locator("h1").count() == 1, name
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        page.goto(f"{address}faq.html")
        page.wait_for_load_state("networkidle")  # keys that come before the scripts do something else
        page.keyboard.press("Control+k")
        page.get_by_role("combobox").fill("collapse")
        page.get_by_text("The features have collapsed").last.wait_for(timeout=10_000)
        browser.close()
    assert trouble == []
