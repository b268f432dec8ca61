"""What CGH with a teacher and CGH without one share: which context guides which, and how sharply."""

from typing import Literal, cast

from pydantic import Field, field_validator

from crosscontext.contexts import ContextName
from crosscontext.settings import Settings

Pair = Literal["global->hyper", "hyper->global", "global->global", "hyper->hyper"]


class CrossingSettings(Settings):
    """Pairs of contexts, and the temperatures of their relations."""

    pairs: tuple[Pair, ...] = Field(("global->hyper", "hyper->global"), min_length=1)
    """Which teacher context guides which student context; all pairs count alike."""

    temperature_teacher_global: float = Field(0.04, gt=0)
    """Temperature of the teacher's global relation."""

    temperature_teacher_hyper: float = Field(0.08, gt=0)
    """Temperature of the teacher's hypercolumn relation."""

    temperature_student_global: float = Field(0.10, gt=0)
    """Temperature of the student's global relation."""

    temperature_student_hyper: float = Field(0.08, gt=0)
    """Temperature of the student's hypercolumn relation."""

    temperature_contrast: float = Field(0.2, gt=0)
    """Temperature of the contrast."""

    @field_validator("pairs")
    @classmethod
    def _refuse_a_pair_twice(cls, pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
        if len(set(pairs)) < len(pairs):
            raise ValueError(f"pairs names one pair twice: {', '.join(pairs)}. Name each pair once.")
        return pairs

    @property
    def directions(self) -> list[list[ContextName]]:
        """Teacher's and student's context of each pair."""
        return [cast("list[ContextName]", pair.split("->")) for pair in self.pairs]

    @property
    def context_names(self) -> list[ContextName]:
        """Contexts that take part, sorted."""
        return sorted({context for pair in self.directions for context in pair})

    @property
    def teacher_temperature(self) -> dict[str, float]:
        """By context."""
        return {"global": self.temperature_teacher_global, "hyper": self.temperature_teacher_hyper}

    @property
    def student_temperature(self) -> dict[str, float]:
        """By context."""
        return {"global": self.temperature_student_global, "hyper": self.temperature_student_hyper}
