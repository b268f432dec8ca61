"""DINO: agree with the teacher on the prototypes of a view; its centre and low temperature prevent collapse.

Source: Caron et al., ICCV 2021, arXiv 2104.14294. Others' runs on CIFAR-10, ResNet-18: 89.5 after 1000
epochs (solo-learn, online linear), 81.3 after 200 (lightly, k-NN). The authors also clip gradients and let
the weight decay rise, for transformers.
"""

from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from crosscontext.backbones.contract import Backbone
from crosscontext.heads import ProjectionSettings, Prototypes, mlp
from crosscontext.methods.contract import Outcome, Views
from crosscontext.methods.siamese import RisingMethod, RisingSettings
from crosscontext.schedules import Duration, Plan, warmup_fraction
from crosscontext.siamese_losses import prototype_cross_entropy

_CENTRE_DECAY = 0.9


class DINOSettings(RisingSettings):
    """DINO, with sizes for small sets (published for ImageNet: widths 2048 and 256, 65536 prototypes)."""

    name: Literal["dino"] = "dino"

    projection: ProjectionSettings = ProjectionSettings(layers=3, hidden_width=1024, width=128)
    """Of the pooled features, with GELU between its layers."""

    hidden_norm: bool = True
    """BatchNorm after the hidden layers of the projection; published: no, for transformers without any."""

    keep: Literal["student", "teacher"] = "teacher"
    """Whose backbone is measured and becomes the encoder; published: the teacher's."""

    prototypes: int = Field(4096, ge=2)
    """Number of prototypes."""

    temperature_student: float = Field(0.1, gt=0)
    """Temperature of the student."""

    temperature_start: float = Field(0.04, gt=0)
    """Temperature of the teacher at the start."""

    temperature_teacher: float = Field(0.07, gt=0)
    """Temperature of the teacher after the warm-up."""

    warmup: Duration = "15%"
    """Linear rise of the teacher's temperature; published: 30 epochs."""

    prototypes_frozen: Duration = "1 epochs"
    """Time in which the prototypes are not trained yet."""

    local_views: int = Field(0, ge=0)
    """Small crops an image (multi-crop), which the student alone sees; published: 8."""

    @property
    def view_counts(self) -> dict[str, int]:
        """Copies of each named view that a step takes."""
        return {"strong": 2, "local": self.local_views}

    def build(self, backbone: Backbone, plan: Plan) -> "DINO":
        """Make student and teacher around a backbone."""
        return DINO(self, backbone, plan)


class DINO(RisingMethod):
    """Student and teacher of DINO."""

    centre: Tensor

    def __init__(self, settings: DINOSettings, backbone: Backbone, plan: Plan):
        widths = settings.projection.widths(backbone.stages[-1].channels)
        project = nn.Sequential(
            mlp(widths, hidden_norm=settings.hidden_norm, activation=nn.GELU),
            Prototypes(widths[-1], settings.prototypes),
        )
        super().__init__(settings, backbone, project, None, plan)
        self.settings = settings
        self.warmup_steps = plan.steps(settings.warmup)
        self.frozen_steps = plan.steps(settings.prototypes_frozen)
        self.register_buffer("centre", torch.zeros(settings.prototypes))

    @property
    def prototypes(self) -> Prototypes:
        """Those of the student."""
        return cast(Prototypes, self.student.network.project.get_submodule("1"))

    def temperature_at(self, step: int) -> float:
        """Temperature of the teacher in a step."""
        start, end = self.settings.temperature_start, self.settings.temperature_teacher
        return start + (end - start) * warmup_fraction(step, self.warmup_steps)

    def forward(self, views: Views, step: int) -> Outcome:
        """Compute the cross-entropy between strong views of the teacher and other views of the student."""
        strong, local = views["strong"], views.get("local", [])
        self.prototypes.frozen = step < self.frozen_steps
        teachers = [self.teacher(view) for view in strong]
        loss = prototype_cross_entropy(
            [self.student(view) for view in [*strong, *local]],
            teachers,
            self.centre,
            self.settings.temperature_student,
            self.temperature_at(step),
        )
        keys = {"prototypes": torch.stack(teachers).mean(dim=0).mean(dim=0, keepdim=True)}
        return Outcome(loss, {"loss_prototypes": loss.detach()}, keys, self.momentum_at(step))

    @torch.no_grad()
    def after_step(self, outcome: Outcome) -> None:
        """Move the centre towards the mean of the teacher's logits (eq. 4), then the teacher."""
        logits = outcome.keys["prototypes"].to(self.centre.dtype)
        self.centre.lerp_(logits.mean(dim=0), 1 - _CENTRE_DECAY)
        super().after_step(outcome)
