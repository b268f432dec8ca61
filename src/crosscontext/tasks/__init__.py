"""Tasks: a model and annotated images → measurements. A plain name, e.g. ``knn``, stands for the defaults."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from crosscontext.tasks.contract import FeatureTask, Measurement, Task
from crosscontext.tasks.detect import DetectSettings
from crosscontext.tasks.knn import KnnSettings
from crosscontext.tasks.linear import LinearSettings

__all__ = [
    "DetectSettings",
    "FeatureTask",
    "KnnSettings",
    "LinearSettings",
    "Measurement",
    "Task",
    "TaskSettings",
]


def _from_text(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


TaskSettings = Annotated[
    KnnSettings | LinearSettings | DetectSettings, Field(discriminator="name"), BeforeValidator(_from_text)
]
