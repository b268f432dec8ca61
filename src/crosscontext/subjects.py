"""One model before its examination: model, images → **subjects** → tasks."""

import copy
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from crosscontext.datasets import Dataset
from crosscontext.datasets.subset import Subset
from crosscontext.encoders import Encoder
from crosscontext.errors import SettingsError
from crosscontext.feature_store import FeatureStore
from crosscontext.features import FeatureModel, Features
from crosscontext.heartbeat import Beat, heartbeat
from crosscontext.randomness import permutation
from crosscontext.shapes import Int64
from crosscontext.splits import Parts


class Sample(NamedTuple):
    """Some of the test images."""

    images: Subset
    rows: Int64[Tensor, " M"]
    """Their rows in the features of the test images."""


class Subject:
    """What a task may use of a model; features are computed when they are first asked for.

    Args:
        name: of the model, e.g. ``encoder`` or ``pixels``.
        model: is never changed.
        parts: images to learn from, and images to be judged on.
        seed: of whatever a task draws, in [0, 2³²).
        batch_size: images loaded at once.
        workers: threads that decode; 0 counts as 1.
        store: computes the features, or finds them; by default nothing is kept.
        notify: is told how far a long training is.
    """

    def __init__(
        self,
        name: str,
        model: FeatureModel,
        parts: Parts,
        seed: int,
        batch_size: int = 256,
        workers: int = 2,
        store: FeatureStore | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ):
        self.name, self.model, self.parts, self.seed = name, model, parts, seed
        self.batch_size, self.workers = batch_size, workers
        self._store, self._notify = store or FeatureStore(), notify

    @cached_property
    def train(self) -> Features:
        """Features of the training images.

        Raises:
            DataError: not a single image can be read.
            NonFiniteError: the model gives features that are no numbers.
        """
        return self._features(self.parts.train)

    @cached_property
    def test(self) -> Features:
        """Features of the test images; errors as of `train`."""
        return self._features(self.parts.test)

    def sample_test(self, size: int) -> Sample:
        """Draw readable test images by the seed: at most so many, in random order."""
        readable = [
            index for index, name in enumerate(self.parts.test.names) if name not in self.test.skipped
        ]
        rows = permutation(self.seed, 0, len(readable))[:size]
        return Sample(Subset(self.parts.test, [readable[row] for row in rows]), torch.from_numpy(rows))

    @property
    def has_network(self) -> bool:
        """Whether there is a network that can be trained further."""
        return isinstance(self.model, Encoder)

    def network(self) -> Encoder:
        """Copy the network, for tasks that train it or read its stage maps; on the device of the model.

        Raises:
            SettingsError: the model is none, as raw pixels are.
        """
        if not isinstance(self.model, Encoder):
            raise SettingsError(
                f"The task needs a network, and {self.name} has none. Leave {self.name} out of references."
            )
        return copy.deepcopy(self.model).requires_grad_(True)

    def beat(self, task: str) -> Beat:
        """Make what a task tells of its training's steps."""
        return heartbeat(f"{self.name}: {task}", self._notify)

    def _features(self, dataset: Dataset) -> Features:
        return self._store.features(self.name, self.model, dataset, self.batch_size, self.workers)
