import math
from functools import partial

import pytest
import torch
from torch import Tensor

import naive
from crosscontext.relations import relate
from crosscontext.siamese_losses import (
    barlow_twins,
    batch_cross_entropy,
    batch_entropy,
    batch_info_nce,
    batch_relation,
    negative_cosine,
    nt_xent,
    prototype_cross_entropy,
    symmetric_divergence,
    vicreg,
)
from naive import assert_same, random_rows
from plain_relations import unit_rows

B, D, K = 5, 4, 9
FIRST, SECOND = random_rows(B, D, 0), random_rows(B, D, 1)
STUDENT, TEACHER, SLOTS = (unit_rows(count, D, seed) for seed, count in enumerate((B, B, K)))


def test_nt_xent_is_that_of_the_paper() -> None:
    assert_same(partial(nt_xent, temperature=0.2), partial(naive.nt_xent, temperature=0.2), STUDENT, TEACHER)


def test_nt_xent_of_images_that_are_all_alike_is_the_logarithm_of_the_choices() -> None:
    alike = STUDENT[:1].expand(B, D)
    assert nt_xent(alike, alike, 0.2).item() == pytest.approx(math.log(2 * B - 1))


def test_batch_info_nce_is_the_naive_one() -> None:
    def naive_one(rows: Tensor, keys: Tensor) -> Tensor:
        return naive.mean([-naive.relation(row, [*keys], 0.2)[b].log() for b, row in enumerate(rows)])

    assert_same(partial(batch_info_nce, temperature=0.2), naive_one, STUDENT, TEACHER)


def naive_batch_cross_entropy(student: Tensor, teacher: Tensor, slots: Tensor) -> Tensor:
    terms = []
    for b in range(B):
        others = [k for k in range(B) if k != b]
        target = naive.relation(teacher[b], [teacher[k] for k in others], 0.04)
        prediction = naive.relation(student[b], [slots[k] for k in others], 0.1)
        terms.append(naive.cross_entropy(target, prediction))
    return naive.mean(terms)


def test_relations_within_a_batch_leave_the_image_itself_out() -> None:
    def ours(student: Tensor) -> Tensor:
        target = batch_relation(TEACHER, TEACHER, 0.04)
        return batch_cross_entropy(target, batch_relation(student, SLOTS[:B], 0.1))

    def papers(student: Tensor) -> Tensor:
        return naive_batch_cross_entropy(student, TEACHER, SLOTS[:B])

    assert_same(ours, papers, STUDENT)
    relation = batch_relation(STUDENT, STUDENT, 0.04).exp()
    assert relation.diagonal().tolist() == [0] * B
    assert relation.sum(dim=1).tolist() == pytest.approx([1] * B)


def test_the_entropy_within_a_batch_is_a_share_of_that_of_equal_relations() -> None:
    alike = STUDENT[:1].expand(B, D)
    assert batch_entropy(batch_relation(alike, alike, 0.1)).item() == pytest.approx(1)
    assert 0 < batch_entropy(batch_relation(STUDENT, STUDENT, 0.04)) < 1


@pytest.mark.parametrize("temperature", [0.04, 1.0])
def test_symmetric_divergence_is_that_of_the_paper(temperature: float) -> None:
    def ours(student: Tensor) -> Tensor:
        target = relate(TEACHER, SLOTS, SLOTS, temperature)
        return symmetric_divergence(target, TEACHER, student, SLOTS, temperature)

    def papers(student: Tensor) -> Tensor:
        return naive.symmetric_divergence(TEACHER, student, SLOTS, temperature)

    assert_same(ours, papers, STUDENT)


def test_relations_do_not_diverge_from_themselves() -> None:
    target = relate(STUDENT, SLOTS, SLOTS, 0.04)
    assert symmetric_divergence(target, STUDENT, STUDENT, SLOTS, 0.04) == 0


def test_without_slots_there_is_no_divergence_and_no_gradient() -> None:
    student = STUDENT.float().requires_grad_()
    nothing = relate(TEACHER, SLOTS[:0], SLOTS[:0], 0.1)
    divergence = symmetric_divergence(nothing, TEACHER, student, SLOTS[:0], 0.1)
    assert divergence.dtype == SLOTS.dtype
    assert divergence == 0
    divergence.backward()
    assert student.grad is not None
    assert (student.grad == 0).all()


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


def test_products_of_half_precision_are_computed_in_full_under_autocast_too() -> None:
    slots, student, teacher = SLOTS.float(), STUDENT.float(), TEACHER.float()
    target = relate(teacher, slots, slots, 0.2)
    full = nt_xent(student, teacher, 0.2), symmetric_divergence(target, teacher, student, slots, 0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = nt_xent(student, teacher, 0.2), symmetric_divergence(target, teacher, student, slots, 0.2)
    assert half == full
