"""Tasks: a model and annotated images → measurements. A plain name, e.g. ``knn``, stands for the defaults."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from crosscontext.tasks.contract import FeatureTask, Measurement, Task
from crosscontext.tasks.knn import KnnSettings
from crosscontext.tasks.linear import LinearSettings
from crosscontext.tasks.segment import SegmentSettings

__all__ = [
    "FeatureTask",
    "KnnSettings",
    "LinearSettings",
    "Measurement",
    "SegmentSettings",
    "Task",
    "TaskSettings",
]


def _from_text(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


TaskSettings = Annotated[
    KnnSettings | LinearSettings | SegmentSettings, Field(discriminator="name"), BeforeValidator(_from_text)
]
