"""Pictures that travel inside a page: pictures → **sprites** → data URIs, many pictures in one."""

import base64
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageOps

_QUALITY = 80


class Sheet(NamedTuple):
    """Equal squares in rows, numbered from 0 along the rows."""

    uri: str
    side: int
    """Of a square, in pixels."""

    columns: int
    rows: int


def sheet_of(pictures: Sequence[Image.Image], side: int) -> Sheet:
    """Put the middle squares of pictures side by side.

    Args:
        pictures: of any size and shape; at least one.
        side: of the squares, in pixels.
    """
    columns = math.ceil(len(pictures) ** 0.5)
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * side, rows * side))
    for number, picture in enumerate(pictures):
        square = ImageOps.fit(picture.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
        sheet.paste(square, (number % columns * side, number // columns * side))
    return Sheet(data_uri(sheet), side, columns, rows)


def data_uri(picture: Image.Image, lossless: bool = False) -> str:
    """Write a picture as WebP into a URI, which a page shows without a request."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=_QUALITY, lossless=lossless)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
