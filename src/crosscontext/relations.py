"""Embeddings and memory → relations: how one image resembles K others.

contexts, memory → **relations** → losses
"""

import math

from jaxtyping import Float
from torch import Tensor


def similarities(embeddings: Float[Tensor, "B D"], slots: Float[Tensor, "K D"]) -> Float[Tensor, "B K"]:
    """Cosine of each embedding with each memory slot, in [-1, 1]; both are unit rows."""
    return embeddings @ slots.T


def relation(similarity: Float[Tensor, "B K"], temperature: float) -> Float[Tensor, "B K"]:
    """Distribution over the memory slots: softmax(similarity / temperature) (ReSSL, eq. 2; CGH, eq. 3)."""
    return (similarity / temperature).softmax(dim=1)


def log_relation(similarity: Float[Tensor, "B K"], temperature: float) -> Float[Tensor, "B K"]:
    """Logarithm of the relation, computed without underflow."""
    return (similarity / temperature).log_softmax(dim=1)


def relation_entropy(probabilities: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
    """Mean entropy of relations as a fraction of the largest one, ln K.

    0: every image resembles a single slot. 1: all slots alike, so that the relation teaches nothing.
    """
    entropy = -(probabilities * probabilities.clamp_min(1e-30).log()).sum(dim=1).mean()
    return entropy / math.log(max(probabilities.shape[1], 2))
