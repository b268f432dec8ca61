import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crosscontext.datasets.file_heads import read_head
from crosscontext.errors import ImageError


def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, form, **options)
    return content.getvalue()


@pytest.mark.parametrize(
    ("mode", "form", "is_deep"),
    [
        *(("RGB", "JPEG", False), ("L", "JPEG", False), ("CMYK", "JPEG", False)),
        *(("P", "PNG", False), ("RGBA", "PNG", False), ("1", "PNG", False), ("I;16", "PNG", True)),
        *(("F", "TIFF", True), ("RGB", "WEBP", False), ("RGB", "BMP", False)),
    ],
)
def test_format_mode_and_depth_are_those_of_the_file(mode: str, form: str, is_deep: bool) -> None:
    head = read_head(saved(Image.new(mode, (6, 4)), form), "it")
    assert head == (form, mode, is_deep, 6, 4, False)


def test_colours_of_16_bits_are_deep() -> None:
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    row = zlib.compress(bytes(1 + 2 * 3 * 2))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")
    assert read_head(png, "it") == ("PNG", "RGB", True, 2, 1, False)


@pytest.mark.parametrize(("orientation", "size"), [(1, (6, 4)), (3, (6, 4)), (6, (4, 6)), (8, (4, 6))])
def test_width_and_height_are_those_of_the_upright_picture(orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    head = read_head(saved(Image.new("RGB", (6, 4)), "JPEG", exif=exif), "it")
    assert (head.width, head.height) == size


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG"])
def test_frames_behind_the_first_one_are_told(form: str) -> None:
    frames = [Image.fromarray(np.full((4, 6), level, np.uint8)) for level in (0, 90, 200)]
    assert read_head(saved(frames[0], form, save_all=True, append_images=frames[1:]), "it").is_animated
    assert not read_head(saved(frames[0], form), "it").is_animated


def test_what_is_no_image_is_refused_with_its_name() -> None:
    with pytest.raises(ImageError, match=r"'it'.*not of a known image format"):
        read_head(b"text", "it")
