"""ReSSL: the teacher's relations in the global context guide the student's in the same one.

Source: Zheng et al., NeurIPS 2021, arXiv 2107.09282. CGH with the one pair global → global and no contrast;
this file says so with ReSSL's own names and without the unused parts.
"""

from typing import Literal

import torch
from pydantic import Field

from crosscontext.backbones.contract import Backbone
from crosscontext.losses import relation_cross_entropy
from crosscontext.methods.contract import Outcome, Views
from crosscontext.methods.momentum import MomentumMethod, MomentumSettings
from crosscontext.relations import relate
from crosscontext.schedules import Plan


class ReSSLSettings(MomentumSettings):
    """ReSSL, with sizes for small sets."""

    name: Literal["ressl"] = "ressl"

    temperature_teacher: float = Field(0.04, gt=0)
    """Temperature of the teacher's relation."""

    temperature_student: float = Field(0.10, gt=0)
    """Temperature of the student's relation."""

    local_views: int = Field(0, ge=0)
    """Small crops an image (multi-crop), taught like the strong view."""

    def build(self, backbone: Backbone, plan: Plan) -> "ReSSL":
        """Make student, teacher and memory around a backbone; the settings are resolved."""
        return ReSSL(self, backbone)


class ReSSL(MomentumMethod):
    """Student, teacher and memory of ReSSL."""

    def __init__(self, settings: ReSSLSettings, backbone: Backbone):
        super().__init__(settings, backbone, {"global"})
        self.settings = settings
        self.view_counts = {"weak": 1, "strong": 1, "local": settings.local_views}

    def forward(self, views: Views, step: int) -> Outcome:
        """Compute the cross-entropy between the relations of a weak view and of every other view."""
        (weak,), strong, local = views["weak"], views["strong"], views.get("local", [])
        keys, slots = self.teacher(weak), self.memory.slots("global")
        target = relate(keys["global"], slots, slots, self.settings.temperature_teacher)
        losses = [
            relation_cross_entropy(
                target, self.student(view)["global"], slots, self.settings.temperature_student
            )
            for view in [*strong, *local]
        ]
        loss = torch.stack(losses).mean()
        measurements = {
            "loss_global_from_global": loss.detach(),
            "relation_entropy_global": target.entropy,
        }
        return Outcome(loss, measurements, keys)
