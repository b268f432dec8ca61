from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import paint
from crosscontext.datasets.folder import FolderSettings
from crosscontext.datasets.shrunk import ShrunkDataset


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (64, 5000), (48, 48)])
def test_the_short_side_is_as_asked_and_the_shape_stays(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (10, 200, 30)).save(tmp_path / "a.jpg")
    shrunk = ShrunkDataset(FolderSettings(path=tmp_path).open().train, 32).image(0)
    assert min(shrunk.size) == 32
    assert max(shrunk.size) == pytest.approx(32 * max(size) / min(size), abs=1)


def test_small_images_stay_as_they_are(tmp_path: Path) -> None:
    paint(tmp_path / "a.jpg", 0, 0, side=20)
    whole = FolderSettings(path=tmp_path).open().train
    shrunk = ShrunkDataset(whole, 32)
    assert shrunk.names == whole.names
    np.testing.assert_array_equal(np.asarray(shrunk.image(0)), np.asarray(whole.image(0)))
