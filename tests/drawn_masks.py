"""A small set with masks: dark noise, reddish blocks, thin bright lines, and a frame that is ignored."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from crosscontext.datasets import MasksSettings
from crosscontext.encoders import Encoder
from crosscontext.splits import open_parts
from crosscontext.subjects import Subject

BACKGROUND, BLOCK, LINE, IGNORE = 0, 1, 2, 9
CLASSES = "0 background\n1 block\n2 line\n9 frame (ignore)\n"
HEIGHT, WIDTH = 36, 44
"""No multiples of 8, the stride of the last stage of a small ResNet."""


def draw(seed: int, height: int = HEIGHT, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    """Draw a picture (H, W, 3) and its mask (H, W)."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 90, (height, width, 3), dtype=np.uint8)
    mask = np.full((height, width), BACKGROUND, dtype=np.uint8)
    for _ in range(2):
        top, left = generator.integers(0, height - 12), generator.integers(0, width - 14)
        block = np.s_[top : top + 12, left : left + 14]
        pixels[block] = generator.integers(0, 90, (12, 14, 3)) + np.array([120, 0, 0])
        mask[block] = BLOCK
    for column in generator.choice(width, 3, replace=False):
        pixels[:, column] = generator.integers(170, 256, (height, 3))
        mask[:, column] = LINE
    mask[[0, -1]] = mask[:, [0, -1]] = IGNORE
    return pixels, mask


def write_pair(part: Path, name: str, pixels: np.ndarray, mask: np.ndarray) -> None:
    """Write an image and its mask, both without loss."""
    for kind, values in (("images", pixels), ("masks", mask)):
        (part / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(part / kind / f"{name}.png")


def write_set(root: Path, **sizes: int) -> Path:
    """Write so many images into each named part, and the list of classes."""
    for number, (part, size) in enumerate(sizes.items()):
        for i in range(size):
            write_pair(root / part, f"{i:02}", *draw(100 * number + i))
    (root / "classes.txt").write_text(CLASSES)
    return root


def masks_of(root: Path, part: str) -> Sequence[Path]:
    """The mask files of a part, in order."""
    return sorted((root / part / "masks").iterdir())


def subject(root: Path, encoder: Encoder, seed: int = 0, batch_size: int = 256, workers: int = 2) -> Subject:
    """An encoder before its examination on a set with masks."""
    parts = open_parts(MasksSettings(path=root), None, "masks")
    return Subject("encoder", encoder, parts, seed, batch_size, workers)
