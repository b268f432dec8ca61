"""What ReSSL and SCE share: the teacher's global relation of a weak view guides the student's of others."""

import torch
from pydantic import Field

from crosscontext.backbones.contract import Backbone
from crosscontext.losses import relation_cross_entropy
from crosscontext.methods.contract import Outcome, Views
from crosscontext.methods.momentum import MomentumMethod, MomentumSettings
from crosscontext.relations import relate


class RelationalSettings(MomentumSettings):
    """Settings of one relation."""

    temperature_teacher: float = Field(0.04, gt=0)
    """Temperature of the teacher's relation."""

    temperature_student: float = Field(0.10, gt=0)
    """Temperature of the student's relation."""

    local_views: int = Field(0, ge=0)
    """Small crops an image (multi-crop), taught like the strong view."""

    @property
    def view_counts(self) -> dict[str, int]:
        """Copies of each named view that a step takes."""
        return {"weak": 1, "strong": 1, "local": self.local_views}


class RelationalMethod(MomentumMethod):
    """Student, teacher and memory.

    Args:
        settings: resolved.
        backbone: of the student.
        own_share: of each target that falls to the image itself, as one more slot; 0: there is no such slot.
    """

    def __init__(self, settings: RelationalSettings, backbone: Backbone, own_share: float):
        super().__init__(settings, backbone, {"global"})
        self.settings, self.own_share = settings, own_share

    def forward(self, views: Views, step: int) -> Outcome:
        """Compute the cross-entropy between the relations of a weak view and of every other view."""
        (weak,), strong, local = views["weak"], views["strong"], views.get("local", [])
        keys, slots = self.teacher(weak), self.memory.slots("global")
        target = relate(keys["global"], slots, slots, self.settings.temperature_teacher)
        losses = [
            relation_cross_entropy(
                target,
                self.student(view)["global"],
                slots,
                self.settings.temperature_student,
                keys["global"] if self.own_share else None,
                self.own_share,
            )
            for view in [*strong, *local]
        ]
        loss = torch.stack(losses).mean()
        measurements = {
            "loss_global_from_global": loss.detach(),
            "relation_entropy_global": target.entropy,
        }
        return Outcome(loss, measurements, keys)
