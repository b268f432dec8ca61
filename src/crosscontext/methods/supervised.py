"""Training with labels: what the same network, views and budget give to who knows the classes.

A reference for the table, not a way to learn from unlabelled images.
"""

from typing import Literal

import torch.nn.functional as F
from torch import nn

from crosscontext.backbones.contract import Backbone
from crosscontext.errors import SettingsError
from crosscontext.methods.contract import Outcome, Views
from crosscontext.methods.siamese import SiameseMethod
from crosscontext.schedules import Plan
from crosscontext.settings import Settings
from crosscontext.siamese_losses import full_precision


class SupervisedSettings(Settings):
    """Training with labels, by cross-entropy."""

    name: Literal["supervised"] = "supervised"

    def resolve(self, num_images: int) -> "SupervisedSettings":
        """Settle what is "auto" for a set of this many images: nothing is."""
        return self

    @property
    def view_counts(self) -> dict[str, int]:
        """Copies of each named view that a step takes."""
        return {"weak": 1}

    def build(self, backbone: Backbone, plan: Plan) -> "Supervised":
        """Put a classifier on top of a backbone.

        Raises:
            SettingsError: the images have no classes.
        """
        if not plan.num_classes:
            raise SettingsError(
                "method is supervised, but the training images have no classes. Give a folder with a "
                "sub-folder a class, or a labelled set, or choose a method that needs no labels, e.g. cgh."
            )
        return Supervised(self, backbone, plan.num_classes)


class Supervised(SiameseMethod):
    """A backbone with a linear classifier."""

    needs_labels = True

    def __init__(self, settings: SupervisedSettings, backbone: Backbone, num_classes: int):
        super().__init__(backbone, nn.Linear(backbone.stages[-1].channels, num_classes))
        self.view_counts = settings.view_counts

    def forward(self, views: Views, step: int) -> Outcome:
        """Compute the cross-entropy between labels and predictions for a weak view."""
        (weak,), (labels,) = views["weak"], views["labels"]
        loss = F.cross_entropy(full_precision(self.student(weak)), labels)
        return Outcome(loss, {"loss_classes": loss.detach()}, keys={})
