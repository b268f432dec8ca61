"""The fine-tuning task: the whole network learns the classes of the training images."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from crosscontext.features import extract
from crosscontext.finetuning import NetworkTraining, finetune
from crosscontext.subjects import Subject
from crosscontext.tasks.accuracy import accuracies
from crosscontext.tasks.contract import Measurement, Task


class FinetuneSettings(Task):
    """Fine-tuning on all labels of another set: what the encoder is worth as a start."""

    name: Literal["finetune"] = "finetune"

    takes_network: ClassVar[bool] = True

    training: NetworkTraining = NetworkTraining()
    """Length, batch, learning rates, crops and flips."""

    def judge(self, subject: Subject) -> Iterator[Measurement]:
        """Train a copy of the network, then read the test images."""
        network = subject.network()
        trained = finetune(
            network,
            subject.parts.train,
            self.training,
            subject.seed,
            subject.workers,
            subject.beat(self.name),
        )
        test = extract(network, subject.parts.test, subject.batch_size, subject.workers)
        (head,) = trained.heads
        assert test.classes is not None
        yield from accuracies(head.scores(test.values), test.classes, trained.details(test.skipped))
