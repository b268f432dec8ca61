"""What a method offers: views → loss, and the changes of state that follow a step.

Two places change state in training: ``optimizer.step()`` and ``method.after_step()``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from crosscontext.backbones.contract import Backbone

Views = Mapping[str, list[Tensor]]
"""Name of a view → its copies, each of shape (B, 3, S, S), normalised. A method that needs labels finds one
tensor of classes, (B,), under the name ``labels``."""


class Outcome(NamedTuple):
    """What one forward pass of a method gives."""

    loss: Float[Tensor, ""]
    measurements: dict[str, Tensor]
    """Scalars to log, without gradient: ``loss_<term>``, ``relation_entropy_<context>``, …"""

    keys: dict[str, Tensor]
    """Context → teacher embeddings of the batch, (B, D), or one row with their mean; what the memory takes
    after the step. Of several processes each gives what comes of its share, and gets the rows of all in
    `after_step`."""

    momentum: float | None = None
    """Of the teacher after this step, where it changes in the course of the run."""


class Method(nn.Module, ABC):
    """A self-supervised objective with all the networks that it needs."""

    view_counts: dict[str, int]
    """Copies of each named view that `forward` takes, as its settings say."""

    needs_labels: bool = False
    """Whether the views come with labels."""

    compares_images: bool = False
    """Whether the loss of an image depends on the others of its batch: it needs all of them at once."""

    student: nn.Module
    """The trained parameters, all of them."""

    @property
    @abstractmethod
    def networks(self) -> list[nn.Module]:
        """Those that embed views: what compilation is worth for."""

    @property
    @abstractmethod
    def encoder(self) -> Backbone:
        """What survives pretraining."""

    @abstractmethod
    def forward(self, views: Views, step: int) -> Outcome:
        """Compute the loss of one step; neither the teacher's parameters nor a memory change.

        Args:
            views: as many copies of each as `view_counts` says.
            step: steps done so far.
        """

    @abstractmethod
    def after_step(self, outcome: Outcome) -> None:
        """Move the teacher, push the keys: everything that changes beside the student's parameters."""
