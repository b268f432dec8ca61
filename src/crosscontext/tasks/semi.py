"""The semi-supervised task: the whole network learns from a few labels."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field, field_validator
from torch import Tensor

from crosscontext.datasets.contract import Dataset
from crosscontext.datasets.subset import Subset
from crosscontext.errors import DataError
from crosscontext.features import extract
from crosscontext.finetuning import NetworkTraining, finetune
from crosscontext.shapes import Int64
from crosscontext.stratified import draw
from crosscontext.subjects import Subject
from crosscontext.tasks.accuracy import accuracies
from crosscontext.tasks.contract import Measurement, Task

_SHARE = re.compile(r"(?P<percent>\d+(?:\.\d+)?) ?%")
_PER_CLASS = re.compile(r"(?P<number>[1-9]\d*) per class")
_NAMED_AT_MOST = 5


def _check_amount(text: str) -> str:
    if share := _SHARE.fullmatch(text):
        if not 0 < float(share["percent"]) <= 100:
            raise ValueError(f"{text} is no share of the labels. Write more than 0% and at most 100%.")
        return f"{share['percent']}%"
    if _PER_CLASS.fullmatch(text):
        return text
    file = Path(text).expanduser().absolute()
    if not file.is_file():
        raise ValueError(
            f"{text!r} is neither a share of the labels ('1%'), nor a number of images ('4 per class'), "
            "nor a file that lists the labelled images. Write one of these."
        )
    return str(file)


Amount = Annotated[str, AfterValidator(_check_amount)]
"""How many labels there are: ``1%``, ``4 per class``, or the path of a file that lists images."""


class SemiSettings(Task):
    """Fine-tuning on a part of the labels, as SimCLR does it (Chen et al., arXiv 2002.05709, section 6)."""

    name: Literal["semi"] = "semi"

    takes_network: ClassVar[bool] = True

    labels: tuple[Amount, ...] = Field(("1%", "10%"), min_length=1)
    """Amounts of labels, one metric each. ``1%``: that share of the training images of each class, at least
    one. ``4 per class``: so many of each. A path: the images that the file lists, one name a line, with or
    without folders, as the official subsets of ImageNet do."""

    training: NetworkTraining = NetworkTraining()
    """Length, batch, learning rates, crops and flips."""

    @field_validator("labels")
    @classmethod
    def _refuse_equal_metrics(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        names = [metric_suffix(amount) for amount in labels]
        if twice := {name for name in names if names.count(name) > 1}:
            listed = ", ".join(f"top1{name}" for name in sorted(twice))
            raise ValueError(f"several amounts would have the same metric: {listed}. Rename or drop one.")
        return labels

    def protocol(self) -> dict[str, object]:
        """All settings, with the content of lists instead of their paths."""
        labels = [
            amount if (file := _file(amount)) is None else f"{file.name} {_digest(file)}"
            for amount in self.labels
        ]
        return super().protocol() | {"labels": labels}

    def judge(self, subject: Subject) -> Iterator[Measurement]:
        """For each amount of labels, train a copy of the network, then read the test images."""
        train = subject.parts.train
        labelled = {amount: labelled_images(train, amount, subject.seed) for amount in self.labels}
        for amount, indices in labelled.items():
            network = subject.network()
            part = Subset(train, indices)
            trained = finetune(
                network, part, self.training, subject.seed, subject.workers, subject.beat(self.name)
            )
            test = extract(network, subject.parts.test, subject.batch_size, subject.workers)
            (head,) = trained.heads
            assert test.classes is not None
            details = {"labelled_images": len(indices), **trained.details(test.skipped)}
            yield from accuracies(head.scores(test.values), test.classes, details, metric_suffix(amount))


def metric_suffix(amount: str) -> str:
    """What an amount of labels adds to the name of a metric: ``_1%``, ``_4_per_class``, ``_name-of-file``."""
    file = _file(amount)
    return f"_{amount.replace(' ', '_') if file is None else file.stem}"


def labelled_images(train: Dataset, amount: str, seed: int) -> list[int]:
    """Choose the images whose labels are used.

    Args:
        train: with labels.
        amount: as `SemiSettings.labels` has it.
        seed: of the choice, unless a file makes it; with the same seed, few images are among more.

    Returns:
        Indices in ascending order.

    Raises:
        DataError: a class has no labelled image or too few, or a listed image is not there.
    """
    assert train.labels is not None
    classes = torch.from_numpy(train.labels.classes)
    if share := _SHARE.fullmatch(amount):
        part = float(share["percent"]) / 100
        picked = draw(classes, lambda size: max(1, round(size * part)), seed)
    elif per_class := _PER_CLASS.fullmatch(amount):
        number = int(per_class["number"])
        if few := _classes_below(number, train, classes):
            raise DataError(
                f"{len(few)} classes have fewer than {number} training images: {_some(few)}. "
                "Ask for fewer labels, or take these classes out of the data."
            )
        picked = draw(classes, lambda _: number, seed)
    else:
        picked = torch.zeros(len(classes), dtype=torch.bool)
        picked[_listed(train, Path(amount))] = True
    if bare := _classes_below(1, train, classes[picked]):
        raise DataError(
            f"With the labels {amount!r}, {len(bare)} of {len(train.class_names)} classes have no labelled "
            f"image: {_some(bare)}. Label at least one image of each, or take these classes out of the data."
        )
    indices: list[int] = torch.nonzero(picked).flatten().tolist()
    return indices


def _file(amount: str) -> Path | None:
    """Path of a list; None where the amount is a share or a number of images."""
    is_number = _SHARE.fullmatch(amount) or _PER_CLASS.fullmatch(amount)
    return None if is_number else Path(amount)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _listed(train: Dataset, file: Path) -> list[int]:
    """Find the images that a file names, with or without their folders."""
    wanted = {line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()} - {""}
    found = defaultdict(list)
    for index, name in enumerate(train.names):
        for known in {name, name.rpartition("/")[2]} & wanted:
            found[known].append(index)
    if missing := sorted(wanted - found.keys()):
        raise DataError(
            f"{len(missing)} of the {len(wanted)} images that {file} lists are no training images: "
            f"{_some(missing)}. Names look like {train.names[0]}; mend the list or the data."
        )
    if ambiguous := sorted(name for name, indices in found.items() if len(indices) > 1):
        raise DataError(
            f"{len(ambiguous)} names in {file} are those of several training images: {_some(ambiguous)}. "
            f"Write them with their folders, like {train.names[0]}."
        )
    return [index for indices in found.values() for index in indices]


def _classes_below(least: int, train: Dataset, classes: Int64[Tensor, " N"]) -> list[str]:
    """Names of the classes of which there are fewer images than so many."""
    counts = torch.bincount(classes, minlength=len(train.class_names)).tolist()
    return [name for name, count in zip(train.class_names, counts, strict=True) if count < least]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return ", ".join(names[:_NAMED_AT_MOST]) + more
