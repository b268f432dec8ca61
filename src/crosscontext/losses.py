"""Relations and embeddings → losses: pure functions, each with the loop that it replaces.

relations → **losses** → methods
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from crosscontext.relations import Relation, log_partition


def relation_cross_entropy(
    target: Relation,
    student: Float[Tensor, "B D"],
    slots: Float[Tensor, "K D"],
    temperature: float,
    keys: Float[Tensor, "B D"] | None = None,
    own_share: float | Float[Tensor, " B"] = 0.0,
) -> Float[Tensor, ""]:
    """Cross-entropy H(target, prediction) between relations, averaged over the batch, in nats.

    Source: ReSSL, arXiv 2107.09282, eq. 4; CGH, arXiv 2308.13392, eq. 4 and 5. Replaces, where p[b] is the
    target's distribution over the slots::

        loss = 0.0
        for b in range(B):
            prediction = softmax([student[b] @ slots[k] / temperature for k in range(K)])
            for k in range(K):
                loss -= p[b, k] * log(prediction[k]) / B

    The logarithm is linear in the slots but for the log-partition, so that of the target only its expected
    slot counts: loss = log_partition - student @ target.expected / temperature.

    Args:
        target: the teacher's relation to the same K images, with these slots as values.
        student: unit rows; they alone get a gradient.
        slots: unit rows of the student's context. Without any the loss is 0.
        temperature: of the student, positive.
        keys: unit rows of the teacher in the student's context; row b is another view of the image of row b.
            Each is one more slot, for its own image alone (SCE, arXiv 2111.14585, eq. 5 and 6).
        own_share: of the target, in [0, 1], that falls to this slot, of all images or of each; 1: InfoNCE.
    """
    expected_logit = (student * target.expected).sum(dim=1) / temperature
    if len(slots) == 0:  # before the first step; what is expected is zero, and so is its gradient
        return expected_logit.mean()
    log_sum = log_partition(student, slots, temperature)
    if keys is not None:
        own_logit = (student * keys.to(slots.dtype)).sum(dim=1) / temperature
        log_sum = torch.logaddexp(log_sum, own_logit)
        expected_logit = torch.lerp(expected_logit, own_logit, own_share)
    return (log_sum - expected_logit).mean()


def info_nce(
    queries: Float[Tensor, "B D"],
    keys: Float[Tensor, "B D"],
    slots: Float[Tensor, "K D"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Contrast each query's own key with all memory slots, averaged over the batch, in nats.

    Source: MoCo, arXiv 1911.05722, eq. 1. Replaces::

        loss = 0.0
        for b in range(B):
            positive = exp(queries[b] @ keys[b] / temperature)
            others = sum(exp(queries[b] @ slots[k] / temperature) for k in range(K))
            loss -= log(positive / (positive + others)) / B

    Args:
        queries: unit rows of the student; they alone get a gradient.
        keys: unit rows of the teacher; row b is another view of the image of query b.
        slots: unit rows: the negatives. Without any the loss is 0.
        temperature: positive; published 0.2 (MoCo v2).
    """
    positive = (queries * keys.to(slots.dtype)).sum(dim=1) / temperature
    return -F.logsigmoid(positive - log_partition(queries, slots, temperature)).mean()
