"""What a task offers: a model and annotated images → measurements.

subjects → **tasks** → results
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal, NamedTuple

from crosscontext.confidence import Statistic, value_of
from crosscontext.datasets import Annotation
from crosscontext.features import Features
from crosscontext.settings import Settings
from crosscontext.subjects import Subject

Unit = Literal["share", "number"]


class Measurement(NamedTuple):
    """One metric on the test images."""

    metric: str
    """E.g. ``top1``, or ``top1_k20`` where one task has several."""

    statistic: Statistic
    """Gives the value, and its interval by being computed again on resamples of the images."""

    details: dict[str, object]
    """What the task found out or had to decide on the way, e.g. the chosen penalty; JSON values."""

    unit: Unit = "share"
    """share: in [0, 1] or [-1, 1], shown in per cent. number: shown as it is."""

    @property
    def value(self) -> float:
        """The number itself."""
        return value_of(self.statistic)


class Task(Settings, ABC):
    """The settings of a way to judge a model, and the way itself."""

    name: str
    """Tells the members apart."""

    reads: ClassVar[Annotation] = "classes"
    """What the images must have."""

    takes_network: ClassVar[bool] = False
    """Whether features are not enough: references without a network are left out."""

    learns: ClassVar[bool] = True
    """Whether the training images are looked at; if not, the test images alone are judged."""

    def protocol(self) -> dict[str, object]:
        """What must be equal for two scores to be comparable, as JSON values: all settings."""
        return self.model_dump(mode="json")

    @abstractmethod
    def judge(self, subject: Subject) -> Iterator[Measurement]:
        """Learn from the training images, then read the test images once.

        Whatever is chosen (a penalty, a learning rate) is chosen within the training images.

        Raises:
            SettingsError: a setting does not suit the model or the number of images.
            DataError: the annotation does not suffice.
        """


class FeatureTask(Task):
    """A task for which the features of an image are all there is."""

    def judge(self, subject: Subject) -> Iterator[Measurement]:
        """Measure the features of a model."""
        yield from self.measure(subject.train, subject.test, subject.seed)

    @abstractmethod
    def measure(self, train: Features, test: Features, seed: int) -> Iterator[Measurement]:
        """Learn from the training images, then read the test images once.

        Args:
            train: with classes, if the task reads them.
            test: with classes of the same names.
            seed: of whatever is drawn, in [0, 2³²).

        Raises:
            SettingsError: a setting does not suit the number of images.
            DataError: the annotation does not suffice.
        """
