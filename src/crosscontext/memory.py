"""The latest teacher embeddings of all contexts, in one ring with one pointer.

teacher → **memory** → relations
"""

import warnings
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from crosscontext.settings import Settings

SMALLEST, LARGEST = 256, 65_536


class MemorySettings(Settings):
    """How many embeddings to compare with, and what stands in their place at first."""

    slots: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Number K of slots; published for ImageNet: 131072. auto: the power of two up to a tenth of the set."""

    start: Literal["empty", "random"] = "empty"
    """Start from no slots, which fill in the first K / batch steps, or from random vectors (published)."""

    def resolve(self, num_images: int) -> "MemorySettings":
        """Settle the number of slots for a set of this many images; warns where it exceeds the set."""
        slots = auto_slots(num_images) if self.slots == "auto" else self.slots
        if slots > num_images:
            warnings.warn(
                f"The memory has {slots} slots, but the set only {num_images} images: after one epoch "
                "it holds several embeddings of the same image, also of the one that is compared with it. "
                "Results are usually better with at most a tenth of the set (slots: auto).",
                stacklevel=2,
            )
        return self.model_copy(update={"slots": slots})

    def build(self, widths: Mapping[str, int]) -> "Memory":
        """Make the ring; the number of slots is settled."""
        assert self.slots != "auto"
        return Memory(self.slots, widths, self.start)


def auto_slots(num_images: int) -> int:
    """A number of slots for a set of this size: the largest power of two up to a tenth of it.

    Gives the 4096 of the small-data recipes for CIFAR (50 000 images) and 65 536 for ImageNet.

    Args:
        num_images: of the training set.

    Returns:
        A power of two in [256, 65 536]; less where the set is smaller than 256 images.
    """
    tenth = 1 << (max(num_images, 10) // 10).bit_length() - 1
    return min(max(tenth, SMALLEST), LARGEST, max(num_images, 1))


class Memory(nn.Module):
    """Ring of K slots; slot *i* holds the same image in every context.

    It starts empty by default: relations are then taken over the slots that are filled, all of them real
    images, and the first step has no loss. The published code starts from random vectors instead, which
    are unrelated from one context to the other until K images have passed.

    Args:
        num_slots: K; need not be a multiple of the batch.
        widths: context name → width of its embeddings.
        start: empty, or random unit vectors in all slots.
    """

    def __init__(
        self, num_slots: int, widths: Mapping[str, int], start: Literal["empty", "random"] = "empty"
    ):
        super().__init__()
        self.num_slots = num_slots
        self.pushed = num_slots if start == "random" else 0
        for context, width in widths.items():
            slots = F.normalize(torch.randn(num_slots, width), dim=1)
            self.register_buffer(context, slots if start == "random" else torch.zeros_like(slots))

    @property
    def filled(self) -> int:
        """Slots that hold an embedding, in [0, K]."""
        return min(self.pushed, self.num_slots)

    @property
    def pointer(self) -> int:
        """Slot that the next embedding goes to, in [0, K)."""
        return self.pushed % self.num_slots

    def slots(self, context: str) -> Float[Tensor, "K D"]:
        """The filled slots of one context. A view: it changes with the next push."""
        return self.get_buffer(context)[: self.filled]

    @torch.no_grad()
    def push(self, keys: Mapping[str, Float[Tensor, "B D"]]) -> None:
        """Write one embedding an image and context, over the oldest ones.

        Args:
            keys: context name → unit rows; row *b* is the same image in every context. Of more than K rows
                the last K stay.
        """
        num_keys = len(next(iter(keys.values())))
        kept = min(num_keys, self.num_slots)
        first = (self.pushed + num_keys - kept) % self.num_slots
        before_wrap = min(kept, self.num_slots - first)
        for context, rows in keys.items():
            ring, newest = self.get_buffer(context), rows[num_keys - kept :]
            ring[first : first + before_wrap] = newest[:before_wrap]
            ring[: kept - before_wrap] = newest[before_wrap:]
        self.pushed += num_keys

    def get_extra_state(self) -> dict[str, int]:
        """The one pointer, for checkpoints."""
        return {"pushed": self.pushed}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Put the pointer back."""
        self.pushed = state["pushed"]
