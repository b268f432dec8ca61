import base64
import io

import numpy as np
from PIL import Image

from crosscontext.sprites import data_uri, sheet_of


def opened(uri: str) -> Image.Image:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_each_picture_has_its_square_on_the_sheet() -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    pictures = [Image.new("RGB", (20 + 9 * i, 40), colour) for i, colour in enumerate(colours)]
    sheet = sheet_of(pictures, 16)
    assert (sheet.side, sheet.columns, sheet.rows) == (16, 3, 2)
    pixels = np.asarray(opened(sheet.uri).convert("RGB")).astype(int)
    assert pixels.shape == (32, 48, 3)
    for number, colour in enumerate(colours):
        row, column = divmod(number, sheet.columns)
        middle = pixels[16 * row + 8, 16 * column + 8]
        assert np.abs(middle - colour).max() < 40


def test_a_lossless_picture_keeps_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    back = np.asarray(opened(data_uri(Image.fromarray(pixels), lossless=True)).convert("RGB"))
    np.testing.assert_array_equal(back, pixels)
