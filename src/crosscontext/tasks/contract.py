"""What a task offers: features of training and test images → measurements.

features → **tasks** → results
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from crosscontext.features import Features
from crosscontext.settings import Settings
from crosscontext.shapes import Bool


class Measurement(NamedTuple):
    """One metric on the test images; the score is the share of them that are right."""

    metric: str
    """E.g. ``top1``, or ``top1_k20`` where one task has several."""

    right: Bool[Tensor, " N"]
    """Whether the answer for each test image is right."""

    details: dict[str, object]
    """What the task found out or had to decide on the way, e.g. the chosen penalty."""


class Task(Settings, ABC):
    """The settings of a way to judge features, and the way itself."""

    name: str
    """Tells the members apart."""

    @abstractmethod
    def measure(self, train: Features, test: Features, seed: int) -> Iterator[Measurement]:
        """Learn from the training images, then read the test images once.

        Args:
            train: with classes.
            test: with classes of the same names.
            seed: of whatever is drawn, in [0, 2³²).

        Raises:
            SettingsError: a setting does not suit the number of images.
        """
