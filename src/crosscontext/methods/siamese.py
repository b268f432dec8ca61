"""What the methods that embed the whole image alone share: student, projection, predictor, rising teacher.

Where a paper blurs and solarises its two views with different probabilities (BYOL, Barlow Twins, VICReg,
DINO), here both are strong views with the same ones; each view passes a network by itself.
"""

from typing import Literal, TypeVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from crosscontext.backbones.contract import Backbone
from crosscontext.contexts import pool
from crosscontext.heads import ProjectionSettings
from crosscontext.methods.contract import Method, Outcome
from crosscontext.schedules import Plan, rising_momentum
from crosscontext.settings import Settings
from crosscontext.teacher import Teacher

SettingsT = TypeVar("SettingsT", bound="SiameseSettings")


class SiameseSettings(Settings):
    """Settings of the projection."""

    name: str
    """Of the method."""

    projection: ProjectionSettings = ProjectionSettings()
    """Of the pooled features; BatchNorm follows its hidden layers."""

    @property
    def view_counts(self) -> dict[str, int]:
        """Copies of each named view that a step takes."""
        return {"strong": 2}

    def resolve(self: SettingsT, num_images: int) -> SettingsT:
        """Settle what is "auto" for a set of this many images: nothing is."""
        return self


class ProjectionNetwork(nn.Module):
    """A backbone, global average pooling and a projection."""

    def __init__(self, backbone: Backbone, project: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.project = project

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Embed images; rows are not normalised."""
        embedding: Tensor = self.project(pool(self.backbone(images)[-1]))
        return embedding


class Student(nn.Module):
    """A projection network with a predictor, where a method has one."""

    def __init__(self, network: ProjectionNetwork, predict: nn.Module):
        super().__init__()
        self.network = network
        self.predict = predict

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Embed images, and predict what a teacher says of them."""
        prediction: Tensor = self.predict(self.network(images))
        return prediction


class SiameseMethod(Method):
    """A student, and nothing beside it.

    Args:
        backbone: of the student.
        project: pooled features → embeddings.
        predict: embeddings → predictions; by default they are the same.
    """

    student: Student

    def __init__(self, backbone: Backbone, project: nn.Module, predict: nn.Module | None = None):
        super().__init__()
        self.student = Student(ProjectionNetwork(backbone, project), predict or nn.Identity())

    @property
    def networks(self) -> list[nn.Module]:
        """The student without its predictor."""
        return [self.student.network]

    @property
    def encoder(self) -> Backbone:
        """The student's backbone."""
        return self.student.network.backbone

    def after_step(self, outcome: Outcome) -> None:
        """Do nothing: all state is the student's."""


class RisingSettings(SiameseSettings):
    """Settings of a teacher whose momentum rises to 1."""

    momentum: float = Field(0.99, ge=0, lt=1)
    """Momentum of the teacher at the start; it rises to 1 along half a cosine. Published: 0.996."""

    keep: Literal["student", "teacher"] = "student"
    """Whose backbone is measured and becomes the encoder; published: BYOL's student, DINO's teacher."""


class RisingMethod(SiameseMethod):
    """A student, and a teacher that follows it ever more slowly.

    Args:
        settings: of the teacher.
        backbone: of the student.
        project: pooled features → embeddings; the teacher has it too.
        predict: of the student alone.
        plan: of the run.
    """

    def __init__(
        self,
        settings: RisingSettings,
        backbone: Backbone,
        project: nn.Module,
        predict: nn.Module | None,
        plan: Plan,
    ):
        super().__init__(backbone, project, predict)
        self.view_counts = settings.view_counts
        self._keep, self._total_steps = settings.keep, plan.total_steps
        self.teacher: Teacher[Tensor] = Teacher(self.student.network, settings.momentum)

    @property
    def networks(self) -> list[nn.Module]:
        """Student without predictor, and teacher."""
        return [self.student.network, self.teacher.network]

    @property
    def encoder(self) -> Backbone:
        """The backbone of the student or of the teacher, as the settings say."""
        kept = self.student.network if self._keep == "student" else self.teacher.network
        assert isinstance(kept, ProjectionNetwork)
        return kept.backbone

    def momentum_at(self, step: int) -> float:
        """Momentum of the teacher after a step."""
        return rising_momentum(self.teacher.momentum, step, self._total_steps)

    def after_step(self, outcome: Outcome) -> None:
        """Move the teacher."""
        self.teacher.follow(self.student.network, outcome.momentum)
