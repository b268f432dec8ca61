"""A model over a data set, once: images → **features** → tasks, health, search.

Every readable image counts exactly once, in the order of the data set; neither the batch size nor the
number of workers changes the result.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from crosscontext.datasets.contract import Dataset
from crosscontext.encoders import Encoder, Preprocessing
from crosscontext.errors import DataError, ImageError, NonFiniteError
from crosscontext.inference import for_inference
from crosscontext.prefetching import ahead, in_batches
from crosscontext.shapes import Float, Int64, UInt8


@runtime_checkable
class FeatureModel(Protocol):
    """What turns images into features: an encoder, or a reference that it is compared with."""

    training: bool

    @property
    def width(self) -> int:
        """Length of a feature vector."""

    @property
    def digest(self) -> str:
        """Identifies the weights."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How a picture becomes an input."""

    def __call__(self, images: Tensor) -> Tensor:
        """Compute features (B, D) of images (B, 3, S, S)."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As of `nn.Module`; their device is where images are sent."""

    def train(self, mode: bool = True) -> object:
        """As of `nn.Module`."""


class Features(NamedTuple):
    """The features of the readable images of a data set, on the CPU."""

    values: Float[Tensor, "N D"]
    """float32."""

    classes: Int64[Tensor, " N"] | None
    """Indices into the class names of the data set; None where it has no labels."""

    names: tuple[str, ...]
    skipped: dict[str, str]
    """Name of each unreadable image → why."""

    @classmethod
    def of(cls, dataset: Dataset, values: Float[Tensor, "N D"], skipped: dict[str, str]) -> "Features":
        """Put names and classes beside the vectors of those images that are not skipped, in their order."""
        kept = [index for index, name in enumerate(dataset.names) if name not in skipped]
        classes = None if dataset.labels is None else torch.from_numpy(dataset.labels.classes[kept])
        in_order = {name: skipped[name] for name in dataset.names if name in skipped}  # threads have none
        return cls(values, classes, tuple(dataset.names[index] for index in kept), in_order)


class LoadedBatch(NamedTuple):
    """Preprocessed images, and which ones they are."""

    images: Float[Tensor, "B 3 S S"]
    indices: list[int]


def extract(model: FeatureModel, dataset: Dataset, batch_size: int, workers: int) -> Features:
    """Compute the features of all readable images.

    Args:
        model: of an encoder, a faster copy is used (`for_inference`), and it is left as it is; anything else
            is put into evaluation mode, and back.
        dataset: with or without labels.
        batch_size: images loaded at once; on a CPU an encoder divides them as suits its caches.
        workers: threads that decode; 0 counts as 1.

    Raises:
        DataError: not a single image can be read.
        NonFiniteError: the model gives features that are no numbers.
    """
    if isinstance(model, Encoder):
        model = for_inference(model)
    skipped: dict[str, str] = {}
    rows: list[Tensor] = []
    was_training = model.training
    model.train(False)
    try:
        with torch.no_grad():
            for images, _ in load_batches(model, dataset, batch_size, workers, skipped):
                rows.append(model(images).float().cpu())
    finally:
        model.train(was_training)
    if not rows:
        causes = "; ".join(list(skipped.values())[:3])
        raise DataError(f"None of {len(dataset.names)} images can be read: {causes}. Check the data folder.")
    features = Features.of(dataset, torch.cat(rows), skipped)
    refuse_non_finite(features.values, features.names)
    return features


def refuse_non_finite(values: Float[Tensor, "N D"], names: Sequence[str]) -> None:
    """Make sure that features are numbers.

    Raises:
        NonFiniteError: some are not; the first such image is named.
    """
    if not (finite := values.isfinite().all(dim=1)).all():
        broken = names[int(finite.int().argmin())]
        raise NonFiniteError(
            f"The features of {int((~finite).sum())} of {len(finite)} images are not finite, as of {broken}; "
            "the weights are broken. Use an earlier checkpoint, or train with a lower learning rate."
        )


def load_batches(
    model: FeatureModel, dataset: Dataset, batch_size: int, workers: int, skipped: dict[str, str]
) -> Iterator[LoadedBatch]:
    """Decode and preprocess all images in order, two batches ahead of the model.

    Args:
        model: preprocesses; the images are sent to its device.
        dataset: is read from several threads.
        batch_size: images in a batch; batches with unreadable images are smaller.
        workers: threads; 0 counts as 1.
        skipped: receives the name and the cause of each unreadable image.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

    def load(index: int) -> tuple[int, UInt8[np.ndarray, "S S 3"] | None]:
        try:
            return index, model.preprocessing.pixels(dataset.image(index))
        except ImageError as error:
            skipped[dataset.names[index]] = str(error)
            return index, None

    for loads in ahead(load, in_batches(len(dataset.names), batch_size), workers):
        loaded = [(index, pixels) for index, pixels in loads if pixels is not None]
        if loaded:
            stacked = torch.from_numpy(np.stack([pixels for _, pixels in loaded])).to(device)
            # permuted it lies in channels_last, of which convolutions are 1.4 times as fast
            images = model.preprocessing.normalise(stacked.permute(0, 3, 1, 2))
            yield LoadedBatch(images, [index for index, _ in loaded])
