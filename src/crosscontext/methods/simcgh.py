"""SimCGH: CGH without teacher and memory, for short runs; the views of a batch teach each other.

Each context tells the other view of an image from all views of the batch, as SimCLR does, and the relations
that one view has in one context guide those of the other view in the other context, as in CGH. Nothing is
older than the step itself: what teacher and memory know of a network that still changes fast is out of date.

Small views (multi-crop), where asked for, find their image among the full views of the batch.

Source: this package (docs/LOG.md has the trials); its parts are those of CGH, arXiv 2308.13392, SimCLR,
arXiv 2002.05709, and of multi-crop, arXiv 2006.09882.
"""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from crosscontext.backbones.contract import Backbone
from crosscontext.contexts import ContextNetwork, ContextSettings
from crosscontext.distributed import whole_batch
from crosscontext.methods.contract import Method, Outcome, Views
from crosscontext.methods.crossing import CrossingSettings
from crosscontext.schedules import Plan
from crosscontext.siamese_losses import (
    batch_cross_entropy,
    batch_entropy,
    batch_info_nce,
    batch_relation,
    nt_xent,
)


class SimCGHSettings(CrossingSettings):
    """CGH without teacher and memory, with sizes for small sets."""

    name: Literal["simcgh"] = "simcgh"

    contexts: ContextSettings = ContextSettings(hidden_norm=True)
    """Widths and stages of the contexts."""

    relation_weight: float = Field(0.5, ge=0)
    """Weight of the relations beside the contrast, whose weight is 1."""

    local_views: int = Field(0, ge=0)
    """Small crops an image (multi-crop). Each finds its image among the full views of the batch, by the
    global context; the mean over all counts as much as the contrast."""

    @model_validator(mode="after")
    def _refuse_small_views_without_the_global_context(self) -> "SimCGHSettings":
        if self.local_views and "global" not in self.context_names:
            raise ValueError(
                f"local_views is {self.local_views}, but the pairs {', '.join(self.pairs)} leave out "
                "the global context, which local views are for. "
                "Add 'hyper->global' to pairs, or set local_views to 0."
            )
        return self

    def resolve(self, num_images: int) -> "SimCGHSettings":
        """Settle what is "auto" for a set of this many images: nothing is."""
        return self

    @property
    def view_counts(self) -> dict[str, int]:
        """Copies of each named view that a step takes."""
        return {"strong": 2, "local": self.local_views}

    def build(self, backbone: Backbone, plan: Plan) -> "SimCGH":
        """Make the student around a backbone."""
        return SimCGH(self, backbone)


class SimCGH(Method):
    """The student of SimCGH."""

    student: ContextNetwork

    def __init__(self, settings: SimCGHSettings, backbone: Backbone):
        super().__init__()
        self.settings = settings
        self.student = settings.contexts.build(backbone, settings.context_names)
        self.view_counts = settings.view_counts
        self.compares_images = True

    @property
    def networks(self) -> list[nn.Module]:
        """The student."""
        return [self.student]

    @property
    def encoder(self) -> Backbone:
        """The student's backbone."""
        return self.student.backbone

    def forward(self, views: Views, step: int) -> Outcome:
        """Compute the loss: contrast in each context, relations across contexts and views, small views."""
        settings, local = self.settings, views.get("local", [])
        first, second = (
            {name: whole_batch(rows) for name, rows in self.student(view).items()} for view in views["strong"]
        )  # context → (B, D)
        contrasts = [
            nt_xent(first[name], second[name], settings.temperature_contrast)
            for name in settings.context_names
        ]
        terms, entropies = {"loss_contrast": torch.stack(contrasts).mean()}, {}
        for source, target in settings.directions:
            costs = []
            for teacher, student in ((first, second), (second, first)):
                guide = teacher[source].detach()
                relation = batch_relation(guide, guide, settings.teacher_temperature[source])
                slots, sharpness = teacher[target].detach(), settings.student_temperature[target]
                costs.append(batch_cross_entropy(relation, batch_relation(student[target], slots, sharpness)))
            entropies[f"relation_entropy_{source}"] = batch_entropy(relation)
            terms[f"loss_{target}_from_{source}"] = torch.stack(costs).mean()
        relations = [term for name, term in terms.items() if "_from_" in name]
        loss = terms["loss_contrast"] + settings.relation_weight * torch.stack(relations).mean()
        if local:
            small = self.student(torch.cat(local), only={"global"})["global"].chunk(len(local))
            found = [
                batch_info_nce(rows, full["global"], settings.temperature_contrast)
                for rows in map(whole_batch, small)
                for full in (first, second)
            ]
            terms["loss_local"] = torch.stack(found).mean()
            loss = loss + terms["loss_local"]
        return Outcome(loss, {name: term.detach() for name, term in terms.items()} | entropies, keys={})

    def after_step(self, outcome: Outcome) -> None:
        """Do nothing: all state is the student's."""
