"""MoCo v2: one context, taught by telling a view of the same image from the memory.

Source: He et al., arXiv 1911.05722; Chen et al., arXiv 2003.04297. ShuffleBN is not used: it matters with
several devices, and one process has one BatchNorm.
"""

from typing import Literal

from pydantic import Field

from crosscontext.backbones.contract import Backbone
from crosscontext.contexts import ContextNetwork, ContextSettings
from crosscontext.losses import info_nce
from crosscontext.memory import MemorySettings
from crosscontext.methods.contract import Method, Outcome, Views
from crosscontext.relations import similarities
from crosscontext.schedules import Plan
from crosscontext.settings import Settings
from crosscontext.teacher import Momentum, Teacher, settle_momentum


class MoCoSettings(Settings):
    """MoCo v2, with sizes for small sets."""

    name: Literal["moco"] = "moco"

    temperature: float = Field(0.2, gt=0)
    """Temperature of InfoNCE."""

    memory: MemorySettings = MemorySettings()
    """Size and start of the memory."""

    momentum: Momentum = "auto"
    """Momentum of the teacher; auto: 0.99 below 300 000 images, else the published 0.999."""

    contexts: ContextSettings = ContextSettings()
    """Widths of the global context."""

    def resolve(self, num_images: int) -> "MoCoSettings":
        """Settle what is "auto" for a set of this many images."""
        return self.model_copy(
            update={
                "memory": self.memory.resolve(num_images),
                "momentum": settle_momentum(self.momentum, num_images),
            }
        )

    def build(self, backbone: Backbone, plan: Plan) -> "MoCo":
        """Make student, teacher and memory around a backbone; the settings are resolved."""
        return MoCo(self, backbone)


class MoCo(Method):
    """Student, teacher and memory of MoCo v2."""

    student: ContextNetwork

    def __init__(self, settings: MoCoSettings, backbone: Backbone):
        super().__init__()
        self.temperature = settings.temperature
        self.view_counts = {"strong": 2}
        self.student = settings.contexts.build(backbone, {"global"})
        self.teacher = Teacher(self.student, settings.momentum)
        self.memory = settings.memory.build(settings.contexts.widths({"global"}))

    @property
    def encoder(self) -> Backbone:
        """The student's backbone."""
        return self.student.backbone

    def forward(self, views: Views, step: int) -> Outcome:
        """Compute InfoNCE between two strong views."""
        query_view, key_view = views["strong"]
        query, keys = self.student(query_view)["global"], self.teacher(key_view)
        negatives = similarities(query, self.memory.slots("global"))
        loss = info_nce(query, keys["global"], negatives, self.temperature)
        return Outcome(loss, {"loss_contrast": loss.detach()}, keys)

    def after_step(self, outcome: Outcome) -> None:
        """Push the keys and move the teacher."""
        self.memory.push(outcome.keys)
        self.teacher.follow(self.student)
