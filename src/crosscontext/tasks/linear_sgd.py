"""The linear protocol of the papers: SGD on random crops through a frozen network."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from crosscontext.datasets.subset import Subset
from crosscontext.encoders import Encoder
from crosscontext.features import extract
from crosscontext.finetuning import HeadTraining, train_heads
from crosscontext.stratified import hold_out
from crosscontext.subjects import Subject
from crosscontext.tasks.accuracy import accuracies
from crosscontext.tasks.contract import Measurement, Task


class LinearSgdSettings(Task):
    """A linear classifier on the features of crops and flips, as CGH is evaluated (arXiv 2308.13392).

    It costs a pass through the network for every crop, where the task ``linear`` needs one an image.
    """

    name: Literal["linear_sgd"] = "linear_sgd"

    takes_network: ClassVar[bool] = True

    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = Field((0.3,), min_length=1)
    """Candidates for the first learning rate at a batch of 256, scaled in proportion to the batch; published:
    0.3. Among several the held-out images choose."""

    held_out: float = Field(0.2, gt=0, lt=1)
    """Share of the training images of each class that chooses among several learning rates, in (0, 1)."""

    training: HeadTraining = HeadTraining()
    """Length, batch, momentum, crops and flips."""

    def judge(self, subject: Subject) -> Iterator[Measurement]:
        """Choose among several learning rates, train on all training images, read the test images."""
        network = subject.network()
        (learning_rate, *others), choice = self.learning_rates, dict[str, object]()
        if others:
            learning_rate, accuracy = self._choose(network, subject)
            choice = {"learning_rate": learning_rate, "held_out_top1": accuracy}
        trained = train_heads(
            network,
            subject.parts.train,
            [learning_rate],
            self.training,
            subject.seed,
            subject.workers,
            subject.beat(self.name),
        )
        (head,), test = trained.heads, subject.test
        assert test.classes is not None
        details = trained.details(test.skipped) | choice
        yield from accuracies(head.scores(test.values), test.classes, details)

    def _choose(self, network: Encoder, subject: Subject) -> tuple[float, float]:
        """Find the learning rate that does best on held-out training images, and its accuracy there."""
        train = subject.parts.train
        assert train.labels is not None
        held_out = hold_out(torch.from_numpy(train.labels.classes), self.held_out, subject.seed)
        fitted, judged = (
            Subset(train, torch.nonzero(part).flatten().tolist()) for part in (~held_out, held_out)
        )
        trained = train_heads(
            network,
            fitted,
            self.learning_rates,
            self.training,
            subject.seed,
            subject.workers,
            subject.beat(f"{self.name}, choice of the learning rate"),
        )
        features = extract(network, judged, subject.batch_size, subject.workers)
        assert features.classes is not None
        accuracy = {
            learning_rate: float(torch.eq(head.predict(features.values), features.classes).double().mean())
            for learning_rate, head in zip(self.learning_rates, trained.heads, strict=True)
        }
        best = max(accuracy, key=lambda learning_rate: accuracy[learning_rate])
        return best, accuracy[best]
