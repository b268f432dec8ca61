"""Barlow Twins: dimensions of two views correlate with themselves and with no other.

Source: Zbontar et al., ICML 2021, arXiv 2103.03230.
"""

from typing import Literal

from pydantic import Field

from crosscontext.backbones.contract import Backbone
from crosscontext.distributed import whole_batch
from crosscontext.heads import ProjectionSettings, mlp
from crosscontext.methods.contract import Outcome, Views
from crosscontext.methods.siamese import SiameseMethod, SiameseSettings
from crosscontext.schedules import Plan
from crosscontext.siamese_losses import barlow_twins


class BarlowTwinsSettings(SiameseSettings):
    """Barlow Twins, with sizes for small sets (published for ImageNet: 3 layers of width 8192)."""

    name: Literal["barlow_twins"] = "barlow_twins"

    projection: ProjectionSettings = ProjectionSettings(layers=3, hidden_width=1024, width=1024)
    """Of the pooled features; BatchNorm follows its hidden layers."""

    redundancy_weight: float = Field(0.0051, ge=0)
    """Weight λ of the correlations between different dimensions."""

    def build(self, backbone: Backbone, plan: Plan) -> "BarlowTwins":
        """Make the student around a backbone."""
        return BarlowTwins(self, backbone)


class BarlowTwins(SiameseMethod):
    """The student of Barlow Twins."""

    def __init__(self, settings: BarlowTwinsSettings, backbone: Backbone):
        widths = settings.projection.widths(backbone.stages[-1].channels)
        super().__init__(backbone, mlp(widths, hidden_norm=True, output="plain"))
        self.redundancy_weight = settings.redundancy_weight
        self.view_counts = settings.view_counts
        self.compares_images = True

    def forward(self, views: Views, step: int) -> Outcome:
        """Compute how far the correlations of two strong views are from the identity (eq. 1)."""
        first, second = (whole_batch(self.student(view)) for view in views["strong"])
        terms = barlow_twins(first, second)
        loss = terms.invariance + self.redundancy_weight * terms.redundancy
        return Outcome(loss, {f"loss_{n}": term.detach() for n, term in terms._asdict().items()}, keys={})
