"""Who teaches the student: its momentum twin, or a network that was trained before.

student → **teacher** → contexts without gradient
"""

import copy
from typing import Annotated, Generic, Literal, TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from crosscontext.shuffling import Shuffle

LARGE_SET = 300_000

EmbeddingsT = TypeVar("EmbeddingsT")

Momentum = Literal["auto"] | Annotated[float, Field(ge=0, lt=1)]
"""Momentum of a teacher, or "auto": by the size of the set."""


def settle_momentum(momentum: Momentum, num_images: int) -> float:
    """Settle "auto" to 0.999, as published for ImageNet, or to 0.99 for sets below 300 000 images.

    A teacher of momentum m follows its student with a half-life of ln 2 / (1 − m) steps: 69 or 693, the
    latter being three and a half epochs of CIFAR.

    Args:
        momentum: as set.
        num_images: of the training set.
    """
    if momentum != "auto":
        return momentum
    return 0.999 if num_images >= LARGE_SET else 0.99


class Teacher(nn.Module, Generic[EmbeddingsT]):
    """A copy of the student whose parameters follow it, and never receive a gradient.

    Buffers are not averaged: its BatchNorm runs in training mode and keeps statistics of its own.

    Args:
        student: what to copy.
        momentum: m in [0, 1).

    Attributes:
        shuffle: puts the images into other groups than those of the student; None: the same.
    """

    def __init__(self, student: nn.Module, momentum: Momentum):
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        assert momentum != "auto"  # settings are settled before anything is built
        self.momentum = momentum
        self.shuffle: Shuffle | None = None

    @torch.no_grad()
    def forward(self, images: Tensor) -> EmbeddingsT:
        """Embed images as the student does, without gradient."""
        if self.shuffle is not None:
            return cast(EmbeddingsT, self.shuffle.around(self.network, images))
        embeddings: EmbeddingsT = self.network(images)
        return embeddings

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float | None = None) -> None:
        """Move every parameter: teacher ← m · teacher + (1 − m) · student (MoCo, eq. 2).

        Args:
            student: whom to follow.
            momentum: m of this step; by default that of all steps.
        """
        momentum = self.momentum if momentum is None else momentum
        own: list[Tensor] = [*self.network.parameters()]
        others: list[Tensor] = [*student.parameters()]
        torch._foreach_mul_(own, momentum)
        torch._foreach_add_(
            own, torch._foreach_mul(others, 1 - momentum)
        )  # rounds as published; lerp does not


class FrozenTeacher(nn.Module):
    """A trained network that stays as it is: without gradient, always in evaluation mode.

    Args:
        network: images → embeddings; it is not copied.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "FrozenTeacher":
        """Set the mode, but leave the network in evaluation mode: it sees each image by itself."""
        super().train(mode)
        self.network.eval()
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Embed images, without gradient."""
        embeddings: Tensor = self.network(images)
        return embeddings
