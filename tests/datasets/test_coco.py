import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from crosscontext.datasets import BoxDataset, CocoSettings
from crosscontext.errors import DataError
from drawn import Thing, paint_things

BOX = {"image_id": 7, "category_id": 20, "bbox": [5, 6, 10, 12]}


def content(**changes: Any) -> dict[str, Any]:
    usual = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 3, "file_name": "b.png", "width": 40, "height": 30},
        ],
        "categories": [{"id": 20, "name": "red"}, {"id": 10, "name": "sky"}, {"id": 90, "name": "blue"}],
        "annotations": [BOX, {**BOX, "category_id": 90, "iscrowd": 1, "bbox": [0, 0, 4.5, 4]}],
    }
    return {**usual, **changes}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        paint_things(tmp_path / "images" / f"{name}.png", [Thing("red", 5, 6, 15, 18)], 40, 30)
    return tmp_path


def opened(folder: Path, what: object) -> BoxDataset:
    (folder / "boxes.json").write_text(what if isinstance(what, str) else json.dumps(what))
    train = CocoSettings(images=folder / "images", annotation=folder / "boxes.json").open().train
    assert isinstance(train, BoxDataset)
    return train


def test_boxes_are_corners_and_crowds_are_difficult(folder: Path) -> None:
    dataset = opened(folder, content())
    assert list(dataset.names) == ["a.png", "b.png"]
    assert dataset.class_names == ("blue", "red", "sky")
    corners, classes, difficult = dataset.boxes(0)
    assert corners.tolist() == [[5, 6, 15, 18], [0, 0, 4.5, 4]]
    assert classes.tolist() == [1, 0]
    assert difficult.tolist() == [False, True]
    assert dataset.pixels(0).shape == (30, 40, 3)


def test_an_image_without_annotations_has_no_boxes(folder: Path) -> None:
    assert opened(folder, content()).boxes(1).corners.shape == (0, 4)


def test_the_test_part_is_another_file(folder: Path) -> None:
    first, second = content()["images"]
    (folder / "train.json").write_text(json.dumps(content(images=[first])))
    (folder / "test.json").write_text(json.dumps(content(images=[second], annotations=[])))
    files = {"annotation": folder / "train.json", "test_annotation": folder / "test.json"}
    parts = CocoSettings(images=folder / "images", **files).open()
    assert parts.test is not None
    assert (list(parts.train.names), list(parts.test.names)) == (["a.png"], ["b.png"])
    (folder / "test.json").write_text(json.dumps(content()))
    with pytest.raises(DataError, match=r"1 images are in .*train\.json and in .*test\.json: a\.png"):
        CocoSettings(images=folder / "images", **files).open()


def test_test_images_alone_are_refused(folder: Path) -> None:
    with pytest.raises(ValidationError, match="need test_annotation"):
        CocoSettings(images=folder, annotation=folder / "boxes.json", test_images=folder)


def test_useless_boxes_are_left_out_and_named(folder: Path) -> None:
    useless = [[5, 5, 0, 3], [5, 5, -2, 3], [39, 29, 20, 20], [5, 5, float("nan"), 1]]
    dataset = opened(folder, content(annotations=[BOX, *({**BOX, "bbox": bbox} for bbox in useless)]))
    assert dataset.boxes(0).corners.tolist() == [[5, 6, 15, 18]]
    (causes,) = dataset.left_out.values()
    assert [("area" in cause, "outside" in cause) for cause in causes] == [
        (True, False),
        (True, False),
        (False, True),
        (True, False),
    ]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"annotations": [{**BOX, "image_id": 8}]},
            r"an annotation with image_id 8, which the file does not list",
        ),
        ({"annotations": [{**BOX, "category_id": 21}]}, r"an annotation with category_id 21"),
        ({"annotations": [{**BOX, "bbox": [1, 2, 3]}]}, r"annotations\.0\.bbox"),
        ({"images": [{"id": 7, "file_name": "a.png", "width": 0, "height": 3}]}, r"images\.0\.width is '0'"),
        (
            {"images": [{"id": 7, "file_name": "c.png", "width": 9, "height": 9}]},
            r"1 of 1 .* are not in .*: c\.png",
        ),
        ({"images": [], "annotations": []}, r"lists no image"),
        ({"images": content()["images"][:1] * 2}, r"lists an image twice"),
        (
            {"categories": [{"id": 20, "name": "red"}, {"id": 90, "name": "red"}]},
            r"categories with the same id",
        ),
    ],
)
def test_faulty_annotation_is_refused_with_the_place(
    folder: Path, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        opened(folder, content(**change))


@pytest.mark.parametrize("text", ["{", "[]", "", "7"])
def test_something_else_than_annotation_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"boxes\.json is no COCO annotation of objects: "):
        opened(folder, text)


def test_a_missing_file_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"No such file"):
        CocoSettings(images=folder / "images", annotation=folder / "none.json").open()


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "a/../../b.png", "x" * 300, "n\0ul.png"])
def test_images_elsewhere_are_not_touched(folder: Path, name: str) -> None:
    paint_things(folder / "outside.png", [], 40, 30)
    images = [{"id": 7, "file_name": name, "width": 40, "height": 30}]
    with pytest.raises(DataError, match=r"does not lie below that folder|are not in"):
        opened(folder, content(images=images))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"images": ' + "9" * 5000 + "}"], ids=["deep", "long"])
def test_json_that_is_a_trap_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"boxes\.json is no COCO annotation"):
        opened(folder, text)


@pytest.mark.parametrize("width", ["NaN", "Infinity", "1e30", "-1"])
def test_a_width_that_no_image_has_is_refused(folder: Path, width: str) -> None:
    text = json.dumps(content()).replace('"width": 40', f'"width": {width}')
    with pytest.raises(DataError, match=r"images\.0\.width is"):
        opened(folder, text)
