"""Losses as their papers write them, in loops over float64 scalars: what ours must equal, gradients too."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

TOLERANCE = 1e-10


def assert_same(
    ours: Callable[..., Tensor], naive: Callable[..., Tensor], *inputs: Tensor, frozen: Sequence[Tensor] = ()
) -> None:
    """Compare values, and gradients for the inputs.

    Args:
        ours: takes the inputs, then the frozen ones, which it may not give a gradient.
        naive: takes the same.
        inputs: that get a gradient.
        frozen: that get none.
    """
    results = []
    for loss in (ours, naive):
        leaves = [rows.clone().requires_grad_() for rows in inputs]
        others = [rows.clone().requires_grad_(loss is ours) for rows in frozen]
        value = loss(*leaves, *others)
        value.backward()
        assert all(rows.grad is None for rows in others)
        results.append([value.detach(), *(rows.grad for rows in leaves)])
    for mine, expected in zip(*results, strict=True):
        assert mine is not None
        assert expected is not None
        assert expected.any()
        torch.testing.assert_close(mine, expected, atol=TOLERANCE, rtol=TOLERANCE)


def random_rows(count: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64)


def softmax(logits: Sequence[Tensor]) -> list[Tensor]:
    powers = [logit.exp() for logit in logits]
    return [power / torch.stack(powers).sum() for power in powers]


def cross_entropy(target: Sequence[Tensor], prediction: Sequence[Tensor]) -> Tensor:
    return -torch.stack([t * p.log() for t, p in zip(target, prediction, strict=True)]).sum()


def norm(vector: Tensor) -> Tensor:
    return (vector * vector).sum().sqrt()


def mean(terms: Sequence[Tensor]) -> Tensor:
    return torch.stack([*terms]).sum() / len(terms)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """SimCLR, eq. 1, averaged over the 2B views."""
    rows, half = [*first, *second], len(first)
    losses = []
    for i in range(2 * half):
        others = [k for k in range(2 * half) if k != i]
        choices = softmax([rows[i] @ rows[k] / temperature for k in others])
        losses.append(-choices[others.index((i + half) % (2 * half))].log())
    return mean(losses)


def relation(row: Tensor, slots: Sequence[Tensor], temperature: float) -> list[Tensor]:
    """ReSSL, eq. 2: softmax over the slots."""
    return softmax([row @ slot / temperature for slot in slots])


def symmetric_divergence(teacher: Tensor, student: Tensor, slots: Tensor, temperature: float) -> Tensor:
    """The consistency term of CO2: half of both divergences."""
    losses = []
    for t, s in zip(teacher, student, strict=True):
        p, q = relation(t, [*slots], temperature), relation(s, [*slots], temperature)
        losses += [a * (a / b).log() / 2 + b * (b / a).log() / 2 for a, b in zip(p, q, strict=True)]
    return torch.stack(losses).sum() / len(teacher)


def negative_cosine(predictions: Tensor, targets: Tensor) -> Tensor:
    """SimSiam, eq. 1."""
    return mean([-(p @ z) / norm(p) / norm(z) for p, z in zip(predictions, targets, strict=True)])


def prototype_cross_entropy(
    students: Sequence[Tensor], teachers: Sequence[Tensor], centre: Tensor, student: float, teacher: float
) -> Tensor:
    """DINO, eq. 3, as a mean over the pairs of views and the batch."""
    losses = []
    for i, targets in enumerate(teachers):
        for j, predictions in enumerate(students):
            for t, s in zip(targets, predictions, strict=True):
                if i != j:
                    target = softmax([(logit - c) / teacher for logit, c in zip(t, centre, strict=True)])
                    losses.append(cross_entropy(target, softmax([logit / student for logit in s])))
    return mean(losses)


def barlow_twins(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """Barlow Twins, eq. 1 and 2."""
    u, v = (rows - rows.sum(dim=0) / len(rows) for rows in (first, second))
    losses = []
    for i in range(u.shape[1]):
        for j in range(v.shape[1]):
            c = u[:, i] @ v[:, j] / norm(u[:, i]) / norm(v[:, j])
            losses.append((1 - c) ** 2 if i == j else weight * c**2)
    return torch.stack(losses).sum()


def vicreg(first: Tensor, second: Tensor, invariance: float, variance: float, covariance: float) -> Tensor:
    """VICReg, eq. 6, with the factors of the authors' code."""
    size, width = first.shape
    terms = [invariance * ((first - second) ** 2).sum() / size / width]
    for rows in (first, second):
        centred = rows - rows.sum(dim=0) / size
        for i in range(width):
            c = [centred[:, i] @ centred[:, j] / (size - 1) for j in range(width)]
            deviation = (c[i] + 0.0001).sqrt()
            if deviation < 1:
                terms.append(variance * (1 - deviation) / width / 2)
            terms += [covariance * c[j] ** 2 / width for j in range(width) if j != i]
    return torch.stack(terms).sum()
