"""What a backbone offers: images → stage maps, whose channels and strides are known beforehand.

views → **backbones** → contexts
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn


class Stage(NamedTuple):
    """One stage of a backbone."""

    name: str
    """Name of the module whose output it is, e.g. ``layer3``."""

    channels: int
    stride: int
    """Pixels of the image per cell of the map, along one side."""


class Backbone(nn.Module, ABC):
    """Images → one map a stage, coarse stages last."""

    stages: tuple[Stage, ...]

    model: nn.Module
    """The network with the key names of its framework, so that its state dict loads there unchanged."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """Compute the maps of all stages, each of shape (B, channels, h, w)."""
