"""What is held in memory is decoded once, and only a set that fits is held."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crosscontext.datasets.folder import FolderSettings
from crosscontext.datasets.held import hold
from crosscontext.datasets.shapes import ShapesSettings
from crosscontext.errors import ImageError

NUM_IMAGES, IMAGE_BYTES = 5, 20 * 30 * 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(NUM_IMAGES):
        Image.new("RGB", (30, 20), (index, 0, 0)).save(tmp_path / f"{index}.png")
    return tmp_path


def test_an_image_is_read_from_its_file_once(folder: Path) -> None:
    files = FolderSettings(path=folder).open().train
    held = hold(files, gigabytes=1.0)
    before = [held.pixels(index).copy() for index in range(NUM_IMAGES)]
    for file in folder.iterdir():
        file.unlink()
    assert held.names == files.names
    for index in range(NUM_IMAGES):
        assert np.array_equal(held.pixels(index), before[index])
        assert np.array_equal(np.asarray(held.image(index)), before[index])


def test_a_set_that_takes_more_than_allowed_is_not_held(folder: Path) -> None:
    files = FolderSettings(path=folder).open().train
    assert hold(files, gigabytes=NUM_IMAGES * IMAGE_BYTES / 1e9) is not files
    assert hold(files, gigabytes=(NUM_IMAGES * IMAGE_BYTES - 1) / 1e9) is files
    assert hold(files, gigabytes=0.0) is files


def test_what_lies_in_memory_anyhow_is_left_as_it_is() -> None:
    shapes = ShapesSettings(num_train=4, num_test=0).open().train
    assert hold(shapes, gigabytes=1.0) is shapes


def test_an_unreadable_image_stays_unreadable(folder: Path) -> None:
    (folder / "2.png").write_bytes(b"")
    held = hold(FolderSettings(path=folder).open().train, gigabytes=1.0)
    for _ in range(2):
        with pytest.raises(ImageError, match=r"2\.png"):
            held.pixels(2)
    assert held.pixels(3)[0, 0, 0] == 3
