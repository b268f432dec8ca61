"""Distillation of relations: a trained, larger teacher says how an image resembles others.

Sources: SEED, Fang et al., ICLR 2021, arXiv 2101.04731; CompRess, Koohpayegani et al., NeurIPS 2020,
arXiv 2010.14713. Published by SEED: ImageNet, linear, MobileNetV3-Large 68.2 instead of 36.3 without a
teacher. The teacher's embedding is its pooled feature vector; the student's is projected to that width. Both
see the same views, normalised with mean and deviation of ImageNet.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from crosscontext.backbones import Backbone, TimmSettings
from crosscontext.contexts import unit_rows
from crosscontext.encoders import load_encoder
from crosscontext.heads import mlp
from crosscontext.losses import relation_cross_entropy
from crosscontext.memory import MemorySettings
from crosscontext.methods.contract import Outcome, Views
from crosscontext.methods.siamese import ProjectionNetwork, SiameseMethod
from crosscontext.relations import relate
from crosscontext.schedules import Plan
from crosscontext.settings import AbsolutePath, Settings
from crosscontext.teacher import FrozenTeacher


class DistillSettings(Settings):
    """Distillation: the loss of SEED, or without own slot that of CompRess with one memory."""

    name: Literal["distill"] = "distill"

    teacher: AbsolutePath
    """Whom to learn from: a run folder or encoder file of this library, or the weights of `teacher_model`."""

    teacher_model: str | None = None
    """Name in timm of the model whose weights `teacher` holds; none: `teacher` is of this library."""

    memory: MemorySettings = MemorySettings()
    """Size and start of the memory."""

    hidden_width: int = Field(512, ge=1)
    """Hidden width of the student's projection."""

    temperature_teacher: float = Field(0.04, gt=0)
    """Temperature of the teacher's relation; CompRess: 0.04."""

    temperature_student: float = Field(0.1, gt=0)
    """Temperature of the student's relation; CompRess: 0.04."""

    own_slot: bool = True
    """Whether the teacher's embedding of the image itself is one more slot (SEED)."""

    local_views: int = Field(0, ge=0)
    """Small crops an image (multi-crop). Teacher and student see the same ones, and compare them with those
    of other images, of which the memory keeps one each (SEED)."""

    def resolve(self, num_images: int) -> "DistillSettings":
        """Settle what is "auto" for a set of this many images."""
        return self.model_copy(update={"memory": self.memory.resolve(num_images)})

    def build(self, backbone: Backbone, plan: Plan) -> "Distill":
        """Load the teacher, and make student and memory around a backbone; the settings are resolved.

        Raises:
            CheckpointError: the teacher's file is missing, damaged, or of another architecture.
            SettingsError: timm has no such model.
        """
        return Distill(self, backbone, self._load_teacher())

    def _load_teacher(self) -> Backbone:
        if self.teacher_model is None:
            return load_encoder(self.teacher).backbone
        return TimmSettings(model=self.teacher_model, weights=self.teacher).build()


class Distill(SiameseMethod):
    """Student, frozen teacher, and memory of the teacher's embeddings."""

    def __init__(self, settings: DistillSettings, backbone: Backbone, teacher: Backbone):
        width = teacher.stages[-1].channels
        widths = (backbone.stages[-1].channels, settings.hidden_width, width)
        super().__init__(backbone, mlp(widths, hidden_norm=False))
        self.settings = settings
        self.teacher = FrozenTeacher(ProjectionNetwork(teacher, nn.Identity()))
        self.memory = settings.memory.build(
            {"global": width, "local": width} if settings.local_views else {"global": width}
        )
        self.view_counts = {"strong": 1, "local": settings.local_views}

    @property
    def networks(self) -> list[nn.Module]:
        """Student and teacher."""
        return [self.student.network, self.teacher.network]

    def forward(self, views: Views, step: int) -> Outcome:
        """Compute the cross-entropy between the relations of teacher and student, view by view."""
        keys: dict[str, Tensor] = {}
        entropies: dict[str, Tensor] = {}
        losses = []
        named = [("global", view) for view in views["strong"]]
        named += [("local", view) for view in views.get("local", [])]
        for name, images in named:
            taught, slots = unit_rows(self.teacher(images)), self.memory.slots(name)
            target = relate(taught, slots, slots, self.settings.temperature_teacher)
            own_logit = 1 / self.settings.temperature_teacher  # of a unit row with itself
            losses.append(
                relation_cross_entropy(
                    target,
                    unit_rows(self.student(images)),
                    slots,
                    self.settings.temperature_student,
                    taught if self.settings.own_slot else None,
                    torch.sigmoid(own_logit - target.log_partition),
                )
            )
            keys.setdefault(name, taught)
            entropies.setdefault(f"relation_entropy_{name}", target.entropy)
        loss = torch.stack(losses).mean()
        return Outcome(loss, {"loss_distillation": loss.detach(), **entropies}, keys)

    def after_step(self, outcome: Outcome) -> None:
        """Push the keys."""
        self.memory.push(outcome.keys)
