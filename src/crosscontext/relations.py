"""Embeddings and memory → relations: how one image resembles K others.

contexts, memory → **relations** → losses

A relation is a softmax over the slots. Losses need two sums of it, its log-partition and the slot that it
expects; they are gathered chunk by chunk, and the (B, K) matrix of probabilities is never held.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 2048
"""Slots taken at once, so that two buffers of (B, CHUNK) stay in the cache; 512 to 4096 are equally fast."""


class Relation(NamedTuple):
    """What is kept of p = softmax(slots @ embedding / temperature), K probabilities for each of B images."""

    log_partition: Float[Tensor, " B"]
    """ln Σ_k exp(slot_k · embedding / temperature); -inf without slots."""

    expected: Float[Tensor, "B E"]
    """Σ_k p_k value_k, where the value is a vector that belongs to slot k; zeros without slots."""

    entropy: Float[Tensor, ""]
    """Mean over the images, as a fraction of the largest one, ln K. 0: every image resembles a single slot.
    1: all slots alike, so that the relation teaches nothing."""


@torch.no_grad()
def relate(
    embeddings: Float[Tensor, "B D"],
    slots: Float[Tensor, "K D"],
    values: Float[Tensor, "K E"],
    temperature: float,
    centre: Float[Tensor, " K"] | None = None,
) -> Relation:
    """Compare images with all slots, in one pass and without gradient.

    Time: as of an attention layer whose queries, keys and values are embeddings, slots and values. Memory:
    independent of K. Logits are computed in the precision of the slots, under autocast too.

    Source: ReSSL, arXiv 2107.09282, eq. 2; CGH, arXiv 2308.13392, eq. 3. The sums that move with the largest
    logit: Milakov and Gimelshein, arXiv 1805.02867; of vectors: Rabe and Staats, arXiv 2112.05682.

    Args:
        embeddings: unit rows.
        slots: unit rows of the same context.
        values: row k belongs to slot k: the slots themselves, or those of another context.
        temperature: positive.
        centre: is subtracted from the similarities.
    """
    num_images, num_slots = len(embeddings), len(slots)
    queries = embeddings.to(slots.dtype) / temperature
    buffers = slots.new_empty(2, num_images, min(num_slots, CHUNK))
    largest = slots.new_full((num_images, 1), -math.inf)  # logit so far; all sums are relative to its exp
    weight_sum, logit_sum = slots.new_zeros(num_images, 1), slots.new_zeros(num_images, 1)
    value_sum = slots.new_zeros(num_images, values.shape[1])
    with torch.autocast(slots.device.type, enabled=False):
        for start in range(0, num_slots, CHUNK):
            chunk = slice(start, start + CHUNK)
            logits, weights = buffers[..., : num_slots - start]  # (B, chunk)
            torch.mm(queries, slots[chunk].T, out=logits)
            if centre is not None:
                logits.sub_(centre[chunk] / temperature)
            before, largest = largest, torch.maximum(largest, logits.amax(dim=1, keepdim=True))
            torch.sub(logits, largest, out=weights).exp_()
            shrink = (before - largest).exp_()
            weight_sum.mul_(shrink).add_(weights.sum(dim=1, keepdim=True))
            logit_sum.mul_(shrink).add_(torch.linalg.vecdot(weights, logits)[:, None])
            value_sum.mul_(shrink).addmm_(weights, values[chunk])
    weight_sum.clamp_min_(1)  # without slots; else it is at least exp(0), of the largest logit
    log_sum = largest + weight_sum.log()
    entropy = (log_sum - logit_sum / weight_sum).clamp_min(0)  # below by rounding, or without slots
    return Relation(log_sum.squeeze(1), value_sum / weight_sum, entropy.mean() / math.log(max(num_slots, 2)))


def log_partition(
    embeddings: Float[Tensor, "B D"], slots: Float[Tensor, "K D"], temperature: float
) -> Float[Tensor, " B"]:
    """Compute ln Σ_k exp(slot_k · embedding / temperature), with a gradient for the embeddings alone.

    The gradient, expected slot / temperature, is gathered together with the value: backward does not read
    the slots, which may change in between.

    Args:
        embeddings: unit rows.
        slots: unit rows of the same context. Without any the result is -inf and the gradient zero.
        temperature: positive.
    """
    result: Tensor = _LogPartition.apply(embeddings.to(slots.dtype), slots, temperature)
    return result


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, slots: Tensor, temperature: float) -> Tensor:
        values = slots if ctx.needs_input_grad[0] else slots[:, :0]  # of width 0: no sum to gather
        relation = relate(embeddings, slots, values, temperature)
        ctx.save_for_backward(relation.expected / temperature)
        return relation.log_partition

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (derivative,) = ctx.saved_tensors
        return gradient[:, None] * derivative, None, None
