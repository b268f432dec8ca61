"""Pooled features → rows: the MLPs that contexts and methods put on top of a backbone, and prototypes.

backbones → **heads** → contexts, methods
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from crosscontext.settings import Settings


class ProjectionSettings(Settings):
    """Size of an MLP on top of the pooled features."""

    layers: int = Field(2, ge=1)
    """Linear layers."""

    hidden_width: int = Field(512, ge=1)
    """Width of all layers but the last."""

    width: int = Field(128, ge=1)
    """Width D of the last layer, which is that of the embedding."""

    def widths(self, channels: int) -> list[int]:
        """Widths of the input, of the hidden layers and of the output.

        Args:
            channels: of the pooled features.
        """
        return [channels, *[self.hidden_width] * (self.layers - 1), self.width]


def mlp(
    widths: Sequence[int],
    *,
    hidden_norm: bool,
    output: Literal["bias", "plain", "norm"] = "bias",
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Make linear layers with BatchNorm and an activation in between.

    Args:
        widths: of the input, of every hidden layer, and of the output.
        hidden_norm: whether a BatchNorm follows the hidden layers, which then need no bias.
        output: bias: the last layer has one. plain: it has none, where the mean is taken off next. norm: it
            has none either, and a BatchNorm without weights follows (SimSiam, arXiv 2011.10566).
        activation: after the hidden layers.
    """
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths[:-1]):
        norm = [nn.BatchNorm1d(width_out)] if hidden_norm else []
        layers += [nn.Linear(width_in, width_out, bias=not hidden_norm), *norm, activation()]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=output == "bias"))
    if output == "norm":
        layers.append(nn.BatchNorm1d(widths[-1], affine=False))
    return nn.Sequential(*layers)


class Prototypes(nn.Module):
    """Cosines between embeddings and M learned directions, in float32 at least.

    This is the last layer of DINO (arXiv 2104.14294): linear, with weight normalisation of scale 1.

    Args:
        width: D of the embeddings.
        count: M.

    Attributes:
        frozen: whether the directions get no gradient.
    """

    def __init__(self, width: int, count: int):
        super().__init__()
        self.frozen = False
        self.weight = nn.Parameter(nn.Linear(width, count, bias=False).weight.detach())

    def forward(self, rows: Float[Tensor, "B D"]) -> Float[Tensor, "B M"]:
        """Compare; the rows need not be normalised."""
        with torch.autocast(rows.device.type, enabled=False):
            rows = rows.to(self.weight.dtype)
            weight = self.weight.detach() if self.frozen else self.weight
            return F.linear(F.normalize(rows, dim=1), F.normalize(weight, dim=1))
