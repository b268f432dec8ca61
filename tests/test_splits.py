import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from conftest import paint
from crosscontext.datasets import FolderSettings, ShapesSettings
from crosscontext.errors import DataError
from crosscontext.splits import open_parts, split_by_name


def fill(folder: Path, class_names: Sequence[str], size: int = 3) -> Path:
    for seed, name in enumerate(class_names):
        for number in range(size):
            paint(folder / name / f"{number:02}.jpg", seed * size + number, hue=seed % 3, side=16)
    return folder


def test_the_split_by_name_is_fixed_whatever_other_images_there_are(
    image_folder: Path, tmp_path: Path
) -> None:
    train, test = split_by_name(FolderSettings(path=image_folder).open().train)
    assert len(train.names) + len(test.names) == 40
    assert 2 <= len(test.names) <= 15

    shutil.copytree(image_folder / "red", tmp_path / "red")
    fill(tmp_path, ["aaa"], size=8)
    _, fewer = split_by_name(FolderSettings(path=tmp_path).open().train)
    red = {name for name in test.names if name.startswith("red")}
    assert {name for name in fewer.names if name.startswith("red")} == red


def test_a_fifth_of_many_images_is_the_test_part() -> None:
    train = ShapesSettings(num_train=2000, num_test=0, image_size=16).open().train
    _, test = split_by_name(train)
    assert 0.17 < len(test.names) / 2000 < 0.23


def test_the_parts_keep_names_labels_and_images_together(image_folder: Path) -> None:
    dataset = FolderSettings(path=image_folder).open().train
    for part in split_by_name(dataset):
        assert dataset.labels is not None
        assert part.labels is not None
        whole = dict(zip(dataset.names, dataset.labels.classes.tolist(), strict=True))
        assert [whole[name] for name in part.names] == part.labels.classes.tolist()


def test_the_own_test_part_is_taken_where_there_is_one(tmp_path: Path) -> None:
    fill(tmp_path / "train", ["a", "b"])
    fill(tmp_path / "test", ["a", "b"], size=2)
    splits = open_parts(FolderSettings(path=tmp_path), None, "classes")
    assert (len(splits.train.names), len(splits.test.names), splits.test_from) == (6, 4, "own")
    assert splits.class_names == ("a", "b")


def test_given_test_images_come_first_and_all_of_them_count(tmp_path: Path) -> None:
    data, test_data = fill(tmp_path / "some", ["a", "b"]), fill(tmp_path / "others", ["a", "b"], size=5)
    splits = open_parts(FolderSettings(path=data), FolderSettings(path=test_data), "classes")
    assert (len(splits.train.names), len(splits.test.names), splits.test_from) == (6, 10, "test_data")


def test_of_test_data_with_parts_the_test_part_counts(tmp_path: Path) -> None:
    data = fill(tmp_path / "some", ["a", "b"])
    fill(tmp_path / "others" / "train", ["a", "b"])
    fill(tmp_path / "others" / "val", ["a", "b"], size=2)
    splits = open_parts(FolderSettings(path=data), FolderSettings(path=tmp_path / "others"), "classes")
    assert len(splits.test.names) == 4


def test_different_classes_are_refused_by_name(tmp_path: Path) -> None:
    data, test_data = (
        fill(tmp_path / "some", ["ant", "bee"]),
        fill(tmp_path / "others", ["bee", "cow", "dog"]),
    )
    with pytest.raises(DataError, match=r"the training images lack cow, dog; the test images lack ant\."):
        open_parts(FolderSettings(path=data), FolderSettings(path=test_data), "classes")


def test_a_class_without_training_images_is_refused_by_name(tmp_path: Path) -> None:
    fill(tmp_path / "train", ["a", "b"])
    fill(tmp_path / "test", ["a", "b", "c"])
    with pytest.raises(DataError, match=r"the training images lack c\."):
        open_parts(FolderSettings(path=tmp_path), None, "classes")


def test_images_without_labels_are_refused_with_how_to_give_them(tmp_path: Path) -> None:
    for number in range(4):
        paint(tmp_path / f"{number}.jpg", number, hue=0)
    with pytest.raises(
        DataError, match=r"The 4 training images have no labels, but the score needs labels.*sub-folder"
    ):
        open_parts(FolderSettings(path=tmp_path), FolderSettings(path=tmp_path), "classes")


def test_a_set_too_small_to_split_is_refused(tmp_path: Path) -> None:
    paint(tmp_path / "a" / "1.jpg", 0, hue=0)
    with pytest.raises(DataError, match="1 images are too few"):
        open_parts(FolderSettings(path=tmp_path), None, "classes")
