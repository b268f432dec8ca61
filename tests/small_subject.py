"""A small network and small pictures of classes that are easily told apart."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from crosscontext.backbones import ResNetSettings
from crosscontext.datasets import Dataset, FolderSettings, Labels
from crosscontext.datasets.subset import Subset
from crosscontext.encoders import Encoder, Preprocessing, encoder_of
from crosscontext.splits import Parts
from crosscontext.subjects import Subject

NARROW = ResNetSettings(depth=10, width=0.125, stem="small")


class Relabelled(Subset):
    """The same images with other classes."""

    def __init__(self, dataset: Dataset, classes: Sequence[int]) -> None:
        super().__init__(dataset, range(len(dataset.names)))
        self.labels = Labels(dataset.class_names, np.array(classes, dtype=np.int64))


def small_encoder(image_size: int = 16) -> Encoder:
    """Build a network of random weights."""
    torch.manual_seed(0)
    return encoder_of(NARROW.build(), NARROW, Preprocessing.for_size(image_size), step=0).eval()


def weights_of(encoder: Encoder) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in encoder.state_dict().items()}


def same_weights(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def small_subject(folder: Path, seed: int = 0, workers: int = 1, batch_size: int = 64) -> Subject:
    """Every third picture of each class is judged."""
    dataset = FolderSettings(path=folder).open().train
    test = list(range(0, len(dataset.names), 3))
    train = [index for index in range(len(dataset.names)) if index % 3]
    parts = Parts(Subset(dataset, train), Subset(dataset, test), dataset.class_names, "every third")
    return Subject("encoder", small_encoder(), parts, seed, batch_size, workers)


def poisoned(subject: Subject) -> Subject:
    """The same subject, with each test image of the other one of two classes."""
    parts = subject.parts
    assert parts.test.labels is not None
    wrong = Relabelled(parts.test, (1 - parts.test.labels.classes).tolist())
    return Subject(
        subject.name,
        subject.model,
        parts._replace(test=wrong),
        subject.seed,
        subject.batch_size,
        subject.workers,
    )
