"""MoCo v2: one context, taught by telling a view of the same image from the memory.

Source: He et al., arXiv 1911.05722; Chen et al., arXiv 2003.04297. ShuffleBN is the setting ``batch_norm:
split``; by default the whole batch has one BatchNorm. Published: ImageNet, ResNet-50, linear 67.5 after 200
epochs; VOC 07+12, AP 57.0; COCO, box and mask AP 40.9 and 35.5. Others' runs on CIFAR-10, ResNet-18: 92.9
after 1000 epochs of a symmetric loss (solo-learn, online linear), 84.7 after 200 (lightly, k-NN).
"""

from typing import Literal

from pydantic import Field

from crosscontext.backbones.contract import Backbone
from crosscontext.losses import info_nce
from crosscontext.methods.contract import Outcome, Views
from crosscontext.methods.momentum import MomentumMethod, MomentumSettings
from crosscontext.schedules import Plan


class MoCoSettings(MomentumSettings):
    """MoCo v2, with sizes for small sets."""

    name: Literal["moco"] = "moco"

    temperature: float = Field(0.2, gt=0)
    """Temperature of InfoNCE."""

    def build(self, backbone: Backbone, plan: Plan) -> "MoCo":
        """Make student, teacher and memory around a backbone; the settings are resolved."""
        return MoCo(self, backbone)


class MoCo(MomentumMethod):
    """Student, teacher and memory of MoCo v2."""

    def __init__(self, settings: MoCoSettings, backbone: Backbone):
        super().__init__(settings, backbone, {"global"})
        self.temperature = settings.temperature

    def forward(self, views: Views, step: int) -> Outcome:
        """Compute InfoNCE between two strong views."""
        query_view, key_view = views["strong"]
        query, keys = self.student(query_view)["global"], self.teacher(key_view)
        loss = info_nce(query, keys["global"], self.memory.slots("global"), self.temperature)
        return Outcome(loss, {"loss_contrast": loss.detach()}, keys)
