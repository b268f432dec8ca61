import math
from functools import partial

import pytest
import torch
from torch import Tensor

import naive
from crosscontext.siamese_losses import barlow_twins, negative_cosine, prototype_cross_entropy, vicreg
from naive import assert_same, random_rows

B, D = 5, 4
FIRST, SECOND = random_rows(B, D, 0), random_rows(B, D, 1)


def test_negative_cosine_is_that_of_the_paper_and_targets_get_no_gradient() -> None:
    assert_same(negative_cosine, naive.negative_cosine, FIRST, frozen=[SECOND])


def test_two_plus_twice_the_negative_cosine_is_the_squared_distance_of_unit_rows() -> None:
    p, z = (torch.nn.functional.normalize(rows) for rows in (FIRST, SECOND))
    distance = (p - z).square().sum(dim=1).mean()
    torch.testing.assert_close(2 + 2 * negative_cosine(FIRST, SECOND), distance)


@pytest.mark.parametrize("num_local", [0, 2])
def test_prototype_cross_entropy_is_that_of_the_paper(num_local: int) -> None:
    students = [random_rows(B, D, seed) for seed in range(2 + num_local)]
    teachers, centre = [random_rows(B, D, seed) for seed in (10, 11)], random_rows(1, D, 12)[0]

    def ours(*rows: Tensor) -> Tensor:
        return prototype_cross_entropy(rows[:-2], rows[-2:], centre, 0.1, 0.04)

    def papers(*rows: Tensor) -> Tensor:
        return naive.prototype_cross_entropy(rows[:-2], rows[-2:], centre, 0.1, 0.04)

    assert_same(ours, papers, *students, frozen=teachers)


def test_a_teacher_that_sees_no_difference_between_prototypes_costs_their_logarithm() -> None:
    alike = [torch.zeros(B, D, dtype=torch.float64)] * 2
    loss = prototype_cross_entropy([FIRST * 0, SECOND * 0], alike, torch.zeros(D).double(), 0.1, 0.04)
    assert loss.item() == pytest.approx(math.log(D))


def test_barlow_twins_is_that_of_the_paper() -> None:
    def ours(first: Tensor, second: Tensor) -> Tensor:
        terms = barlow_twins(first, second)
        return terms.invariance + 0.0051 * terms.redundancy

    assert_same(ours, partial(naive.barlow_twins, weight=0.0051), FIRST, SECOND)


def test_barlow_twins_of_a_view_with_independent_dimensions_and_itself_is_zero() -> None:
    rows = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    terms = barlow_twins(3 * rows + 5, rows)
    torch.testing.assert_close(terms.invariance, torch.zeros(()))
    torch.testing.assert_close(terms.redundancy, torch.zeros(()))


@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0])  # all, some or no dimensions vary too little
def test_vicreg_is_that_of_the_paper(scale: float) -> None:
    def ours(first: Tensor, second: Tensor) -> Tensor:
        terms = vicreg(first, second)
        return 25 * terms.invariance + 20 * terms.variance + 3 * terms.covariance

    papers = partial(naive.vicreg, invariance=25, variance=20, covariance=3)
    assert_same(ours, papers, scale * FIRST, scale * SECOND)


def test_vicreg_of_collapsed_embeddings_is_the_missing_variance_alone() -> None:
    terms = vicreg(FIRST[:1].expand(B, D), FIRST[:1].expand(B, D))
    assert terms.invariance == 0
    assert terms.covariance == pytest.approx(0, abs=1e-20)
    assert terms.variance.item() == pytest.approx(1 - 0.01)


def test_half_precision_is_computed_in_full_under_autocast_too() -> None:
    rows = FIRST.bfloat16(), SECOND.bfloat16()
    full = rows[0].float(), rows[1].float()
    centre = torch.zeros(D)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = [
            negative_cosine(*rows),
            prototype_cross_entropy(rows, rows, centre, 0.1, 0.04),
            *barlow_twins(*rows),
            *vicreg(*rows),
        ]
    expected = [
        negative_cosine(*full),
        prototype_cross_entropy(full, full, centre, 0.1, 0.04),
        *barlow_twins(*full),
        *vicreg(*full),
    ]
    for mine, exact in zip(half, expected, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, exact)
