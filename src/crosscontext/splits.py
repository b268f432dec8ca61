"""Which images are learned from, and which are judged: data settings → **splits** → evaluation."""

import hashlib
from typing import NamedTuple

import numpy as np

from crosscontext.datasets import DatasetSettings
from crosscontext.datasets.contract import Annotation, BoxDataset, Dataset
from crosscontext.datasets.subset import part_of
from crosscontext.errors import DataError

TEST_SHARE = 0.2
_NAMED_AT_MOST = 5
_NEEDED: dict[Annotation, str] = {
    "classes": "labels. Put the images of each class into a sub-folder of that name: DIR/cat/1.jpg, "
    "DIR/dog/2.jpg.",
    "boxes": "boxes. Give a folder in the layout of Pascal VOC, or images with a COCO annotation file.",
    "masks": "masks. Give a folder with the parts train and test, each with images and masks.",
}


class Parts(NamedTuple):
    """Images to learn from and images to be judged on, with the same classes."""

    train: Dataset
    test: Dataset
    class_names: tuple[str, ...]
    """Empty where the images have no annotation."""

    test_from: str
    """How the test images were found: ``test_data``, ``own`` or ``hash of names``."""


def open_parts(data: DatasetSettings, test_data: DatasetSettings | None, reads: Annotation) -> Parts:
    """Find the training and the test images.

    Args:
        data: its training part is learned from; without `test_data`, its own test part is judged, or else
            a fifth of it that depends on the names of the images alone.
        test_data: another set to judge: its test part if it has one, else all of it.
        reads: annotation that both parts must have.

    Raises:
        DataError: there is no such annotation, the parts have different classes, or one of them is too small.
    """
    train, test = data.open()
    if test_data is not None:
        other = test_data.open()
        test, test_from = other.test or other.train, "test_data"
    elif test is not None:
        test_from = "own"
    else:
        (train, test), test_from = split_by_name(train), "hash of names"
    if reads != "none":
        _check_annotation(train, "training", reads)
        _check_annotation(test, "test", reads)
        _check_classes(train, test, test_may_lack=test_from == "hash of names")  # of rare classes
    return Parts(train, test, train.class_names, test_from)


def split_by_name(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Divide images 80 to 20 by a hash of their names: neither their order nor other images matter.

    Returns:
        The training and the test part.

    Raises:
        DataError: a part is empty.
    """
    is_test = np.array([_position(name) < TEST_SHARE for name in dataset.names])
    if is_test.all() or not is_test.any():
        raise DataError(
            f"{len(dataset.names)} images are too few to keep a fifth of them for the test. "
            "Give more images, or test images with --test-data."
        )
    train, test = np.flatnonzero(~is_test).tolist(), np.flatnonzero(is_test).tolist()
    return part_of(dataset, train), part_of(dataset, test)


def _check_annotation(dataset: Dataset, part: str, reads: Annotation) -> None:
    if dataset.annotation != reads:
        has = {"none": "no labels", "classes": "a class each", "boxes": "boxes", "masks": "masks"}
        raise DataError(
            f"The {len(dataset.names)} {part} images have {has[dataset.annotation]}, "
            f"but the score needs {_NEEDED[reads]}"
        )


def _check_classes(train: Dataset, test: Dataset, *, test_may_lack: bool) -> None:
    trained, tested = set(train.class_names), set(test.class_names)
    if trained == tested:  # each class needs images, too
        trained, tested = _shown(train), _shown(test)
        test_may_lack = test_may_lack or isinstance(test, BoxDataset)  # absent objects spoil no average
    problems = [f"the training images lack {_some(tested - trained)}"] if tested - trained else []
    if trained - tested and not test_may_lack:
        problems.append(f"the test images lack {_some(trained - tested)}")
    if not problems and train.class_names != test.class_names:
        problems.append("they have the same names in another order")
    if problems:
        raise DataError(
            f"Training and test images have different classes: {'; '.join(problems)}. "
            "Give both parts the same classes in the same order, each with images."
        )


def _shown(dataset: Dataset) -> set[str]:
    """Names of the classes that any image shows; all of them where images are not labelled one by one."""
    if isinstance(dataset, BoxDataset):
        shown = np.unique(np.concatenate([dataset.boxes(i).classes for i in range(len(dataset.names))]))
    elif dataset.labels is not None:
        shown = np.unique(dataset.labels.classes)
    else:
        return set(dataset.class_names)
    return {dataset.class_names[index] for index in shown}


def _some(names: set[str]) -> str:
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return ", ".join(sorted(names)[:_NAMED_AT_MOST]) + more


def _position(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64
