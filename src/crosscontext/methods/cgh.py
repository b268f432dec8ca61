"""CGH: cross-context learning between global and hypercolumn features.

Source: Gao, Feng, Patras, WACV 2024, arXiv 2308.13392. The teacher's relations in one context guide the
student's in the other. A relation method is a set of directed (teacher context → student context) pairs, so
that ReSSL and all ablations of the paper are settings of this file.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from crosscontext.backbones.contract import Backbone
from crosscontext.losses import info_nce, relation_cross_entropy
from crosscontext.methods.contract import Outcome, Views
from crosscontext.methods.crossing import CrossingSettings
from crosscontext.methods.momentum import MomentumMethod, MomentumSettings
from crosscontext.relations import relate
from crosscontext.schedules import Duration, Plan, warmup_fraction

_CENTRE_DECAY = 0.9


class CGHSettings(CrossingSettings, MomentumSettings):
    """CGH; the defaults are the published loss, with sizes for small sets."""

    name: Literal["cgh"] = "cgh"

    warmup: Duration = "5 epochs"
    """The loss moves in a line from InfoNCE to the relations over this time, as published. Relations of an
    untrained network are nearly uniform and teach nothing, so a short run needs it as much as a long one."""

    contrast_kept: float = Field(0.0, ge=0, le=1)
    """Part of InfoNCE that stays in the loss after the warm-up; published: 0."""

    own_share: float = Field(0.0, ge=0, lt=1)
    """Share of each target that falls to the image itself, as one more slot (SCE, arXiv 2111.14585);
    published CGH: 0, no such slot. It teaches from the first step on, when relations do not yet."""

    centring: Literal["none", "mean", "sum"] = "none"
    """Subtract a running centre, one value a slot, from the teacher's similarities. It is updated with the
    mean over the batch, or with the sum as the published code does on one process."""

    local_views: int = Field(0, ge=0)
    """Small crops an image (multi-crop), taught to the student's global context."""

    @model_validator(mode="after")
    def _fit_together(self) -> "CGHSettings":
        if self.local_views and not any(pair.endswith("->global") for pair in self.pairs):
            raise ValueError(
                f"local_views is {self.local_views}, but none of the pairs {', '.join(self.pairs)} "
                "teaches the global context, which local views are for. "
                "Add 'hyper->global' to pairs, or set local_views to 0."
            )
        return self

    @property
    def view_counts(self) -> dict[str, int]:
        """Copies of each named view that a step takes."""
        return {"weak": 1, "strong": 1, "local": self.local_views}

    def build(self, backbone: Backbone, plan: Plan) -> "CGH":
        """Make student, teacher and memory around a backbone; the settings are resolved."""
        return CGH(self, backbone, plan)


class CGH(MomentumMethod):
    """Student, teacher and memory of the published method and of its ablations."""

    def __init__(self, settings: CGHSettings, backbone: Backbone, plan: Plan):
        super().__init__(settings, backbone, settings.context_names)
        self.settings, self.context_names = settings, settings.context_names
        self.warmup_steps = plan.steps(settings.warmup)
        for context in self.context_names if settings.centring != "none" else ():
            self.register_buffer(f"centre_{context}", torch.zeros(self.memory.num_slots))

    def forward(self, views: Views, step: int) -> Outcome:
        """Compute the loss: InfoNCE fades into cross-context relations (arXiv 2308.13392, figure 2)."""
        (weak,), (strong,), local = views["weak"], views["strong"], views.get("local", [])
        student = self.student(strong)  # context → (B, D)
        teacher = self.teacher(weak)
        slots = {name: self.memory.slots(name) for name in self.context_names}
        taught = {name: [rows] for name, rows in student.items()}
        if local:
            taught["global"] += self.student(torch.cat(local), only={"global"})["global"].chunk(len(local))

        terms, entropies = {}, {}
        for source, target in self.settings.directions:
            relation = relate(
                teacher[source],
                slots[source],
                slots[target],
                self.settings.teacher_temperature[source],
                self._centre(source),
            )
            costs = [
                relation_cross_entropy(
                    relation,
                    rows,
                    slots[target],
                    self.settings.student_temperature[target],
                    teacher[target] if self.settings.own_share else None,
                    self.settings.own_share,
                )
                for rows in taught[target]
            ]
            terms[f"loss_{target}_from_{source}"] = torch.stack(costs).mean()
            entropies[f"relation_entropy_{source}"] = relation.entropy
        loss = torch.stack(list(terms.values())).mean()

        related = min(warmup_fraction(step, self.warmup_steps), 1 - self.settings.contrast_kept)
        if related < 1:
            contrasts = [
                info_nce(student[name], teacher[name], slots[name], self.settings.temperature_contrast)
                for name in self.context_names
            ]
            terms["loss_contrast"] = torch.stack(contrasts).sum()
            loss = related * loss + (1 - related) * terms["loss_contrast"]

        measurements = {name: term.detach() for name, term in terms.items()}
        return Outcome(loss, measurements | entropies, keys=teacher)

    def _centre(self, context: str) -> Float[Tensor, " K"] | None:
        if self.settings.centring == "none":
            return None
        return self.get_buffer(f"centre_{context}")[: self.memory.filled]

    @torch.no_grad()
    def after_step(self, outcome: Outcome) -> None:
        """Centres see the memory of this step, then the memory advances, then the teacher moves."""
        if self.settings.centring != "none":
            for name, keys in outcome.keys.items():
                slots = self.memory.slots(name)
                reduce = torch.mean if self.settings.centring == "mean" else torch.sum
                seen = slots @ reduce(keys, dim=0, dtype=slots.dtype)  # of the similarities keys @ slots.T
                self.get_buffer(f"centre_{name}")[: len(seen)].lerp_(seen, 1 - _CENTRE_DECAY)
        super().after_step(outcome)
