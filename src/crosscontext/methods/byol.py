"""BYOL: predict the teacher's embedding of another view; a predictor and the slow teacher prevent collapse.

Source: Grill et al., NeurIPS 2020, arXiv 2006.07733. Published: ImageNet, ResNet-50, linear 71.5 after 200
epochs. Others' runs on CIFAR-10, ResNet-18: 92.6 after 1000 epochs (solo-learn, online linear), 86.8 after
200 (lightly, k-NN).
"""

from typing import Literal

import torch
from pydantic import Field

from crosscontext.backbones.contract import Backbone
from crosscontext.heads import ProjectionSettings, mlp
from crosscontext.methods.contract import Outcome, Views
from crosscontext.methods.siamese import RisingMethod, RisingSettings
from crosscontext.schedules import Plan
from crosscontext.siamese_losses import negative_cosine


class BYOLSettings(RisingSettings):
    """BYOL, with sizes for small sets (published for ImageNet: hidden widths 4096, width 256)."""

    name: Literal["byol"] = "byol"

    projection: ProjectionSettings = ProjectionSettings(hidden_width=1024, width=256)
    """Of the pooled features; BatchNorm follows its hidden layers."""

    prediction_width: int = Field(1024, ge=1)
    """Hidden width of the predictor."""

    def build(self, backbone: Backbone, plan: Plan) -> "BYOL":
        """Make student and teacher around a backbone."""
        return BYOL(self, backbone, plan)


class BYOL(RisingMethod):
    """Student and teacher of BYOL."""

    def __init__(self, settings: BYOLSettings, backbone: Backbone, plan: Plan):
        *_, width = widths = settings.projection.widths(backbone.stages[-1].channels)
        project = mlp(widths, hidden_norm=True, output="plain")
        predict = mlp((width, settings.prediction_width, width), hidden_norm=True, output="plain")
        super().__init__(settings, backbone, project, predict, plan)

    def forward(self, views: Views, step: int) -> Outcome:
        """Compute the squared distances between unit rows, each view predicting the other (eq. 2)."""
        predictions = [self.student(view) for view in views["strong"]]
        targets = [self.teacher(view) for view in reversed(views["strong"])]
        distances = [2 + 2 * negative_cosine(*pair) for pair in zip(predictions, targets, strict=True)]
        loss = torch.stack(distances).sum()
        return Outcome(loss, {"loss_prediction": loss.detach()}, keys={}, momentum=self.momentum_at(step))
