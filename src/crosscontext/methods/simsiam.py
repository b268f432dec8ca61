"""SimSiam: predict the student's own embedding of another view; stopping its gradient prevents collapse.

Source: Chen and He, CVPR 2021, arXiv 2011.10566. Others' runs on CIFAR-10, ResNet-18: k-NN 81.9 after 200
epochs of batch 128, 90.4 after 800 of batch 512 (lightly). The paper keeps the predictor's learning rate
constant; here it has that of all the others.
"""

from typing import Literal

from pydantic import Field

from crosscontext.backbones.contract import Backbone
from crosscontext.heads import ProjectionSettings, mlp
from crosscontext.methods.contract import Outcome, Views
from crosscontext.methods.siamese import SiameseMethod, SiameseSettings
from crosscontext.schedules import Plan
from crosscontext.siamese_losses import negative_cosine


class SimSiamSettings(SiameseSettings):
    """SimSiam, with sizes for small sets (published for ImageNet: 3 layers of width 2048, predictor 512)."""

    name: Literal["simsiam"] = "simsiam"

    projection: ProjectionSettings = ProjectionSettings(hidden_width=1024, width=1024)
    """Of the pooled features; BatchNorm follows all its layers."""

    prediction_width: int = Field(256, ge=1)
    """Hidden width of the predictor, a quarter of the projection's width as published."""

    def build(self, backbone: Backbone, plan: Plan) -> "SimSiam":
        """Make the student around a backbone."""
        return SimSiam(self, backbone)


class SimSiam(SiameseMethod):
    """The student of SimSiam."""

    def __init__(self, settings: SimSiamSettings, backbone: Backbone):
        *_, width = widths = settings.projection.widths(backbone.stages[-1].channels)
        predict = mlp((width, settings.prediction_width, width), hidden_norm=True)
        super().__init__(backbone, mlp(widths, hidden_norm=True, output="norm"), predict)
        self.view_counts = settings.view_counts

    def forward(self, views: Views, step: int) -> Outcome:
        """Compute the negative cosine, each view predicting the other (eq. 4)."""
        first, second = (self.student.network(view) for view in views["strong"])
        loss = (
            negative_cosine(self.student.predict(first), second)
            + negative_cosine(self.student.predict(second), first)
        ) / 2
        return Outcome(loss, {"loss_prediction": loss.detach()}, keys={})
