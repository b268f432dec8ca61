"""A survey judges what can be read and says why the rest cannot."""

from pathlib import Path

import pytest
from PIL import Image

from crosscontext.datasets.contract import Dataset
from crosscontext.datasets.folder import FolderSettings
from crosscontext.datasets.survey import survey


def folder_of(path: Path, number: int) -> Dataset:
    for index in range(number):
        Image.new("RGB", (index + 1, 7)).save(path / f"{index:03}.png")
    return FolderSettings(path=path).open().train


def test_every_image_of_a_small_set_is_judged_once(tmp_path: Path) -> None:
    widths, causes = survey(folder_of(tmp_path, 9), lambda pixels: pixels.shape[1])
    assert sorted(widths) == list(range(1, 10))
    assert not causes


def test_of_a_larger_set_the_same_sixty_four_are_judged_each_time(tmp_path: Path) -> None:
    dataset = folder_of(tmp_path, 100)
    widths, _ = survey(dataset, lambda pixels: pixels.shape[1])
    assert len(set(widths)) == 64
    assert survey(dataset, lambda pixels: pixels.shape[1])[0] == widths


@pytest.mark.parametrize("number_damaged", [1, 3])
def test_unreadable_images_are_named_with_their_causes(tmp_path: Path, number_damaged: int) -> None:
    dataset = folder_of(tmp_path, 3)
    for name in dataset.names[:number_damaged]:
        (tmp_path / name).write_bytes(b"")
    heights, causes = survey(dataset, lambda pixels: pixels.shape[0])
    assert heights == [7] * (3 - number_damaged)
    assert len(causes) == number_damaged
    for name in dataset.names[:number_damaged]:
        assert any(name in cause and "empty" in cause for cause in causes)
