"""Two views of a batch → losses of CGH's relatives: pure functions, each with the loop that it replaces.

relations → **siamese losses** → methods. What two of the methods share stands in `losses.py`. All are
computed in float32 at least.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from crosscontext.relations import Relation

_LEAST_VARIANCE = 1e-4


def full_precision(rows: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """Make rows float32 where they are less."""
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


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


def batch_info_nce(
    rows: Float[Tensor, "B D"], keys: Float[Tensor, "B D"], temperature: float
) -> Float[Tensor, ""]:
    """Find the image of each row among the keys of the batch, averaged over it, in nats.

    Source: CPC, arXiv 1807.03748, eq. 4, with the other images of the batch as negatives. Replaces::

        loss = 0.0
        for b in range(B):
            choices = [exp(rows[b] @ keys[k] / temperature) for k in range(B)]
            loss -= log(choices[b] / sum(choices)) / B

    Args:
        rows: unit rows.
        keys: unit rows; row k is of the same image as row k of `rows`. They get a gradient, too.
        temperature: positive.
    """
    with torch.autocast(rows.device.type, enabled=False):
        logits = full_precision(rows) @ full_precision(keys).T / temperature
    return F.cross_entropy(logits, torch.arange(len(rows), device=rows.device))


def batch_relation(
    rows: Float[Tensor, "B D"], slots: Float[Tensor, "B D"], temperature: float
) -> Float[Tensor, "B B"]:
    """How each image of a batch resembles the others: ln p, where the image itself is left out (-inf).

    Source: CGH, arXiv 2308.13392, eq. 3, with the batch in place of the memory. Replaces::

        for b in range(B):
            others = {k: exp(rows[b] @ slots[k] / temperature) for k in range(B) if k != b}
            relation[b] = {k: log(value / sum(others.values())) for k, value in others.items()}

    Args:
        rows: unit rows.
        slots: unit rows of the same context; row k belongs to image k.
        temperature: positive.
    """
    with torch.autocast(rows.device.type, enabled=False):
        logits = full_precision(rows) @ full_precision(slots).T / temperature
    return logits.fill_diagonal_(-torch.inf).log_softmax(dim=1)


def batch_entropy(relation: Float[Tensor, "B B"]) -> Float[Tensor, ""]:
    """Mean entropy of relations within a batch, as a fraction of the largest one, ln (B − 1)."""
    return batch_cross_entropy(relation, relation) / math.log(max(len(relation) - 1, 2))


def batch_cross_entropy(target: Float[Tensor, "B B"], prediction: Float[Tensor, "B B"]) -> Float[Tensor, ""]:
    """Cross-entropy between relations within a batch, averaged over it, in nats.

    Source: CGH, arXiv 2308.13392, eq. 4 and 5. Replaces::

        loss = 0.0
        for b in range(B):
            for k in range(B):
                if k != b:
                    loss -= exp(target[b, k]) * prediction[b, k] / B

    Args:
        target: as of `batch_relation`; what it was made of gets a gradient, too, unless it is detached.
        prediction: of the student.
    """
    itself = torch.eye(len(target), dtype=torch.bool, device=target.device)
    return -(target.exp() * prediction.masked_fill(itself, 0)).sum(dim=1).mean()


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


def negative_cosine(predictions: Float[Tensor, "B D"], targets: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Negative cosine between predictions and targets, averaged over the batch; in [-1, 1].

    Source: SimSiam, arXiv 2011.10566, eq. 1 and 3; BYOL, arXiv 2006.07733, eq. 2 is 2 + 2 × this. Replaces::

        loss = 0.0
        for b in range(B):
            loss -= predictions[b] @ targets[b] / norm(predictions[b]) / norm(targets[b]) / B

    Args:
        predictions: of the student.
        targets: they get no gradient.
    """
    return -F.cosine_similarity(full_precision(predictions), full_precision(targets.detach()), dim=1).mean()


def prototype_cross_entropy(
    students: Sequence[Float[Tensor, "B M"]],
    teachers: Sequence[Float[Tensor, "B M"]],
    centre: Float[Tensor, " M"],
    student_temperature: float,
    teacher_temperature: float,
) -> Float[Tensor, ""]:
    """Cross-entropy between the prototypes of different views, averaged over pairs and batch, in nats.

    Source: DINO, arXiv 2104.14294, eq. 1 to 3. Replaces, where i and j are views, of which the teacher sees
    the first ones::

        loss = 0.0
        pairs = [(i, j) for i in range(len(teachers)) for j in range(len(students)) if i != j]
        for i, j in pairs:
            for b in range(B):
                target = softmax((teachers[i][b] - centre) / teacher_temperature)
                prediction = softmax(students[j][b] / student_temperature)
                loss -= sum(target * log(prediction)) / B / len(pairs)

    Args:
        students: logits of M prototypes, one tensor a view; more than one.
        teachers: logits of the teacher for the first of these views; they get no gradient.
        centre: is subtracted from the teacher's logits.
        student_temperature: positive.
        teacher_temperature: positive, smaller than that of the student.
    """
    targets = [
        ((full_precision(logits.detach()) - centre) / teacher_temperature).softmax(dim=1)
        for logits in teachers
    ]
    costs = [
        F.cross_entropy(full_precision(logits) / student_temperature, target)
        for i, target in enumerate(targets)
        for j, logits in enumerate(students)
        if i != j
    ]
    return torch.stack(costs).mean()


class BarlowTwinsTerms(NamedTuple):
    """Parts of the loss of Barlow Twins, not weighted yet."""

    invariance: Float[Tensor, ""]
    redundancy: Float[Tensor, ""]


def barlow_twins(first: Float[Tensor, "B D"], second: Float[Tensor, "B D"]) -> BarlowTwinsTerms:
    """Compare the correlations between the dimensions of two views with the identity matrix.

    Source: Barlow Twins, arXiv 2103.03230, eq. 1 and 2. Replaces, where u and v are the two views with the
    mean over the batch taken off::

        invariance = redundancy = 0.0
        for i in range(D):
            for j in range(D):
                c = u[:, i] @ v[:, j] / norm(u[:, i]) / norm(v[:, j])
                if i == j:
                    invariance += (1 - c) ** 2
                else:
                    redundancy += c ** 2

    Args:
        first: embeddings of one view of each image.
        second: embeddings of another view.
    """
    u, v = (
        F.normalize(rows - rows.mean(dim=0), dim=0)
        for rows in (full_precision(first), full_precision(second))
    )
    with torch.autocast(u.device.type, enabled=False):
        correlations = u.T @ v
    alike = correlations.diagonal()
    return BarlowTwinsTerms((1 - alike).square().sum(), correlations.square().sum() - alike.square().sum())


class VICRegTerms(NamedTuple):
    """Parts of the loss of VICReg, not weighted yet."""

    invariance: Float[Tensor, ""]
    variance: Float[Tensor, ""]
    covariance: Float[Tensor, ""]


def vicreg(first: Float[Tensor, "B D"], second: Float[Tensor, "B D"]) -> VICRegTerms:
    """Compare two views, and ask of each that dimensions vary and do not covary.

    Source: VICReg, arXiv 2105.04906, eq. 1 to 5, scaled as by the authors' code: the distance is divided by
    D, and the variance is the mean of both views. Replaces::

        invariance = sum((first - second) ** 2) / B / D
        variance = covariance = 0.0
        for z in (first, second):
            c = transpose(z - mean(z)) @ (z - mean(z)) / (B - 1)
            for i in range(D):
                variance += max(0, 1 - sqrt(c[i, i] + 0.0001)) / D / 2
                covariance += sum(c[i, j] ** 2 for j in range(D) if j != i) / D

    Args:
        first: embeddings of one view of each image.
        second: embeddings of another view.
    """
    first, second = full_precision(first), full_precision(second)
    variance, covariance = first.new_zeros(()), first.new_zeros(())
    for rows in (first, second):
        with torch.autocast(rows.device.type, enabled=False):
            covariances = rows.T.cov()
        variances = covariances.diagonal()
        variance = variance + F.relu(1 - (variances + _LEAST_VARIANCE).sqrt()).mean() / 2
        others = covariances.square().sum() - variances.square().sum()
        covariance = covariance + others / len(variances)
    return VICRegTerms(F.mse_loss(first, second), variance, covariance)
