"""What an image file says of itself: bytes → **head** → whoever looks a data set over."""

from typing import Final, NamedTuple

from PIL import Image

from crosscontext.datasets.decoding import opened, turn_of

_ON_ITS_SIDE: Final = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
)


class FileHead(NamedTuple):
    """What an image file says of itself."""

    format: str
    """As Pillow calls it, e.g. JPEG."""

    mode: str
    """As Pillow calls it, e.g. RGB, L, P, RGBA, CMYK; I;16 and F are deep greys."""

    is_deep: bool
    """Whether a value has more than 8 bits."""

    width: int
    """Of the upright picture, in pixels."""

    height: int
    is_animated: bool
    """Whether there are frames, or pages, behind the first one."""


def read_head(content: bytes, name: str) -> FileHead:
    """Read what stands before the pixels of an image file.

    Args:
        content: of the file.
        name: of the image, for the error message.

    Raises:
        ImageError: as of `decode`, for what shows before decoding.
    """
    with opened(content, name) as image:
        stored = str(image.tile[0][3]) if image.tile else ""
        width, height = image.size[::-1] if turn_of(image) in _ON_ITS_SIDE else image.size
        is_deep = image.mode.startswith("I") or image.mode == "F" or "16" in stored
        return FileHead(str(image.format), image.mode, is_deep, width, height, _is_animated(image))


def _is_animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # what is wrong behind the first frame does not concern it
        return True
