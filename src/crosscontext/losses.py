"""Relations and embeddings → losses: pure functions, each with the loop that it replaces.

relations → **losses** → methods
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def relation_cross_entropy(
    target: Float[Tensor, "B K"], log_prediction: Float[Tensor, "B K"]
) -> Float[Tensor, ""]:
    """Cross-entropy H(target, prediction) between relations, averaged over the batch, in nats.

    Source: ReSSL, arXiv 2107.09282, eq. 4; CGH, arXiv 2308.13392, eq. 4 and 5. Replaces::

        loss = 0.0
        for b in range(B):
            for k in range(K):
                loss -= target[b, k] * log_prediction[b, k] / B

    Args:
        target: the teacher's relation, rows sum to 1; carries no gradient.
        log_prediction: logarithm of the student's relation.
    """
    return -(target * log_prediction).sum(dim=1).mean()


def info_nce(
    queries: Float[Tensor, "B D"],
    keys: Float[Tensor, "B D"],
    negatives: Float[Tensor, "B K"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Contrast each query's own key with all memory slots, averaged over the batch, in nats.

    Source: MoCo, arXiv 1911.05722, eq. 1. Replaces::

        loss = 0.0
        for b in range(B):
            positive = exp(queries[b] @ keys[b] / temperature)
            others = sum(exp(negatives[b, k] / temperature) for k in range(K))
            loss -= log(positive / (positive + others)) / B

    Args:
        queries: unit rows of the student.
        keys: unit rows of the teacher; row b is another view of the image of query b.
        negatives: similarities of the queries with the memory slots.
        temperature: positive; published 0.2 (MoCo v2).
    """
    positive = (queries * keys).sum(dim=1, keepdim=True)  # (B, 1)
    logits = torch.cat([positive, negatives], dim=1) / temperature  # (B, 1 + K)
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))
