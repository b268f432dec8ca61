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
        own_share: of the target, in [0, 1], that falls to this slot; one number, or one an image. At 1 the
            loss is InfoNCE.
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


def nt_xent(
    first: Float[Tensor, "B D"], second: Float[Tensor, "B D"], temperature: float
) -> Float[Tensor, ""]:
    """Tell the other view of an image from all views of the batch, averaged over the 2B views, in nats.

    Source: SimCLR, arXiv 2002.05709, eq. 1. Replaces, where rows are those of both views::

        loss = 0.0
        for i in range(2 * B):
            choices = {k: exp(rows[i] @ rows[k] / temperature) for k in range(2 * B) if k != i}
            loss -= log(choices[(i + B) % (2 * B)] / sum(choices.values())) / (2 * B)

    Args:
        first: unit rows of one view of each image.
        second: unit rows of another view.
        temperature: positive.
    """
    rows = torch.cat([first, second])
    with torch.autocast(rows.device.type, enabled=False):
        logits = rows @ rows.T / temperature
    others = torch.arange(len(rows), device=rows.device).roll(len(first))
    return F.cross_entropy(logits.fill_diagonal_(-torch.inf), others)


def symmetric_divergence(
    target: Relation,
    teacher: Float[Tensor, "B D"],
    student: Float[Tensor, "B D"],
    slots: Float[Tensor, "K D"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Divergence between two relations, mean of both directions, averaged over the batch, in nats.

    Source: CO2, arXiv 2010.02217, the consistency term. Replaces, where p[b] and q[b] are the relations of
    teacher and student::

        loss = 0.0
        for b in range(B):
            for k in range(K):
                loss += (p[b, k] - q[b, k]) * log(p[b, k] / q[b, k]) / (2 * B)

    Both sums of the differences are 0, so that log-partitions cancel and only the two expected slots count:
    loss = (teacher - student) @ (expected by p - expected by q) / (2 temperature).

    Args:
        target: the teacher's relation at this temperature, with the slots as values.
        teacher: unit rows that the target was made of.
        student: unit rows; they alone get a gradient.
        slots: unit rows. Without any the loss is 0.
        temperature: of both relations, positive.
    """
    teacher, student = teacher.to(slots.dtype), student.to(slots.dtype)
    with torch.autocast(slots.device.type, enabled=False):
        expected = (student @ slots.T / temperature).softmax(dim=1) @ slots
    gap = ((teacher - student) * (target.expected - expected)).sum(dim=1)
    return gap.mean() / (2 * temperature)
