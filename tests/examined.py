"""A small network and small pictures, as a task receives them."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from crosscontext.backbones import ResNetSettings
from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.datasets.contract import Dataset, Labels
from crosscontext.encoders import Encoder, Preprocessing, encoder_of
from crosscontext.errors import ImageError
from crosscontext.features import FeatureModel
from crosscontext.references import Pixels
from crosscontext.splits import Parts
from crosscontext.subjects import Subject

NARROW = ResNetSettings(depth=10, width=0.125, stem="small")
PREPROCESSING = Preprocessing.for_size(16)


def pictures(size: int, seed: int = 0, classes: Sequence[int] | None = None) -> ArrayDataset:
    """Coloured blocks of 4 × 4 pixels, with labels if classes are given."""
    blocks = np.random.default_rng(seed).integers(0, 256, (size, 4, 4, 3), dtype=np.uint8)
    labels = None if classes is None else Labels(("a", "b"), np.array(classes, dtype=np.int64))
    return ArrayDataset(blocks.repeat(4, axis=1).repeat(4, axis=2), [f"{i:03}" for i in range(size)], labels)


class Unreadable(Dataset):
    """Another data set, of which some images cannot be decoded."""

    def __init__(self, dataset: Dataset, broken: Sequence[int]):
        self.names, self.labels = dataset.names, dataset.labels
        self._dataset, self._broken = dataset, broken

    def image(self, index: int) -> Image.Image:
        if index in self._broken:
            raise ImageError(f"cannot decode {self.names[index]}")
        return self._dataset.image(index)


def encoder() -> Encoder:
    torch.manual_seed(0)
    made = encoder_of(NARROW.build(), NARROW, PREPROCESSING, step=0)
    made(torch.randn(8, 3, 16, 16))  # running statistics unlike those of a batch
    return made.eval()


def pixels() -> Pixels:
    return Pixels(PREPROCESSING)


def examined(
    test: Dataset, model: FeatureModel | None = None, seed: int = 0, batch_size: int = 16, workers: int = 1
) -> Subject:
    """A subject whose training images cannot be read: its task is to do without."""
    train = pictures(4)
    parts = Parts(Unreadable(train, range(4)), test, test.class_names, "own")
    return Subject("encoder", model or encoder(), parts, seed, batch_size, workers)
