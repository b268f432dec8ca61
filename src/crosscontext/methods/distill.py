"""Distillation of relations: a trained, larger teacher says how an image resembles others.

Sources: SEED, Fang et al., ICLR 2021, arXiv 2101.04731; CompRess, Koohpayegani et al., NeurIPS 2020,
arXiv 2010.14713. Published by SEED: ImageNet, linear, MobileNetV3-Large 68.2 instead of 36.3 without a
teacher. The teacher's embedding is its pooled feature vector; the student's is projected to that width. Both
see the same views, each in the colours that it knows.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from crosscontext.backbones import Backbone
from crosscontext.contexts import unit_rows
from crosscontext.encoders import Encoder, Preprocessing, load_encoder, load_timm
from crosscontext.heads import mlp
from crosscontext.losses import relation_cross_entropy
from crosscontext.memory import MemorySettings
from crosscontext.methods.contract import Outcome, Views
from crosscontext.methods.siamese import SiameseMethod
from crosscontext.relations import relate
from crosscontext.schedules import Plan
from crosscontext.settings import AbsolutePath, Settings
from crosscontext.teacher import FrozenTeacher
from crosscontext.views import IMAGENET_MEAN, IMAGENET_STD

_TIMM_SIZE = 224  # of the position embeddings in transformers; for views of other sizes they are resampled


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
    """Temperature of the teacher's relation; CompRess: 0.04, code of SEED: 0.0001."""

    temperature_student: float = Field(0.1, gt=0)
    """Temperature of the student's relation; CompRess: 0.04, code of SEED: 0.2."""

    own_slot: bool = True
    """Whether the teacher's embedding of the image itself is one more slot (SEED)."""

    local_views: int = Field(0, ge=0)
    """Small crops an image (multi-crop). Teacher and student see the same ones, and compare them with those
    of other images, of which the memory keeps one each (SEED)."""

    def resolve(self, num_images: int) -> "DistillSettings":
        """Settle what is "auto" for a set of this many images."""
        return self.model_copy(update={"memory": self.memory.resolve(num_images)})

    @property
    def view_counts(self) -> dict[str, int]:
        """Copies of each named view that a step takes."""
        return {"strong": 1, "local": self.local_views}

    def build(self, backbone: Backbone, plan: Plan) -> "Distill":
        """Load the teacher, and make student and memory around a backbone; the settings are resolved.

        Raises:
            CheckpointError: the teacher's file is missing, damaged, or of another architecture.
            SettingsError: timm has no such model.
        """
        return Distill(self, backbone, self._load_teacher())

    def _load_teacher(self) -> Encoder:
        if self.teacher_model is None:
            return load_encoder(self.teacher)
        return load_timm(self.teacher_model, self.teacher, Preprocessing.for_size(_TIMM_SIZE))


class Distill(SiameseMethod):
    """Student, frozen teacher, and memory of the teacher's embeddings."""

    def __init__(self, settings: DistillSettings, backbone: Backbone, teacher: Encoder):
        width = teacher.width
        widths = (backbone.stages[-1].channels, settings.hidden_width, width)
        super().__init__(backbone, mlp(widths, hidden_norm=False))
        self.settings = settings
        self.teacher = FrozenTeacher(Recoloured(teacher))
        self.memory = settings.memory.build(
            {"global": width, "local": width} if settings.local_views else {"global": width}
        )
        self.view_counts = settings.view_counts

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


class Recoloured(nn.Module):
    """An encoder of views, which are normalised for ImageNet: it gets the colours that it was trained for."""

    scale: Tensor
    shift: Tensor

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        known = encoder.preprocessing
        mean, std, their_mean, their_std = torch.tensor([IMAGENET_MEAN, IMAGENET_STD, known.mean, known.std])[
            ..., None, None
        ]
        self.register_buffer("scale", std / their_std, persistent=False)
        self.register_buffer("shift", (mean - their_mean) / their_std, persistent=False)

    def forward(self, views: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Compute one feature vector a view."""
        features: Tensor = self.encoder(views * self.scale + self.shift)
        return features
