"""SimCLR: tell the other view of an image from all views of the batch.

Source: Chen et al., ICML 2020, arXiv 2002.05709. It has neither teacher nor memory, so its negatives are as
many as the batch allows. Published numbers of others' runs on CIFAR-10, ResNet-18: 90.7 after 1000 epochs
(solo-learn, online linear), 84.8 after 200 (lightly, k-NN).
"""

from typing import Literal

from pydantic import Field

from crosscontext.backbones.contract import Backbone
from crosscontext.contexts import unit_rows
from crosscontext.distributed import whole_batch
from crosscontext.heads import mlp
from crosscontext.methods.contract import Outcome, Views
from crosscontext.methods.siamese import SiameseMethod, SiameseSettings
from crosscontext.schedules import Plan
from crosscontext.siamese_losses import nt_xent


class SimCLRSettings(SiameseSettings):
    """SimCLR, with sizes for small sets (published for ImageNet: hidden width 2048)."""

    name: Literal["simclr"] = "simclr"

    temperature: float = Field(0.2, gt=0)
    """Temperature of the similarities; published for ImageNet: 0.1, for CIFAR-10: 0.5."""

    def build(self, backbone: Backbone, plan: Plan) -> "SimCLR":
        """Make the student around a backbone."""
        return SimCLR(self, backbone)


class SimCLR(SiameseMethod):
    """The student of SimCLR."""

    def __init__(self, settings: SimCLRSettings, backbone: Backbone):
        widths = settings.projection.widths(backbone.stages[-1].channels)
        super().__init__(backbone, mlp(widths, hidden_norm=True))
        self.temperature = settings.temperature
        self.view_counts = settings.view_counts
        self.compares_images = True

    def forward(self, views: Views, step: int) -> Outcome:
        """Compute NT-Xent between two strong views."""
        first, second = (whole_batch(unit_rows(self.student(view))) for view in views["strong"])
        loss = nt_xent(first, second, self.temperature)
        return Outcome(loss, {"loss_contrast": loss.detach()}, keys={})
