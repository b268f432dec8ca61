"""Tasks: a model and annotated images → measurements. A plain name, e.g. ``knn``, stands for the defaults."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from crosscontext.tasks.contract import FeatureTask, Measurement, Task
from crosscontext.tasks.finetune import FinetuneSettings
from crosscontext.tasks.knn import KnnSettings
from crosscontext.tasks.linear import LinearSettings
from crosscontext.tasks.linear_sgd import LinearSgdSettings
from crosscontext.tasks.semi import SemiSettings
from crosscontext.tasks.svm import SvmSettings

__all__ = [
    "FeatureTask",
    "FinetuneSettings",
    "KnnSettings",
    "LinearSettings",
    "LinearSgdSettings",
    "Measurement",
    "SemiSettings",
    "SvmSettings",
    "Task",
    "TaskSettings",
]


def _from_text(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


TaskSettings = Annotated[
    KnnSettings | LinearSettings | LinearSgdSettings | SemiSettings | FinetuneSettings | SvmSettings,
    Field(discriminator="name"),
    BeforeValidator(_from_text),
]
