"""Tasks: a model and annotated images → measurements. A plain name, e.g. ``knn``, stands for the defaults."""

from typing import Annotated

from pydantic import Field

from crosscontext.settings import BY_NAME
from crosscontext.tasks.cluster import ClusterSettings
from crosscontext.tasks.contract import FeatureTask, Measurement, Task
from crosscontext.tasks.copies import CopiesSettings
from crosscontext.tasks.detect import DetectSettings
from crosscontext.tasks.finetune import FinetuneSettings
from crosscontext.tasks.health import HealthSettings
from crosscontext.tasks.knn import KnnSettings
from crosscontext.tasks.linear import LinearSettings
from crosscontext.tasks.linear_sgd import LinearSgdSettings
from crosscontext.tasks.retrieve import RetrieveSettings
from crosscontext.tasks.segment import SegmentSettings
from crosscontext.tasks.semi import SemiSettings
from crosscontext.tasks.svm import SvmSettings

__all__ = [
    "ClusterSettings",
    "CopiesSettings",
    "DetectSettings",
    "FeatureTask",
    "FinetuneSettings",
    "HealthSettings",
    "KnnSettings",
    "LinearSettings",
    "LinearSgdSettings",
    "Measurement",
    "RetrieveSettings",
    "SegmentSettings",
    "SemiSettings",
    "SvmSettings",
    "Task",
    "TaskSettings",
]


TaskSettings = Annotated[
    KnnSettings
    | LinearSettings
    | LinearSgdSettings
    | SemiSettings
    | FinetuneSettings
    | SvmSettings
    | ClusterSettings
    | RetrieveSettings
    | CopiesSettings
    | HealthSettings
    | DetectSettings
    | SegmentSettings,
    Field(discriminator="name"),
    BY_NAME,
]
"""Settings of any task; `judge` gives its measurements."""
