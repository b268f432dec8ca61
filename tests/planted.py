"""A folder of pictures with one fault of each kind planted."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from conftest import paint

FINE = 60
"""Different pictures without a fault: 45 of class red, 15 of class blue."""

UNREADABLE = {
    "blue/cut.jpg": "truncated",
    "red/empty.jpg": "the file is empty",
    "red/text.png": "not of a known",
}
IDENTICAL = ("red/000.jpg", "red/same.jpg")
ALIKE = ("red/004.jpg", "red/brighter.jpg", "red/half.png", "red/poor.jpg")


def planted(root: Path) -> Path:
    """Write the folder."""
    for number in range(FINE):
        name, hue = ("blue", 2) if number % 4 == 3 else ("red", 0)
        paint(root / name / f"{number:03}.jpg", number, hue, side=96)
    _unreadable(root)
    _copies(root / "red")
    _odd(root / "red")
    return root


def snapshot(root: Path) -> dict[str, bytes]:
    """The content of all files below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _unreadable(root: Path) -> None:
    (root / "red" / "empty.jpg").touch()
    (root / "red" / "text.png").write_text("no picture")
    whole = (root / "blue" / "003.jpg").read_bytes()
    (root / "blue" / "cut.jpg").write_bytes(whole[: len(whole) // 2])


def _copies(red: Path) -> None:
    (red / "same.jpg").write_bytes((red / "000.jpg").read_bytes())
    with Image.open(red / "004.jpg") as picture:
        picture.resize((48, 48)).save(red / "half.png")
        picture.save(red / "poor.jpg", quality=60)
        ImageEnhance.Brightness(picture).enhance(1.1).save(red / "brighter.jpg")


def _odd(red: Path) -> None:
    paint(red / "tiny.jpg", 100, 0, side=16)
    Image.new("RGB", (64, 64), "grey").save(red / "blank.png")
    for name, seed, range_used in (("deep", 101, 257), ("dark", 102, 16)):
        Image.fromarray(_grey(seed).astype(np.uint16) * range_used).save(red / f"{name}.png")
    frames = [Image.fromarray(_grey(seed)) for seed in (103, 104, 105)]
    frames[0].save(red / "animated.gif", save_all=True, append_images=frames[1:])
    _painted(106).resize((400, 64)).save(red / "long.png")
    _painted(107).convert("CMYK").save(red / "printed.jpg")
    _painted(108).convert("RGBA").save(red / "transparent.png")


def _painted(seed: int) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((64, 64), Image.Resampling.BICUBIC)


def _grey(seed: int) -> np.ndarray:
    return np.asarray(_painted(seed).convert("L"))


def compressed(picture: Image.Image, quality: int) -> Image.Image:
    """The picture after a trip through JPEG."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality)
    return Image.open(content).convert("RGB")
