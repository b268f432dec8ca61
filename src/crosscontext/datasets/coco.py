"""Sets with a COCO annotation file: images, JSON → **coco** → images and boxes.

Source: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; its format for object detection.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ValidationError, model_validator

from crosscontext.datasets.boxed import BoxedFiles, Side, inside
from crosscontext.datasets.contract import Boxes, Splits
from crosscontext.errors import DataError
from crosscontext.settings import AbsolutePath, Settings

_NAMED_AT_MOST = 5


class CocoSettings(Settings):
    """Images and boxes as COCO has them: a folder of images and a JSON file, and the same for the test part.

    The folder of COCO itself (train2017, val2017, annotations) may be given as a path alone.
    """

    name: Literal["coco"] = "coco"
    """Images with a COCO annotation file."""

    images: AbsolutePath
    """Folder of the training images."""

    annotation: AbsolutePath
    """JSON file with images, annotations and categories."""

    test_images: AbsolutePath | None = None
    """Folder of the test images; by default that of the training images."""

    test_annotation: AbsolutePath | None = None
    """JSON file of the test images; without one, the set has no test part."""

    @model_validator(mode="after")
    def _refuse_test_images_alone(self) -> "CocoSettings":
        if self.test_images is not None and self.test_annotation is None:
            raise ValueError(
                f"test_images {self.test_images} need test_annotation, their JSON file. Give it."
            )
        return self

    def open(self) -> Splits:
        """Read the annotation of both parts; no image is read yet.

        Raises:
            DataError: a file is missing or damaged, an annotation is about an image or a category that is not
                listed, an image is missing, or an image is in both parts.
        """
        train = _open(self.images, self.annotation)
        if self.test_annotation is None:
            return Splits(train, None)
        test_images = self.test_images or self.images
        test = _open(test_images, self.test_annotation)
        both = sorted(set(train.names) & set(test.names)) if test_images == self.images else []
        if both:
            raise DataError(
                f"{len(both)} images are in {self.annotation} and in {self.test_annotation}: "
                f"{', '.join(both[:_NAMED_AT_MOST])}. Take them out of one of the two."
            )
        return Splits(train, test)


def recognised(folder: Path) -> dict[str, Path] | None:
    """Spell out the folder of COCO itself: the settings of its parts, or None where it is something else."""
    parts = {
        path.stem.removeprefix("instances_"): path
        for path in sorted((folder / "annotations").glob("instances_*.json"))
        if (folder / path.stem.removeprefix("instances_")).is_dir()
    }
    train = next((part for part in parts if part.startswith("train")), None)
    test = next((part for part in parts if part.startswith("val")), None)
    if train is None:
        return None
    settings = {"images": folder / train, "annotation": parts[train]}
    if test is not None:
        settings |= {"test_images": folder / test, "test_annotation": parts[test]}
    return settings


class _Image(BaseModel):
    id: int
    file_name: str
    width: Side
    height: Side


class _Category(BaseModel):
    id: int
    name: str


class _Box(BaseModel):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    """Left and top edge, width, height."""

    iscrowd: Literal[0, 1] = 0


class _Content(BaseModel):
    """What is read of a file; it may hold more."""

    images: list[_Image]
    annotations: list[_Box]
    categories: list[_Category]


def _open(folder: Path, path: Path) -> BoxedFiles:
    content = _parse(path)
    class_names = tuple(sorted(category.name for category in content.categories))
    name_of = {category.id: category.name for category in content.categories}
    if not len(set(class_names)) == len(name_of) == len(class_names):
        raise DataError(
            f"{path} has categories with the same id or name: {list(class_names)}. Make them differ."
        )
    images = {image.id: image for image in content.images}
    names = [image.file_name for image in content.images]
    if len(images) < len(names) or len(set(names)) < len(names):
        raise DataError(f"{path} lists an image twice, by its id or its file_name. List each image once.")
    of_image: dict[int, list[_Box]] = defaultdict(list)
    for box in content.annotations:
        if box.image_id not in images or box.category_id not in name_of:
            key, value = (
                ("image_id", box.image_id) if box.image_id not in images else ("category_id", box.category_id)
            )
            raise DataError(
                f"{path} has an annotation with {key} {value}, which the file does not list. Add it to the "
                "file's images or categories, or take the annotation out."
            )
        of_image[box.image_id].append(box)
    number = {category_id: class_names.index(name) for category_id, name in name_of.items()}
    boxes, left_out = [], {}
    for image in content.images:
        found = of_image[image.id]
        edges = np.array([box.bbox for box in found], dtype=np.float64).reshape(-1, 4)
        edges[:, 2:] += edges[:, :2]
        corners, kept, causes = inside(edges, image.width, image.height)
        classes = np.array([number[box.category_id] for box in found], dtype=np.int64)
        crowd = np.array([box.iscrowd for box in found], dtype=bool)
        boxes.append(Boxes(corners[kept].astype(np.float32), classes[kept], crowd[kept]))
        if causes:
            left_out[image.file_name] = causes
    return BoxedFiles(folder, names, boxes, class_names, left_out)


def _parse(path: Path) -> _Content:
    try:
        return _Content.model_validate(json.loads(path.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        cause = f"{place} is {str(first['input'])[:60]!r} ({first['msg']})"
    except (OSError, ValueError, RecursionError) as error:
        cause = str(error)
    raise DataError(
        f"{path} is no COCO annotation of objects: {cause}. Give a JSON file with images, annotations and "
        "categories."
    )
