import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crosscontext.datasets import FolderSettings, Splits
from crosscontext.datasets.contract import Dataset
from crosscontext.errors import DataError, ImageError


def write_images(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (len(name), 0, 0)).save(root / name)
    return root


def open_folder(root: Path) -> Splits:
    return FolderSettings(path=root).open()


def class_of_each(dataset: Dataset) -> dict[str, str]:
    assert dataset.labels is not None
    classes = dataset.labels.classes.tolist()
    return {name: dataset.labels.class_names[c] for name, c in zip(dataset.names, classes, strict=True)}


def test_images_are_found_at_any_depth_by_their_ending_in_any_case(tmp_path: Path) -> None:
    write_images(tmp_path, "b.JPG", "a/x.png", "a/deep/er/y.WebP", "z.TiFF")
    (tmp_path / "notes.txt").write_text("no image")
    splits = open_folder(tmp_path)
    assert list(splits.train.names) == ["a/deep/er/y.WebP", "a/x.png", "b.JPG", "z.TiFF"]
    assert splits.test is None


def test_order_is_that_of_the_names_not_of_creation(tmp_path: Path) -> None:
    names = [f"{number:02d}.png" for number in np.random.default_rng(0).permutation(30)]
    write_images(tmp_path, *names)
    assert list(open_folder(tmp_path).train.names) == sorted(names)


def test_image_decodes_the_file_of_that_name(tmp_path: Path) -> None:
    train = open_folder(write_images(tmp_path, "a.png", "bb.png")).train
    assert [train.image(index).getpixel((0, 0)) for index in (0, 1)] == [(5, 0, 0), (6, 0, 0)]


def test_hidden_files_and_folders_are_ignored(tmp_path: Path) -> None:
    write_images(tmp_path, "seen.png", ".hidden.png", ".cache/thumb.png", "a/.thumbs/b.png")
    assert list(open_folder(tmp_path).train.names) == ["seen.png"]


def test_a_loop_of_links_ends_and_counts_no_image_twice(tmp_path: Path) -> None:
    write_images(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "beside").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self").symlink_to("self")
    assert list(open_folder(tmp_path).train.names) == ["a/1.png", "b/2.png"]


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    elsewhere = write_images(tmp_path / "elsewhere", "1.png")
    root = write_images(tmp_path / "root", "own/2.png")
    (root / "linked").symlink_to(elsewhere)
    assert list(open_folder(root).train.names) == ["linked/1.png", "own/2.png"]


def test_first_sub_folder_is_the_class_if_every_image_has_one(tmp_path: Path) -> None:
    train = open_folder(write_images(tmp_path, "dog/old/1.png", "cat/2.png", "dog/3.png")).train
    assert class_of_each(train) == {"cat/2.png": "cat", "dog/3.png": "dog", "dog/old/1.png": "dog"}
    assert train.labels is not None
    assert train.labels.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    "names", [("1.png", "2.png"), ("a/1.png", "b/2.png", "3.png"), ("only/1.png", "only/2.png")]
)
def test_there_are_no_labels_without_two_folders_that_hold_all_images(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    assert open_folder(write_images(tmp_path, *names)).train.labels is None


@pytest.mark.parametrize("test_folder", ["test", "val", "valid", "validation", "Test"])
def test_train_and_test_folders_are_the_parts(tmp_path: Path, test_folder: str) -> None:
    write_images(tmp_path, "train/cat/1.png", "train/dog/2.png", f"{test_folder}/dog/3.png")
    (tmp_path / "README").write_text("no image")
    splits = open_folder(tmp_path)
    assert splits.test is not None
    assert class_of_each(splits.train) == {"train/cat/1.png": "cat", "train/dog/2.png": "dog"}
    assert class_of_each(splits.test) == {f"{test_folder}/dog/3.png": "dog"}
    splits.test.image(0)


def test_test_is_preferred_to_val(tmp_path: Path) -> None:
    test = open_folder(write_images(tmp_path, "train/1.png", "val/2.png", "test/3.png")).test
    assert test is not None
    assert list(test.names) == ["test/3.png"]


def test_a_class_that_only_one_part_has_keeps_the_numbers_of_the_others(tmp_path: Path) -> None:
    splits = open_folder(
        write_images(tmp_path, "train/b/1.png", "train/c/2.png", "test/a/3.png", "test/c/4.png")
    )
    assert splits.train.labels is not None
    assert splits.test is not None
    assert splits.test.labels is not None
    assert splits.train.labels.class_names == splits.test.labels.class_names == ("a", "b", "c")
    assert (splits.train.labels.classes.tolist(), splits.test.labels.classes.tolist()) == ([1, 2], [0, 2])


def test_an_unlabelled_part_does_not_take_the_labels_of_the_other(tmp_path: Path) -> None:
    splits = open_folder(write_images(tmp_path, "train/1.png", "test/a/2.png", "test/b/3.png"))
    assert splits.train.labels is None
    assert splits.test is not None
    assert class_of_each(splits.test) == {"test/a/2.png": "a", "test/b/3.png": "b"}


def test_a_train_folder_alone_is_the_whole_set(tmp_path: Path) -> None:
    splits = open_folder(write_images(tmp_path, "train/cat/1.png", "train/dog/2.png"))
    assert splits.test is None
    assert class_of_each(splits.train) == {"train/cat/1.png": "cat", "train/dog/2.png": "dog"}


def test_train_may_be_a_class(tmp_path: Path) -> None:
    train = open_folder(write_images(tmp_path, "train/1.png", "tram/2.png")).train
    assert class_of_each(train) == {"train/1.png": "train", "tram/2.png": "tram"}


def test_parts_among_other_folders_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path, "train/1.png", "test/2.png", "extra/3.png")
    with pytest.raises(DataError, match=r"'train' and 'test', but also images in \['extra'\].*Move"):
        open_folder(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere' does not exist.*Give the path"):
        open_folder(tmp_path / "nowhere")


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "images.tar").touch()
    with pytest.raises(DataError, match="is a file"):
        open_folder(tmp_path / "images.tar")


def test_an_empty_folder_is_called_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no files at all"):
        open_folder(tmp_path)


def test_a_folder_without_images_says_what_it_holds_and_what_is_known(tmp_path: Path) -> None:
    for name in ("1.heic", "2.HEIC", "LICENSE"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"3 files but no image.*\.heic \(2\), none \(1\).*\.jpg .*Convert"):
        open_folder(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    locked = write_images(tmp_path, "1.png", "locked/2.png") / "locked"
    locked.chmod(0)
    try:
        with pytest.raises(DataError, match=r"cannot list.*permissions"):
            open_folder(tmp_path)
    finally:
        locked.chmod(0o700)


def test_a_path_that_the_system_refuses_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot list|does not exist"):
        open_folder(tmp_path / ("x" * 300))


def test_unreadable_images_are_found_when_decoded_not_when_listed(tmp_path: Path) -> None:
    write_images(tmp_path, "good.png")
    (tmp_path / "bad.png").touch()
    (tmp_path / "broken link.png").symlink_to("gone.png")
    train = open_folder(tmp_path).train
    assert list(train.names) == ["bad.png", "broken link.png", "good.png"]
    for index in (0, 1):
        with pytest.raises(ImageError, match=train.names[index]):
            train.image(index)
    train.image(2)


def test_the_home_folder_may_be_written_as_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(write_images(tmp_path, "photos/1.png")))
    assert list(open_folder(Path("~/photos")).train.names) == ["1.png"]
