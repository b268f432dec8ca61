import io
import os
import resource
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crosscontext.datasets.decoding import EXTENSIONS, decode, decode_numbers, decode_pixels, limit_pixels
from crosscontext.errors import DataError, ImageError, SettingsError
from doors import bomb_of_zeros

RED, BLUE = (255, 0, 0), (0, 0, 255)


def half_and_half() -> Image.Image:
    """Left half red, right half blue; wider than high."""
    image = Image.new("RGB", (32, 16), RED)
    image.paste(BLUE, (16, 0, 32, 16))
    return image


def decode_saved(image: Image.Image, path: Path, **options: Any) -> Image.Image:
    image.save(path, **options)
    decoded = decode(path, path.name)
    assert decoded.mode == "RGB"
    return decoded


def colour(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    pixel = image.getpixel((x, y))
    assert isinstance(pixel, tuple)
    return pixel


def is_near(first: tuple[int, ...], second: tuple[int, ...], tolerance: int = 8) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("ending", sorted(EXTENSIONS - {".pgm", ".pbm"}))
def test_every_known_ending_is_a_format_that_decodes(tmp_path: Path, ending: str) -> None:
    options = {"quality": 95} if ending == ".webp" else {}
    decoded = decode_saved(half_and_half(), tmp_path / f"image{ending}", **options)
    assert decoded.size == (32, 16)
    assert is_near(colour(decoded, 4, 8), RED)
    assert is_near(colour(decoded, 28, 8), BLUE)


def test_bytes_decode_like_the_file(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    from_file = decode_saved(half_and_half(), path)
    assert decode(path.read_bytes(), "image").tobytes() == from_file.tobytes()


def test_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), BLUE)]
    decoded = decode_saved(
        Image.new("RGB", (8, 8), RED), tmp_path / "moving.gif", save_all=True, append_images=frames
    )
    assert colour(decoded, 3, 3) == RED


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize(
    ("orientation", "size", "place_of_red"),
    [
        (1, (32, 16), (4, 8)),
        (2, (32, 16), (28, 8)),
        (3, (32, 16), (28, 8)),
        (4, (32, 16), (4, 8)),
        (5, (16, 32), (8, 4)),
        (6, (16, 32), (8, 4)),
        (7, (16, 32), (8, 28)),
        (8, (16, 32), (8, 28)),
    ],
)
def test_orientation_tag_turns_the_picture_upright(
    tmp_path: Path, ending: str, orientation: int, size: tuple[int, int], place_of_red: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_saved(half_and_half(), tmp_path / f"turned{ending}", exif=exif)
    assert decoded.size == size
    assert is_near(colour(decoded, *place_of_red), RED)


def test_orientations_that_mirror_differ_from_those_that_turn(tmp_path: Path) -> None:
    corner = Image.new("RGB", (16, 16), BLUE)
    corner.paste(RED, (0, 0, 8, 8))  # top left
    places = {}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        decoded = decode_saved(corner, tmp_path / f"{orientation}.png", exif=exif)
        corners = {"tl": (4, 4), "tr": (12, 4), "bl": (4, 12), "br": (12, 12)}
        places[orientation] = [name for name, place in corners.items() if colour(decoded, *place) == RED]
    # Where the stored top left corner belongs, from the EXIF standard (first row, first column).
    expected = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}
    assert places == {orientation: [place] for orientation, place in expected.items()}


def test_an_unreadable_exif_block_does_not_cost_the_picture(tmp_path: Path) -> None:
    decoded = decode_saved(half_and_half(), tmp_path / "broken.webp", exif=b"Exif\0\0no TIFF header")
    assert decoded.size == (32, 16)


def test_a_wrongly_typed_exif_tag_does_not_hide_the_orientation(tmp_path: Path) -> None:
    orientation = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)  # a short, 6
    width = struct.pack(">HHI4s", 0x0100, 2, 4, b"abc\0")  # a number, given as text
    block = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x02" + width + orientation + bytes(4)
    decoded = decode_saved(half_and_half(), tmp_path / "odd.jpg", exif=block)
    assert decoded.size == (16, 32)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    assert colour(decode_saved(Image.new("L", (4, 4), 77), tmp_path / "grey.png"), 1, 1) == (77, 77, 77)


def test_one_bit_pictures_are_black_and_white(tmp_path: Path) -> None:
    image = Image.new("1", (8, 4), 0)
    image.paste(1, (4, 0, 8, 4))
    for name in ("bits.png", "bits.tif", "bits.pbm"):
        decoded = decode_saved(image, tmp_path / name)
        assert (colour(decoded, 1, 1), colour(decoded, 6, 1)) == ((0, 0, 0), (255, 255, 255))


def test_palette_colours_are_looked_up(tmp_path: Path) -> None:
    decoded = decode_saved(half_and_half().quantize(4), tmp_path / "palette.png")
    assert is_near(colour(decoded, 4, 8), RED)


def test_transparent_pixels_show_mid_grey_not_their_hidden_colour(tmp_path: Path) -> None:
    rgba = half_and_half().convert("RGBA")
    rgba.paste((0, 255, 0, 0), (16, 0, 32, 16))
    palette = half_and_half().quantize(4)
    hidden = palette.getpixel((28, 8))
    decoded = {
        "RGBA": decode_saved(rgba, tmp_path / "rgba.png"),
        "WebP": decode_saved(rgba, tmp_path / "rgba.webp", lossless=True),
        "palette": decode_saved(palette, tmp_path / "palette.png", transparency=hidden),
        "GIF": decode_saved(palette, tmp_path / "palette.gif", transparency=hidden),
        "colour key": decode_saved(half_and_half(), tmp_path / "key.png", transparency=BLUE),
    }
    for kind, image in decoded.items():
        assert is_near(colour(image, 4, 8), RED), kind
        assert colour(image, 28, 8) == (128, 128, 128), kind


def test_half_transparent_grey_is_mixed_with_the_backdrop(tmp_path: Path) -> None:
    decoded = decode_saved(Image.new("LA", (4, 4), (0, 128)), tmp_path / "la.png")
    assert is_near(colour(decoded, 1, 1), (64, 64, 64), tolerance=1)


@pytest.mark.parametrize("ending", [".jpg", ".tif"])
def test_cmyk_red_is_red(tmp_path: Path, ending: str) -> None:
    decoded = decode_saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), tmp_path / f"print{ending}")
    assert is_near(colour(decoded, 8, 8), RED)


@pytest.mark.parametrize("ending", [".png", ".tif", ".pgm"])
def test_sixteen_bit_gradient_keeps_its_gradient(tmp_path: Path, ending: str) -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16)
    image = Image.fromarray(np.tile(values, (8, 1)))
    decoded = np.asarray(decode_saved(image, tmp_path / f"deep{ending}"))
    np.testing.assert_array_equal(decoded[3, :, 0], np.arange(256))


def test_sixteen_bit_pictures_stay_comparable(tmp_path: Path) -> None:
    dark, light = (
        decode_saved(Image.fromarray(np.full((4, 4), value, np.uint16)), tmp_path / f"{value}.png")
        for value in (10 * 257, 200 * 257)
    )
    assert (colour(dark, 0, 0)[0], colour(light, 0, 0)[0]) == (10, 200)


def test_sixteen_bit_big_endian_tiff_has_the_same_values(tmp_path: Path) -> None:
    image = Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 0, 128 * 257))
    assert colour(decode_saved(image, tmp_path / "big.tif"), 1, 0) == (128, 128, 128)


def test_integers_beyond_sixteen_bits_span_the_range_of_the_picture(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[-100_000, 0, 100_000]], dtype=np.int32))
    decoded = np.asarray(decode_saved(image, tmp_path / "wide.tif"))
    assert decoded[0, :, 0].tolist() == [0, 128, 255]


def test_floats_from_zero_to_one_are_scaled_by_one(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0.0, 0.2, 0.4]], dtype=np.float32))
    assert np.asarray(decode_saved(image, tmp_path / "unit.tif"))[0, :, 0].tolist() == [0, 51, 102]


def test_floats_of_another_range_span_the_range_of_the_picture_and_nan_is_black(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[-5.0, 0.0, 5.0, np.nan, np.inf]], dtype=np.float32))
    assert np.asarray(decode_saved(image, tmp_path / "wild.tif"))[0, :, 0].tolist() == [0, 128, 255, 0, 255]


def test_constant_floats_outside_of_the_unit_range_decode(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((2, 2), 7.0, dtype=np.float32))
    assert colour(decode_saved(image, tmp_path / "flat.tif"), 0, 0) == (0, 0, 0)


def test_a_zero_byte_file_is_named_and_called_empty(tmp_path: Path) -> None:
    path = tmp_path / "nothing.jpg"
    path.touch()
    with pytest.raises(ImageError, match=r"'cats/nothing.jpg'.*the file is empty"):
        decode(path, "cats/nothing.jpg")
    with pytest.raises(ImageError, match="empty"):
        decode(b"", "nothing")


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".gif", ".bmp", ".tif", ".ppm"])
def test_a_truncated_file_is_an_image_error(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"cut{ending}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=f"'cut{ending}'"):
        decode(path, path.name)


def test_a_file_that_is_no_image_is_an_image_error(tmp_path: Path) -> None:
    path = tmp_path / "page.jpg"
    path.write_text("<html>404</html>")
    with pytest.raises(ImageError, match=r"'page.jpg'.*not of a known image format"):
        decode(path, path.name)


def test_a_missing_file_is_an_image_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"'gone.png'.*No such file"):
        decode(tmp_path / "gone.png", "gone.png")


def test_formats_that_run_programs_are_refused() -> None:
    script = io.BytesIO()
    half_and_half().save(script, "EPS")
    with pytest.raises(ImageError, match="not of a known image format"):
        decode(script.getvalue(), "drawing.jpg")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "limit", [300, 100]
)  # 512 pixels: Pillow warns above the limit, and raises above twice it
def test_decompression_bombs_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: int) -> None:
    half_and_half().save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ImageError, match=r"'bomb.png'.*pixels.*CROSSCONTEXT_MAX_PIXELS"):
        decode(tmp_path / "bomb.png", "bomb.png")


def test_a_bomb_is_refused_before_it_fills_the_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bomb = bomb_of_zeros(12_000)
    assert len(bomb) < 200_000
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (decode, decode_pixels, decode_numbers):
        with pytest.raises(ImageError, match=r"12000 × 12000 pixels.*the limit is \d+ pixels"):
            read(bomb, "bomb.png")
    assert before <= grown == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_the_limit_of_pixels_can_be_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    half_and_half().save(tmp_path / "large.png")
    limit_pixels("512")
    assert decode(tmp_path / "large.png", "large.png").size == (32, 16)
    limit_pixels("511")
    with pytest.raises(ImageError, match=r"32 × 16 pixels.*the limit is 511 pixels"):
        decode(tmp_path / "large.png", "large.png")


@pytest.mark.parametrize("text", ["0", "-1", "many", "1e9", ""])
def test_a_limit_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"CROSSCONTEXT_MAX_PIXELS is .*at least 1"):
        limit_pixels(text)


@pytest.mark.parametrize("place", ["/dev/zero", "pipe.png", "folder.png", "n\0ul.png", "x" * 300])
def test_what_is_no_ordinary_file_is_not_read(tmp_path: Path, place: str) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for read in (decode, decode_pixels, decode_numbers):
        with pytest.raises(ImageError, match=r"cannot decode 'image'.*Mend or remove it"):
            read(tmp_path / place, "image")


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "long.png"
    path.touch()
    os.truncate(path, 2**30 + 1)
    with pytest.raises(ImageError, match="it has 1073741825 bytes, more than 1073741824"):
        decode(path, "long.png")


def smooth(width: int, height: int) -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("ending", sorted(EXTENSIONS - {".pgm", ".pbm"}))
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_those_of_the_picture(tmp_path: Path, ending: str, mode: str) -> None:
    path = tmp_path / f"image{ending}"
    smooth(61, 43).convert(mode).save(path)
    for source in (path, path.read_bytes()):
        assert np.array_equal(decode_pixels(source, "image"), np.asarray(decode(source, "image")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_upright(tmp_path: Path, orientation: int) -> None:
    path, exif = tmp_path / "image.jpg", Image.Exif()
    exif[0x0112] = orientation
    smooth(61, 43).save(path, exif=exif)
    assert np.array_equal(decode_pixels(path, "image"), np.asarray(decode(path, "image")))
    small = decode_pixels(path, "image", lambda *_: 2)
    assert small.shape[:2] == ((22, 31) if orientation < 5 else (31, 22))


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_a_jpeg_is_decoded_as_small_as_asked_and_shows_the_same(tmp_path: Path, factor: int) -> None:
    path, asked = tmp_path / "image.jpg", []
    smooth(320, 160).save(path, quality=95)

    def reduction(width: int, height: int) -> int:
        asked.append((width, height))
        return factor

    pixels = decode_pixels(path, "image", reduction)
    assert asked == [(320, 160)]
    assert pixels.shape == (160 // factor, 320 // factor, 3)
    whole = decode(path, "image").resize((320 // factor, 160 // factor), Image.Resampling.BOX)
    assert np.abs(pixels.astype(int) - np.asarray(whole)).mean() < 3


def test_other_formats_are_decoded_whole(tmp_path: Path) -> None:
    smooth(64, 48).save(tmp_path / "image.png")
    assert decode_pixels(tmp_path / "image.png", "image", lambda *_: 4).shape == (48, 64, 3)


@pytest.mark.parametrize("kept", [0, 10, 400, -30])
def test_pixels_of_a_damaged_jpeg_are_an_error(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "image.jpg"
    smooth(200, 200).save(path)
    path.write_bytes(path.read_bytes()[:kept])
    for reduction in (None, lambda *_: 2):
        with pytest.raises(ImageError, match=r"cannot decode 'image'.*replace or remove it"):
            decode_pixels(path, "image", reduction)


def png(bits: int, colour_type: int, *rows: bytes, width: int = 2) -> bytes:
    """A PNG, written by hand, of any depth."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(range(48))) if colour_type == 3 else b""
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "numbers"),
    [
        (png(8, 0, b"\x00\x07", b"\xfe\xff"), [[0, 7], [254, 255]]),
        (png(1, 0, b"\x40", b"\x80"), [[0, 1], [1, 0]]),
        (png(8, 3, b"\x00\x0f"), [[0, 15]]),
        (png(4, 3, b"\x0f"), [[0, 15]]),
    ],
    ids=["grey", "one bit", "palette", "small palette"],
)
def test_numbers_are_those_in_the_file(content: bytes, numbers: list[list[int]]) -> None:
    assert decode_numbers(content, "mask.png").tolist() == numbers


@pytest.mark.parametrize(
    ("content", "stored"),
    [
        (png(4, 0, b"\x0f"), "PNG .* L;4"),
        (png(16, 0, b"\x00\x01\x00\x02"), "PNG .* I;16B"),
        (png(8, 2, bytes(6)), "PNG .* RGB"),
        (png(8, 4, bytes(4)), "PNG .* LA"),
    ],
    ids=["stretched grey", "deep", "colour", "transparency"],
)
def test_what_holds_no_numbers_of_classes_is_refused(content: bytes, stored: str) -> None:
    with pytest.raises(DataError, match=rf"'mask.png' is a {stored}.*Save it as a PNG with a palette"):
        decode_numbers(content, "mask.png")


def test_numbers_are_not_read_off_a_jpeg() -> None:
    file = io.BytesIO()
    Image.new("L", (8, 8), 3).save(file, "JPEG")
    with pytest.raises(DataError, match=r"'mask.png' is a JPEG"):
        decode_numbers(file.getvalue(), "mask.png")
