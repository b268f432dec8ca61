from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from conftest import paint
from crosscontext import gallery
from crosscontext.errors import RunFolderError
from crosscontext.gallery import Section, Tile, write_gallery


class Page(HTMLParser):
    """What is on a page: its tags with their attributes, and its text."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def tile(file: Path, mark: str = "") -> Tile:
    return Tile(file, file.name, "similarity 0.5", mark)


def page_of(folder: Path, *sections: Section) -> Page:
    write_gallery(folder / "page.html", "Found", ["A fact."], sections)
    return Page(folder / "page.html")


def test_each_picture_is_a_link_with_a_small_picture_and_an_alternative_text(tmp_path: Path) -> None:
    for number, side in enumerate((1000, 20)):
        paint(tmp_path / f"{number}.jpg", number, 0, side)
    tiles = (tile(tmp_path / "0.jpg", "query"), tile(tmp_path / "1.jpg"))
    page = page_of(tmp_path, Section("One", "A note.", tiles))
    pictures, links = page.all("img"), page.all("a")
    assert [picture["alt"] for picture in pictures] == ["0.jpg", "1.jpg"]
    assert [picture["width"] for picture in pictures] == ["192", "20"]
    assert all(picture["src"].startswith("data:image/jpeg;base64,") for picture in pictures)
    assert [link["href"] for link in links] == [(tmp_path / f"{i}.jpg").as_uri() for i in (0, 1)]
    assert [each.get("class") for each in page.all("li")] == ["marked", None]
    assert all(words in page.text for words in ("A fact.", "A note.", "One", "query", "similarity 0.5"))


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    paint(tmp_path / "0.jpg", 0, 0)
    page = page_of(tmp_path, Section("One", "", (tile(tmp_path / "0.jpg"),)))
    assert not page.all("script")
    assert not page.all("link")
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert page.all("html") == [{"lang": "en"}]
    assert "prefers-color-scheme: dark" in page.text
    assert "a:focus-visible" in page.text


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    name = "\"><script>alert('&amp;')<.png"
    Image.new("RGB", (8, 8)).save(tmp_path / name)
    page = page_of(tmp_path, Section(name, name, (tile(tmp_path / name, name),)))
    assert not page.all("script")
    assert page.all("img")[0]["alt"] == name
    assert page.text.count(name) == 4  # heading, note, mark and name
    assert page.all("a")[0]["href"] == (tmp_path / name).as_uri()


def test_files_that_are_gone_or_damaged_leave_a_frame(tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    page = page_of(tmp_path, Section("One", "", (tile(tmp_path / "gone.jpg"), tile(tmp_path / "torn.jpg"))))
    assert not page.all("img")
    assert page.text.count("cannot be shown") == 2
    assert "gone.jpg" in page.text


def test_a_page_has_an_end_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "MOST_TILES", 3)
    paint(tmp_path / "0.jpg", 0, 0)
    two = Section("Two", "", (tile(tmp_path / "0.jpg"),) * 2)
    page = page_of(tmp_path, two, two, two)
    assert len(page.all("img")) == 2
    assert "The first 1 of 3 parts are shown." in page.text
    page = page_of(tmp_path, Section("Five", "", (tile(tmp_path / "0.jpg"),) * 5))
    assert len(page.all("img")) == 3
    assert "The first 3 of 5 are shown." in page.text


def test_a_place_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="could not be written"):
        write_gallery(tmp_path / "nowhere" / "page.html", "Found", [], [])
    assert list(tmp_path.iterdir()) == []
