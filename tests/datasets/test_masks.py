import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crosscontext.datasets import MaskDataset, MasksSettings
from crosscontext.datasets.contract import IGNORED
from crosscontext.errors import DataError, ImageError
from crosscontext.splits import open_parts, split_by_name
from drawn_masks import CLASSES, draw, masks_of, write_pair, write_set


def opened(root: Path, **changes: object) -> tuple[MaskDataset, MaskDataset | None]:
    train, test = MasksSettings.model_validate({"path": root, **changes}).open()
    assert isinstance(train, MaskDataset)
    assert test is None or isinstance(test, MaskDataset)
    return train, test


def write_values(root: Path, *values: int) -> Path:
    """Images of one row each, with these values in their masks."""
    for i, value in enumerate(values):
        write_pair(root, f"{i}", np.zeros((1, 2, 3), np.uint8), np.array([[0, value]], np.uint8))
    return root


def test_images_and_masks_of_a_part_are_found_by_their_names(tmp_path: Path) -> None:
    train, test = opened(write_set(tmp_path, train=3, test=2))
    assert train.names == ["train/images/00.png", "train/images/01.png", "train/images/02.png"]
    assert test is not None
    assert test.names == ["test/images/00.png", "test/images/01.png"]
    pixels, mask = draw(101)
    assert np.array_equal(test.pixels(1), pixels)
    assert np.array_equal(np.asarray(test.image(1)), pixels)
    assert np.array_equal(test.mask(1), np.where(mask == 9, IGNORED, mask))
    assert test.class_names == ("background", "block", "line")
    assert (test.annotation, test.labels) == ("masks", None)


def test_endings_of_images_are_free_and_folders_may_be_nested(tmp_path: Path) -> None:
    for name in ("town/1.0", "2"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / f"{name}.JPG")
        Image.new("L", (4, 4)).save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "images" / ".hidden.png").touch()
    (tmp_path / "masks" / "notes.txt").touch()
    train, test = opened(tmp_path)
    assert train.names == ["images/2.JPG", "images/town/1.0.JPG"]
    assert test is None


def test_test_is_judged_or_else_val(tmp_path: Path) -> None:
    write_set(tmp_path, train=2, val=3)
    _, val = opened(tmp_path)
    assert val is not None
    assert val.names[0] == "val/images/00.png"
    write_set(tmp_path, test=1)
    _, test = opened(tmp_path)
    assert test is not None
    assert test.names == ["test/images/00.png"]


def test_val_is_learned_from_when_asked(tmp_path: Path) -> None:
    write_set(tmp_path, train=2, val=3, test=1)
    assert len(opened(tmp_path)[0].names) == 2
    train, test = opened(tmp_path, train_on_val=True)
    assert len(train.names) == 5
    assert np.array_equal(train.mask(2) == 1, draw(100)[1] == 1)
    assert test is not None
    assert len(test.names) == 1


@pytest.mark.parametrize("parts", [{"train": 2, "val": 2}, {"train": 2, "test": 2}])
def test_val_is_not_both_learned_from_and_judged(tmp_path: Path, parts: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"train_on_val is set, but .* has no parts val and test"):
        opened(write_set(tmp_path, **parts), train_on_val=True)


def test_values_are_numbered_as_the_list_of_classes_says(tmp_path: Path) -> None:
    write_values(tmp_path, 7, 3, 12)
    (tmp_path / "classes.txt").write_text("12 road\n\n3 tall  tree\n0 void (ignore)\n7 sky\n")
    train, _ = opened(tmp_path)
    assert train.class_names == ("tall  tree", "sky", "road")
    assert [train.mask(i).tolist() for i in range(3)] == [[[IGNORED, 1]], [[IGNORED, 0]], [[IGNORED, 2]]]


def test_without_a_list_each_value_that_occurs_is_a_class(tmp_path: Path) -> None:
    train, _ = opened(write_values(tmp_path, 40, 255, 7))
    assert train.class_names == ("0", "7", "40")
    assert [train.mask(i).tolist() for i in range(3)] == [[[0, 2]], [[0, IGNORED]], [[0, 1]]]


def test_further_values_are_ignored_when_asked(tmp_path: Path) -> None:
    train, _ = opened(write_set(tmp_path, train=1), ignored=[0])
    assert train.class_names == ("block", "line")
    assert set(np.unique(train.mask(0)).tolist()) == {0, 1, IGNORED}


def test_both_parts_have_the_same_classes(tmp_path: Path) -> None:
    write_values(tmp_path / "train", 1, 5)
    write_values(tmp_path / "test", 5)
    train, test = opened(tmp_path)
    assert test is not None
    assert train.class_names == test.class_names == ("0", "1", "5")
    assert test.mask(0).tolist() == [[0, 2]]


def test_palettes_hold_classes_too(tmp_path: Path) -> None:
    write_set(tmp_path, train=1)
    (file,) = masks_of(tmp_path, "train")
    expected = opened(tmp_path)[0].mask(0)
    coloured = Image.frombytes("P", expected.shape[::-1], Image.open(file).tobytes())
    coloured.putpalette([255 - i // 3 for i in range(768)])
    coloured.save(file)
    assert Image.open(file).mode == "P"
    assert np.array_equal(opened(tmp_path)[0].mask(0), expected)


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_image_without_mask_is_refused_by_name(tmp_path: Path, part: str) -> None:
    write_set(tmp_path, train=3, test=3)
    masks_of(tmp_path, part)[1].unlink()
    with pytest.raises(
        DataError, match=rf"1 of 3 images in .*{part}' have no mask: {part}/images/01.png\. Put"
    ):
        opened(tmp_path)


def test_a_mask_without_image_is_refused_by_name(tmp_path: Path) -> None:
    write_set(tmp_path, train=9)
    for i in range(7):
        (tmp_path / "train" / "images" / f"0{i}.png").unlink()
    with pytest.raises(
        DataError, match=r"7 of 9 masks in .* have no image: train/masks/00.png, .*/04.png and 2 more\."
    ):
        opened(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path, train=1)
    Image.new("RGB", (4, 4)).save(tmp_path / "train" / "images" / "00.jpg")
    with pytest.raises(DataError, match=r"'train/images/00.jpg' and '00.png' differ only in their endings"):
        opened(tmp_path)


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_part_lacks_or_has_an_empty_folder(tmp_path: Path, kind: str) -> None:
    write_set(tmp_path, train=1, test=1)
    shutil.rmtree(tmp_path / "test" / kind)
    with pytest.raises(DataError, match=rf"test/{kind}' does not exist\. Expected images and masks"):
        opened(tmp_path)
    (tmp_path / "test" / kind).mkdir()
    with pytest.raises(DataError, match=rf"test/{kind}' holds no file ending in .*\.png.*Put"):
        opened(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere/images' does not exist"):
        opened(tmp_path / "nowhere")


def test_a_value_that_is_no_class_is_named_with_its_file(tmp_path: Path) -> None:
    write_set(tmp_path, train=2)
    mask = draw(1)[1]
    mask[3, 4:9] = 37
    write_pair(tmp_path / "train", "01", draw(1)[0], mask)
    train, _ = opened(tmp_path)
    train.mask(0)
    for read in (lambda: train.mask(1), train.annotation_digest):
        with pytest.raises(
            DataError, match=r"'train/masks/01.png' has the value 37 in 5 pixels.*--data.ignored"
        ):
            read()


def test_colours_are_no_classes(tmp_path: Path) -> None:
    write_set(tmp_path, train=1)
    write_pair(tmp_path / "train", "00", draw(0)[0], draw(0)[0])
    with pytest.raises(DataError, match=r"'train/masks/00.png' is a PNG .* stored as RGB.*palette"):
        opened(tmp_path)[0].mask(0)


def test_a_damaged_mask_is_an_image_error_and_has_a_digest(tmp_path: Path) -> None:
    write_set(tmp_path, train=2)
    whole = opened(tmp_path)[0].annotation_digest()
    masks_of(tmp_path, "train")[0].write_bytes(b"")
    train, _ = opened(tmp_path)
    with pytest.raises(ImageError, match=r"cannot decode 'train/masks/00.png'"):
        train.mask(0)
    assert train.annotation_digest() != whole


@pytest.mark.parametrize(
    ("content", "line"),
    [("0 sky\nroad\n", 2), ("300 sky\n", 1), ("0 sky\n1 road\n0 tree\n", 3), ("0 sky\n1 sky", 2)],
)
def test_a_list_of_classes_that_cannot_be_understood_is_refused(
    tmp_path: Path, content: str, line: int
) -> None:
    write_values(tmp_path, 1)
    (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(DataError, match=rf"line {line} of .*classes.txt' is .*'3 road'.*Mend"):
        _ = opened(tmp_path)[0].class_names


def test_a_set_all_of_whose_values_are_ignored_is_refused(tmp_path: Path) -> None:
    train, _ = opened(write_values(tmp_path, 1, 2), ignored=[0, 1, 2])
    with pytest.raises(
        DataError, match=r"0 of 3 values of the masks in .* are classes, the others are ignored"
    ):
        _ = train.class_names


def test_for_pretraining_masks_need_not_even_be_readable(tmp_path: Path) -> None:
    write_set(tmp_path, train=2)
    (tmp_path / "classes.txt").write_text("nonsense")
    for file in masks_of(tmp_path, "train"):
        file.write_bytes(b"")
    train, _ = opened(tmp_path)
    assert np.array_equal(train.pixels(1), draw(1)[0])


def test_the_digest_is_that_of_names_classes_and_pixels_not_of_the_place(tmp_path: Path) -> None:
    write_set(tmp_path / "a", train=2, test=1)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    digests = {opened(tmp_path / name)[0].annotation_digest() for name in "ab"}
    assert len(digests) == 1
    mask = draw(1)[1]
    mask[5, 5] = (mask[5, 5] + 1) % 3
    write_pair(tmp_path / "b" / "train", "01", draw(1)[0], mask)
    digests.add(opened(tmp_path / "b")[0].annotation_digest())
    (tmp_path / "a" / "classes.txt").write_text(CLASSES.replace("block", "cube"))
    digests.add(opened(tmp_path / "a")[0].annotation_digest())
    assert len(digests) == 3


def test_parts_by_name_keep_images_and_masks_together(tmp_path: Path) -> None:
    for i in range(30):
        write_pair(tmp_path, f"{i:02}", *draw(i))
    (tmp_path / "classes.txt").write_text(CLASSES)
    for part in split_by_name(opened(tmp_path)[0]):
        assert isinstance(part, MaskDataset)
        assert (part.annotation, part.class_names) == ("masks", ("background", "block", "line"))
        for place, name in enumerate(part.names):
            pixels, mask = draw(int(Path(name).stem))
            assert np.array_equal(part.pixels(place), pixels)
            assert np.array_equal(part.mask(place) == 2, mask == 2)


def test_the_same_classes_in_another_order_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_set(tmp_path / name, train=2, test=1)
    (tmp_path / "b" / "classes.txt").write_text("0 line\n1 block\n2 background\n9 frame (ignore)\n")
    with pytest.raises(DataError, match="same names in another order"):
        open_parts(MasksSettings(path=tmp_path / "a"), MasksSettings(path=tmp_path / "b"), "masks")
