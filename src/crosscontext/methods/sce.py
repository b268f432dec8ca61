"""SCE: the target is part the image itself, part its relation to the others: soft contrastive learning.

Source: Denize et al., "Similarity contrastive estimation", WACV 2023, arXiv 2111.14585. Published: ImageNet,
ResNet-50, linear 72.7 after 200 epochs, 75.4 with multi-crop; COCO, box and mask AP 41.6 and 36.0.
"""

from typing import Literal

from pydantic import Field

from crosscontext.backbones.contract import Backbone
from crosscontext.contexts import ContextSettings
from crosscontext.methods.relational import RelationalMethod, RelationalSettings
from crosscontext.schedules import Plan


class SCESettings(RelationalSettings):
    """SCE; the defaults are those that its authors use for CIFAR-10."""

    name: Literal["sce"] = "sce"

    temperature_teacher: float = Field(0.05, gt=0)
    """Temperature of the teacher's relation."""

    own_share: float = Field(0.5, ge=0, le=1)
    """Share λ of the target that falls to the image itself. 0: there is no slot for it, as in ReSSL. 1:
    InfoNCE."""

    contexts: ContextSettings = ContextSettings(hidden_norm=True)
    """Widths of the projection, with BatchNorm."""

    def build(self, backbone: Backbone, plan: Plan) -> RelationalMethod:
        """Make student, teacher and memory around a backbone; the settings are resolved."""
        return RelationalMethod(self, backbone, self.own_share)
