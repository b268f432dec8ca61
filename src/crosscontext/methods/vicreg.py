"""VICReg: two views are alike, each dimension varies, and no two covary.

Source: Bardes, Ponce, LeCun, ICLR 2022, arXiv 2105.04906. Others' runs on CIFAR-10: 69.7 after 10 epochs and
78.1 after 30 (README of EMP-SSL), the best start among the methods listed there.
"""

from typing import Literal

from pydantic import Field

from crosscontext.backbones.contract import Backbone
from crosscontext.distributed import whole_batch
from crosscontext.heads import ProjectionSettings, mlp
from crosscontext.methods.contract import Outcome, Views
from crosscontext.methods.siamese import SiameseMethod, SiameseSettings
from crosscontext.schedules import Plan
from crosscontext.siamese_losses import vicreg


class VICRegSettings(SiameseSettings):
    """VICReg, with sizes for small sets (published for ImageNet: 3 layers of width 8192)."""

    name: Literal["vicreg"] = "vicreg"

    projection: ProjectionSettings = ProjectionSettings(layers=3, hidden_width=1024, width=1024)
    """Of the pooled features; BatchNorm follows its hidden layers."""

    invariance_weight: float = Field(1.0, ge=0)
    """Weight λ of the distance between two views. Published: 25, for an optimiser (LARS) to which only the
    ratios of the weights matter; those are kept."""

    variance_weight: float = Field(1.0, ge=0)
    """Weight μ of dimensions that vary too little; published: 25."""

    covariance_weight: float = Field(0.04, ge=0)
    """Weight ν of dimensions that covary; published: 1."""

    def build(self, backbone: Backbone, plan: Plan) -> "VICReg":
        """Make the student around a backbone."""
        return VICReg(self, backbone)


class VICReg(SiameseMethod):
    """The student of VICReg."""

    def __init__(self, settings: VICRegSettings, backbone: Backbone):
        widths = settings.projection.widths(backbone.stages[-1].channels)
        super().__init__(backbone, mlp(widths, hidden_norm=True, output="plain"))
        self.settings = settings
        self.view_counts = settings.view_counts
        self.compares_images = True

    def forward(self, views: Views, step: int) -> Outcome:
        """Compute the weighted sum of the three terms (eq. 6)."""
        first, second = (whole_batch(self.student(view)) for view in views["strong"])
        terms = vicreg(first, second)
        loss = (
            self.settings.invariance_weight * terms.invariance
            + self.settings.variance_weight * terms.variance
            + self.settings.covariance_weight * terms.covariance
        )
        return Outcome(loss, {f"loss_{n}": term.detach() for n, term in terms._asdict().items()}, keys={})
