"""Tasks: features → measurements. A plain name, e.g. ``knn``, stands for its default settings."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from crosscontext.tasks.contract import Measurement, Task
from crosscontext.tasks.knn import KnnSettings
from crosscontext.tasks.linear import LinearSettings

__all__ = ["KnnSettings", "LinearSettings", "Measurement", "Task", "TaskSettings"]


def _from_text(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


TaskSettings = Annotated[
    KnnSettings | LinearSettings, Field(discriminator="name"), BeforeValidator(_from_text)
]
