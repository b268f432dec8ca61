"""The images of benchmarks: CIFAR-10 and photographs of `CROSSCONTEXT_DATA_DIR`, else drawn shapes."""

import os
from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from bench.harness import CannotMeasureError
from crosscontext.datasets import Dataset, FolderSettings, NamedSettings, ShapesSettings, Splits
from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.datasets.files import ImageFiles
from crosscontext.datasets.named import DATA_DIR_VARIABLE
from crosscontext.datasets.subset import Subset
from crosscontext.randomness import permutation

SmallSet = Literal["cifar10", "shapes"]


def small_set() -> SmallSet:
    """Choose the images of 32 px: CIFAR-10 where `CROSSCONTEXT_DATA_DIR` is set, else drawn shapes."""
    return "cifar10" if os.environ.get(DATA_DIR_VARIABLE) else "shapes"


def small_images(name: SmallSet, count: int) -> ArrayDataset:
    """Take some training images of a set of 32 px into memory.

    Raises:
        DataError: CIFAR-10 is not in the folder that `CROSSCONTEXT_DATA_DIR` names.
    """
    if name == "shapes":
        return in_memory(ShapesSettings(num_train=count, num_test=0).open().train)
    train = cifar10().train
    return in_memory(Subset(train, permutation(0, 0, len(train.names))[:count].tolist()))


def cifar10() -> Splits:
    """Open CIFAR-10.

    Raises:
        DataError: it is not in the folder that `CROSSCONTEXT_DATA_DIR` names.
    """
    return NamedSettings(dataset="cifar10").open()


def photographs() -> ImageFiles:
    """Open the folder `photos` of `CROSSCONTEXT_DATA_DIR`: JPEG files of photographs, side by side.

    Raises:
        CannotMeasureError: the variable is not set.
        DataError: there is no such folder.
    """
    root = os.environ.get(DATA_DIR_VARIABLE)
    if not root:
        raise CannotMeasureError(
            f"{DATA_DIR_VARIABLE} is not set: its sub-folder photos must hold photographs. Set it."
        )
    train = FolderSettings.model_validate({"path": f"{root}/photos"}).open().train
    assert isinstance(train, ImageFiles)
    return train


def in_memory(dataset: Dataset) -> ArrayDataset:
    """Decode images of one size once, so that no contender pays for reading files."""
    pixels = np.stack([np.asarray(dataset.image(index)) for index in range(len(dataset.names))])
    return ArrayDataset(pixels, dataset.names, dataset.labels)


class Pictures(TorchDataset[tuple[list[Tensor], int]]):
    """Our data set as the peers take one: transformed pictures with a class, as of torchvision."""

    def __init__(self, dataset: Dataset, transform: Callable[[Image.Image], list[Tensor]]):
        self._dataset, self._transform = dataset, transform

    def __len__(self) -> int:
        return len(self._dataset.names)

    def __getitem__(self, index: int) -> tuple[list[Tensor], int]:
        return self._transform(self._dataset.image(index)), 0
