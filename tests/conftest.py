"""Shapes in signatures are checked at run time; a small folder of images is shared by all tests."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import install_import_hook
from PIL import Image

install_import_hook("crosscontext", "beartype.beartype")


def paint(path: Path, seed: int, hue: int, side: int = 40) -> None:
    """Write a JPEG of coloured blocks, different for every seed."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 120, (5, 5, 3), dtype=np.uint8)
    blocks[..., hue] += 120
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blocks).resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)


def quiet(line: str) -> None:
    """Nothing should be said."""
    raise AssertionError(line)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty small pictures of two classes, reddish and bluish ones; read only."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(40):
        name, hue = (("red", 0), ("blue", 2))[number % 2]
        paint(folder / name / f"{number:02}.jpg", number, hue)
    return folder


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of tasks tell of each step, and not only now and then."""
    from crosscontext import heartbeat, subjects

    monkeypatch.setattr(subjects, "heartbeat", partial(heartbeat.heartbeat, every=0.0))
