"""CO2: MoCo v2, and the relations of query and key to the negatives shall be the same.

Source: Wei et al., "Consistent contrast", ICLR 2021, arXiv 2010.02217. Published: 2.9 points above MoCo on
ImageNet (linear).
"""

from typing import Literal

from pydantic import Field

from crosscontext.backbones.contract import Backbone
from crosscontext.losses import info_nce
from crosscontext.methods.contract import Outcome, Views
from crosscontext.methods.momentum import MomentumMethod, MomentumSettings
from crosscontext.relations import relate
from crosscontext.schedules import Plan
from crosscontext.siamese_losses import symmetric_divergence


class CO2Settings(MomentumSettings):
    """CO2, with sizes for small sets."""

    name: Literal["co2"] = "co2"

    temperature: float = Field(0.2, gt=0)
    """Temperature of InfoNCE."""

    temperature_consistency: float = Field(0.04, gt=0)
    """Temperature of both relations."""

    consistency_weight: float = Field(10.0, ge=0)
    """Weight α of the divergence between the relations, beside InfoNCE with weight 1."""

    def build(self, backbone: Backbone, plan: Plan) -> "CO2":
        """Make student, teacher and memory around a backbone; the settings are resolved."""
        return CO2(self, backbone)


class CO2(MomentumMethod):
    """Student, teacher and memory of CO2."""

    def __init__(self, settings: CO2Settings, backbone: Backbone):
        super().__init__(settings, backbone, {"global"})
        self.settings = settings

    def forward(self, views: Views, step: int) -> Outcome:
        """Compute InfoNCE between two strong views, and the divergence between their relations."""
        query_view, key_view = views["strong"]
        query, keys = self.student(query_view)["global"], self.teacher(key_view)
        key, slots = keys["global"], self.memory.slots("global")
        temperature = self.settings.temperature_consistency
        target = relate(key, slots, slots, temperature)
        terms = {
            "loss_contrast": info_nce(query, key, slots, self.settings.temperature),
            "loss_consistency": symmetric_divergence(target, key, query, slots, temperature),
        }
        loss = terms["loss_contrast"] + self.settings.consistency_weight * terms["loss_consistency"]
        measurements = {name: term.detach() for name, term in terms.items()}
        return Outcome(loss, measurements | {"relation_entropy_global": target.entropy}, keys)
