"""Pictures with captions → **gallery** → one HTML page, which needs neither network nor scripts.

The pictures stand in it as small JPEGs; each is a link to its file.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined
from PIL import Image

from crosscontext.datasets.decoding import decode_pixels
from crosscontext.errors import ImageError
from crosscontext.prefetching import ahead, in_batches
from crosscontext.run_folder import write_atomically

MOST_TILES = 1000
"""Pictures on a page, which then has some 8 MB."""

_TEMPLATE = Path(__file__).with_name("assets") / "gallery.html"
_SIDE = 192  # of a thumbnail, in pixels
_QUALITY = 80
_AT_ONCE = 32
_WORKERS = 2
_REDUCTIONS = (8, 4, 2)


class Tile(NamedTuple):
    """One picture on the page."""

    file: Path
    """Absolute."""

    name: str
    caption: str
    mark: str
    """A word that sets it apart from the others, e.g. query; empty for most."""


class Section(NamedTuple):
    """Pictures under one heading."""

    heading: str
    note: str
    """A sentence below the heading, or nothing."""

    tiles: tuple[Tile, ...]


class _Drawn(NamedTuple):
    """A tile as the template wants it."""

    tile: Tile
    link: str
    source: str
    """Picture as a data URI; empty where the file cannot be shown."""

    width: int
    height: int


def write_gallery(path: Path, title: str, facts: Sequence[str], sections: Sequence[Section]) -> None:
    """Write a page of pictures.

    It fits phones, follows the light or dark of the system, and is walked through by the tab key. Files that
    are gone leave an empty frame. What is beyond `MOST_TILES` is left out, and the page says so.

    Args:
        path: of the HTML file; its folder exists.
        title: of the page.
        facts: a sentence each, below the title.
        sections: in order.

    Raises:
        RunFolderError: the page cannot be written.
    """
    shown = list(_fitting(sections))
    if len(shown) < len(sections):
        facts = [*facts, f"The first {len(shown)} of {len(sections)} parts are shown."]
    drawn = _draw([tile for section in shown for tile in section.tiles])
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = page.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    parts = [(section, [next(drawn) for _ in section.tiles]) for section in shown]
    text = template.render(title=title, facts=facts, parts=parts)
    write_atomically(path, lambda file: file.write(text.encode()))


def _fitting(sections: Sequence[Section]) -> Iterator[Section]:
    """Take sections while there is room; a first one that is too long is cut."""
    room = MOST_TILES
    for section in sections:
        if len(section.tiles) > room:
            if room == MOST_TILES:
                note = f"{section.note} The first {room} of {len(section.tiles)} are shown.".strip()
                yield Section(section.heading, note, section.tiles[:room])
            return
        room -= len(section.tiles)
        yield section


def _draw(tiles: Sequence[Tile]) -> Iterator[_Drawn]:
    batches = (tiles[batch.start : batch.stop] for batch in in_batches(len(tiles), _AT_ONCE))
    return (drawn for batch in ahead(_draw_one, batches, _WORKERS) for drawn in batch)


def _draw_one(tile: Tile) -> _Drawn:
    try:
        picture = Image.fromarray(decode_pixels(tile.file, tile.name, _reduction))
    except ImageError:
        return _Drawn(tile, "", "", _SIDE, _SIDE)
    picture.thumbnail((_SIDE, _SIDE))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=_QUALITY)
    source = f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
    return _Drawn(tile, tile.file.as_uri(), source, *picture.size)


def _reduction(width: int, height: int) -> int:
    """Decode no smaller than a thumbnail's longer side."""
    return next((factor for factor in _REDUCTIONS if max(width, height) // factor >= _SIDE), 1)
