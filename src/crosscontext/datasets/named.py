"""Well-known sets by name: name → files under CROSSCONTEXT_DATA_DIR → **named** → images and labels."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from pydantic import model_validator

from crosscontext.datasets import idx
from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.datasets.contract import Labels, Splits
from crosscontext.datasets.folder import FolderSettings
from crosscontext.errors import DataError
from crosscontext.settings import Settings
from crosscontext.shapes import Int64

DATA_DIR_VARIABLE = "CROSSCONTEXT_DATA_DIR"

KnownName = Literal["cifar10", "cifar100", "stl10", "fashion-mnist", "mnist", "svhn"]
KNOWN_NAMES: tuple[KnownName, ...] = get_args(KnownName)


class NamedSettings(Settings):
    """A set that torchvision knows, from the folder that the variable CROSSCONTEXT_DATA_DIR names.

    Looked for in this order: image files in <folder>/<dataset>/train and test, IDX files of MNIST's kind in
    <folder>/<dataset>, torchvision's own files there, and the same in <folder>.
    """

    name: Literal["torchvision"] = "torchvision"
    """A set that torchvision knows."""

    dataset: KnownName
    """Which one."""

    unlabelled: bool = False
    """STL-10 only, from torchvision's files: add the 100 000 unlabelled images to the training part, which
    then has no labels at all. For pretraining; probes need the labels, so evaluate without it."""

    download: bool = False
    """Fetch missing files from their publisher; otherwise nothing is downloaded."""

    @model_validator(mode="after")
    def _refuse_unlabelled_but_for_stl10(self) -> "NamedSettings":
        if self.unlabelled and self.dataset != "stl10":
            raise ValueError(f"unlabelled is for stl10; {self.dataset} has labels throughout. Leave it out.")
        return self

    def open(self) -> Splits:
        """Load both parts into memory, or list their files if they are image files.

        torchvision reads CIFAR with pickle, but only after MD5 sums prove that these are the published files.

        Raises:
            DataError: the variable is not set, or files are missing or damaged.
        """
        root = _data_dir()
        folder = root / self.dataset
        if not self.unlabelled and (folder / "train").is_dir() and (folder / "test").is_dir():
            return FolderSettings(path=folder).open()
        if self.dataset in ("mnist", "fashion-mnist") and idx.recognises(folder):
            return idx.read(folder, _mnist(self.dataset).classes)
        train_split = "train+unlabeled" if self.unlabelled else "train"
        attempts = [(folder, False), (root, False)] + [(folder, True)] * self.download
        faults = []
        for place, download in attempts:
            try:
                train = _load(self.dataset, place, train_split, download)
                return Splits(train, _load(self.dataset, place, "test", download))
            except (RuntimeError, OSError, ValueError, AssertionError) as cause:
                faults.append(f"{place}: {cause}")
        raise DataError(
            f"data set {self.dataset!r} not found under {DATA_DIR_VARIABLE}: no image folders "
            f"{folder / 'train'} and test, nor torchvision's files ({'; '.join(faults)}). "
            "Let the variable name the folder that holds them, or set download to fetch them."
        )


def _data_dir() -> Path:
    text = os.environ.get(DATA_DIR_VARIABLE)
    if not text:
        raise DataError(
            f"{DATA_DIR_VARIABLE} is not set: it must name the folder that holds data sets known by name. "
            f"Set it (export {DATA_DIR_VARIABLE}=~/data), or give the path of an image folder."
        )
    return Path(text).expanduser()


def _mnist(dataset: Literal["mnist", "fashion-mnist"]) -> Any:
    from torchvision import datasets as published

    return published.MNIST if dataset == "mnist" else published.FashionMNIST


def _load(dataset: KnownName, root: Path, split: str, download: bool) -> ArrayDataset:
    from torchvision import datasets as published

    classes: Any  # torchvision has lists, arrays and tensors here
    match dataset:
        case "cifar10" | "cifar100":
            kind = {"cifar10": published.CIFAR10, "cifar100": published.CIFAR100}[dataset]
            source = kind(root, train=split == "train", download=download)
            pixels, classes, class_names = source.data, source.targets, source.classes
        case "mnist" | "fashion-mnist":
            source = _mnist(dataset)(root, train=split == "train", download=download)
            pixels, classes, class_names = source.data.numpy(), source.targets, source.classes
        case "stl10":
            source = published.STL10(root, split=split, download=download)
            pixels, classes, class_names = source.data.transpose(0, 2, 3, 1), source.labels, source.classes
        case "svhn":
            source = published.SVHN(root, split=split, download=download)
            pixels, classes, class_names = source.data.transpose(0, 2, 3, 1), source.labels, "0123456789"
    names = [f"{split}/{index:06d}" for index in range(len(pixels))]
    labels = None if split == "train+unlabeled" else _labels(class_names, np.asarray(classes, dtype=np.int64))
    return ArrayDataset(pixels, names, labels)


def _labels(class_names: Sequence[str], classes: Int64[np.ndarray, " N"]) -> Labels:
    """Number the classes anew, in sorted order of their names."""
    order = sorted(range(len(class_names)), key=lambda index: class_names[index])
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    return Labels(tuple(class_names[index] for index in order), number[classes])
