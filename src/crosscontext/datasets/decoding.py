"""The one door through which image files enter: path or bytes → **decode** → upright RGB picture.

Whatever the file holds, either eight bits of red, green and blue come out, or an ImageError.
"""

import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from crosscontext.datasets.contract import Reduction
from crosscontext.errors import DataError, ImageError, SettingsError
from crosscontext.shapes import UInt8

# Named, so that a file of another kind never reaches a decoder that runs an outside program (EPS).
_ENDINGS_OF_FORMAT = {
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg"),
    "PNG": (".png",),
    "PPM": (".pbm", ".pgm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
EXTENSIONS = frozenset(ending for endings in _ENDINGS_OF_FORMAT.values() for ending in endings)
"""Endings of the files that are taken for images, in lower case."""

LARGEST_FILE: Final = 2**30
"""Bytes of an image file that are read at most."""

_JPEG_START, _JPEG_HEAD = b"\xff\xd8", 2**16  # an EXIF block lies in the first segments
_JPEG_COLOURS = ("YCbCr", "Gray", "RGB")

# EXIF orientation → what makes the picture upright. Pillow's exif_transpose does the same, but also writes
# the EXIF block anew, and fails on some damaged ones.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# How PNG files store numbers that Pillow hands over as they are; greys of 2 and 4 bits ("L;2") it stretches.
_NUMBERS = ("L", "1", "P", "P;1", "P;2", "P;4")

# What shows through transparent pixels. On black or white, line art of the same colour would vanish; mid-grey
# keeps both, and is close to zero after normalisation.
_BACKDROP = (128, 128, 128, 255)


def limit_pixels(text: str) -> None:
    """Set how many pixels an image may have: the limit of Pillow, which all images of the process share.

    Args:
        text: a whole number, as the variable CROSSCONTEXT_MAX_PIXELS has it.

    Raises:
        SettingsError: it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(
            f"CROSSCONTEXT_MAX_PIXELS is {text!r}; expected a whole number of at least 1. Set it so."
        )
    Image.MAX_IMAGE_PIXELS = int(text)


def decode(source: Path | bytes, name: str) -> Image.Image:
    """Decode the first frame of an image file: JPEG, PNG, WebP, BMP, GIF, TIFF or PPM.

    The picture is turned as its EXIF orientation says, transparency is laid over mid-grey, CMYK is converted
    without colour profile, and deep greys become 8 bits (see `_eight_bits`).

    Args:
        source: the file, or its content.
        name: of the image, for the error message.

    Returns:
        A picture in mode RGB, of any size.

    Raises:
        ImageError: the file is missing, empty, truncated or damaged, is not an image, or has more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`, which the variable CROSSCONTEXT_MAX_PIXELS sets.
    """
    with opened(read_content(source, name), name) as image:
        image.load()
        return _as_rgb(_upright(image))


def decode_pixels(
    source: Path | bytes, name: str, reduction: Reduction | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Decode the same picture as an array; a JPEG perhaps smaller, and so faster.

    A JPEG is made of blocks of 8 × 8 pixels, of which a smaller picture can be had for less work.

    Args:
        source: the file, or its content.
        name: of the image, for the error message.
        reduction: says by how much the sides may be divided.

    Raises:
        ImageError: as of `decode`.
    """
    content = read_content(source, name)
    if (pixels := _ordinary_jpeg(content, reduction)) is not None:
        return pixels
    with opened(content, name) as image:
        factor = 1 if reduction is None or image.format != "JPEG" else reduction(*image.size)
        if factor > 1:
            image.draft(image.mode, (image.width // factor, image.height // factor))
        image.load()
        return np.array(_as_rgb(_upright(image)))


def decode_numbers(source: Path | bytes, name: str) -> UInt8[np.ndarray, "H W"]:
    """Decode a PNG whose pixels are numbers, e.g. of classes: grey values or palette indices, as they are.

    Args:
        source: the file, or its content.
        name: of the image, for the error message.

    Raises:
        ImageError: as of `decode`.
        DataError: the file has colours, more than 8 bits, or is no PNG: its values are no such numbers.
    """
    with opened(read_content(source, name), name) as image:
        stored = image.tile[0][3]
        image.load()
        numbers = np.array(image)
    if stored not in _NUMBERS:
        raise DataError(
            f"{name!r} is a {image.format} whose pixels are stored as {stored}, and the numbers of classes "
            "cannot be read off that. Save it as a PNG with a palette, or with 8 bits of grey a pixel."
        )
    return numbers.astype(np.uint8)


def read_content(source: Path | bytes, name: str) -> bytes:
    """Read a file whole, if it is one: a pipe would be waited for, and a device never ends.

    Args:
        source: the file, or its content, which is returned.
        name: of the image, for the error message.

    Raises:
        ImageError: the file cannot be read, is no ordinary one, or has more than `LARGEST_FILE` bytes.
    """
    if isinstance(source, bytes):
        return source
    try:
        status = source.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no ordinary file")
        if status.st_size > LARGEST_FILE:
            raise OSError(f"it has {status.st_size} bytes, more than {LARGEST_FILE}")
        return source.read_bytes()
    except (OSError, ValueError) as cause:  # ValueError: the name has a byte 0
        raise ImageError(f"cannot decode {name!r}: {cause}. Mend or remove it.") from cause


def _ordinary_jpeg(content: bytes, reduction: Reduction | None) -> UInt8[np.ndarray, "H W 3"] | None:
    """Decode a JPEG that stands upright and has nothing unusual: the same pixels as Pillow's in less time.

    Returns:
        None for every other file, and for damaged ones: Pillow decodes them, or says what is wrong.
    """
    if not content.startswith(_JPEG_START):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if colours not in _JPEG_COLOURS or _is_too_large(width, height) or _is_turned(content):
            return None
        factor = 1 if reduction is None else reduction(width, height)
        least = {"min_height": -(-height // factor), "min_width": -(-width // factor)} if factor > 1 else {}
        pixels: UInt8[np.ndarray, "H W 3"] = simplejpeg.decode_jpeg(content, **least)
    except Exception:  # damaged files raise more than one kind
        return None
    return pixels


def _is_too_large(width: int, height: int) -> bool:
    limit = Image.MAX_IMAGE_PIXELS  # Pillow itself only warns up to twice the limit
    return limit is not None and width * height > limit


def _is_turned(content: bytes) -> bool:
    if b"Exif" not in content[:_JPEG_HEAD]:
        return False
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        return turn_of(image) is not None


@contextmanager
def opened(content: bytes, name: str) -> Iterator[ImageFile.ImageFile]:
    """Open an image file and read its head; what fails in here or later becomes an ImageError.

    Args:
        content: of the file.
        name: of the image, for the error message.
    """
    try:
        with Image.open(io.BytesIO(content), formats=tuple(_ENDINGS_OF_FORMAT)) as image:
            if _is_too_large(*image.size):
                raise Image.DecompressionBombError(f"it has {image.width} × {image.height} pixels")
            yield image
    except Image.DecompressionBombError as cause:
        raise ImageError(
            f"cannot decode {name!r}: {cause}, and a small file that grows so large may be a trap; the limit "
            f"is {Image.MAX_IMAGE_PIXELS} pixels. Remove or shrink it, or raise the limit: "
            "CROSSCONTEXT_MAX_PIXELS=NUMBER before the command, or PIL.Image.MAX_IMAGE_PIXELS in Python."
        ) from cause
    except Exception as cause:  # damaged bytes raise OSError, SyntaxError, ValueError, struct.error, and more
        raise ImageError(
            f"cannot decode {name!r}: {_reason(content, cause)}. Expected a whole JPEG, PNG, WebP, BMP, GIF, "
            "TIFF or PPM file; replace or remove it."
        ) from cause


def _upright(image: Image.Image) -> Image.Image:
    turn = turn_of(image)
    return image if turn is None else image.transpose(turn)


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """Tell what makes a picture upright, by its EXIF orientation; None where nothing is to do."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block, of which there are many, says nothing against the pixels
        return None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    elif image.has_transparency_data:
        backdrop = Image.new("RGBA", image.size, _BACKDROP)
        image = Image.alpha_composite(backdrop, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale a deep grey picture to 8 bits.

    16-bit integers are scaled by the full range of the type, and floats within [0, 1] by 1, not by the range
    of each picture: so relative intensities survive, within and between pictures (Pillow's own conversion
    cuts everything above 255 to white). Sensors with fewer bits, say 12 in a 16-bit file, hence give dark
    pictures: stretch them beforehand. Other values have no known range: the picture's own ends serve.
    """
    values = np.asarray(image, dtype=np.float64)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    full_range = 1 if image.mode == "F" else 65535
    if low >= 0 and high <= full_range:
        low, high = 0.0, full_range
    scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * (255 / ((high - low) or 1))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _reason(content: bytes, cause: Exception) -> str:
    if not content:
        return "the file is empty"
    if isinstance(cause, UnidentifiedImageError):
        return "its content is not of a known image format"
    return f"{type(cause).__name__}: {cause}"
