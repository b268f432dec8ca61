import math

import pytest
import torch

from crosscontext.losses import info_nce, relation_cross_entropy
from crosscontext.relations import CHUNK, Relation, relate
from plain_relations import plain_cross_entropy, plain_info_nce, plain_relation, unit_rows

B, D, K = 4, 6, 9
STUDENT, TEACHER, SLOTS = (unit_rows(count, D, seed) for seed, count in enumerate((B, B, K)))
OTHER_TEACHER, OTHER_SLOTS = unit_rows(B, D + 2, 3), unit_rows(K, D + 2, 4)  # in another context


def target_of(num_slots: int = K) -> Relation:
    return relate(OTHER_TEACHER, OTHER_SLOTS[:num_slots], SLOTS[:num_slots], 0.04)


@pytest.mark.parametrize("temperature", [0.04, 1.0])
def test_relation_cross_entropy_is_the_loop_of_its_docstring(temperature: float) -> None:
    loss = 0.0
    for b in range(B):
        target = [math.exp(OTHER_TEACHER[b] @ OTHER_SLOTS[k] / 0.04) for k in range(K)]
        prediction = [math.exp(STUDENT[b] @ SLOTS[k] / temperature) for k in range(K)]
        for k in range(K):
            loss -= target[k] / sum(target) * math.log(prediction[k] / sum(prediction)) / B
    ours = relation_cross_entropy(target_of(), STUDENT, SLOTS, temperature)
    assert ours.item() == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_info_nce_is_the_loop_of_its_docstring(temperature: float) -> None:
    loss = 0.0
    for b in range(B):
        positive = math.exp(STUDENT[b] @ TEACHER[b] / temperature)
        others = sum(math.exp(STUDENT[b] @ SLOTS[k] / temperature) for k in range(K))
        loss -= math.log(positive / (positive + others)) / B
    assert info_nce(STUDENT, TEACHER, SLOTS, temperature).item() == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("own_share", [0.0, 0.3, 1.0])
def test_with_a_slot_of_its_own_an_image_is_compared_with_one_more(own_share: float) -> None:
    loss, temperature = 0.0, 0.1
    for b in range(B):
        target = [math.exp(OTHER_TEACHER[b] @ OTHER_SLOTS[k] / 0.04) for k in range(K)]
        target = [own_share, *((1 - own_share) * t / sum(target) for t in target)]
        prediction = [math.exp(STUDENT[b] @ slot / temperature) for slot in (TEACHER[b], *SLOTS)]
        for k in range(1 + K):
            loss -= target[k] * math.log(prediction[k] / sum(prediction)) / B
    ours = relation_cross_entropy(target_of(), STUDENT, SLOTS, temperature, TEACHER, own_share)
    assert ours.item() == pytest.approx(loss, rel=1e-12)
    if own_share == 1:
        assert ours.item() == pytest.approx(info_nce(STUDENT, TEACHER, SLOTS, temperature).item(), rel=1e-12)


def test_the_share_of_its_own_slot_may_differ_from_image_to_image() -> None:
    shares = torch.linspace(0, 1, B, dtype=torch.float64)
    each = [
        relation_cross_entropy(
            relate(OTHER_TEACHER[[b]], OTHER_SLOTS, SLOTS, 0.04),
            STUDENT[[b]],
            SLOTS,
            0.1,
            TEACHER[[b]],
            float(shares[b]),
        )
        for b in range(B)
    ]
    together = relation_cross_entropy(target_of(), STUDENT, SLOTS, 0.1, TEACHER, shares)
    torch.testing.assert_close(together, torch.stack(each).mean())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("num_slots", [1, 9, 3 * CHUNK + 5])
@pytest.mark.parametrize("temperature", [0.01, 0.1])
def test_losses_and_gradients_equal_those_with_the_matrix_written_out(
    dtype: torch.dtype, tolerance: float, num_slots: int, temperature: float
) -> None:
    slots, other_slots = unit_rows(num_slots, D, 5), unit_rows(num_slots, D + 2, 6)
    plain_student, student = STUDENT.clone().requires_grad_(), STUDENT.to(dtype, copy=True).requires_grad_()
    expected = [
        plain_cross_entropy(
            plain_relation(OTHER_TEACHER, other_slots, 0.04), plain_student, slots, temperature
        ),
        plain_info_nce(plain_student, TEACHER, slots, temperature),
    ]
    target = relate(OTHER_TEACHER.to(dtype), other_slots.to(dtype), slots.to(dtype), 0.04)
    ours = [
        relation_cross_entropy(target, student, slots.to(dtype), temperature),
        info_nce(student, TEACHER.to(dtype), slots.to(dtype), temperature),
    ]
    for loss, plain_loss in zip(ours, expected, strict=True):
        (gradient,) = torch.autograd.grad(loss, student)
        (plain_gradient,) = torch.autograd.grad(plain_loss, plain_student)
        assert loss.dtype == gradient.dtype == dtype
        torch.testing.assert_close(loss.double(), plain_loss, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(gradient.double(), plain_gradient, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("num_slots", [1, 9, 4096])
def test_info_nce_of_images_that_are_all_alike_is_the_logarithm_of_the_choices(num_slots: int) -> None:
    alike = STUDENT[:1]
    loss = info_nce(alike.expand(B, D), alike.expand(B, D), alike.expand(num_slots, D), 0.2)
    assert loss.item() == pytest.approx(math.log(num_slots + 1))


def test_cross_entropy_of_a_relation_with_itself_is_its_entropy_and_any_other_costs_more() -> None:
    target = relate(STUDENT, SLOTS, SLOTS, 0.1)
    own = relation_cross_entropy(target, STUDENT, SLOTS, 0.1)
    torch.testing.assert_close(own, target.entropy * math.log(K))
    assert relation_cross_entropy(target, TEACHER, SLOTS, 0.1) > own


def test_uniform_predictions_cost_the_logarithm_of_the_slots_whatever_the_target() -> None:
    alike = SLOTS[:1].expand(K, D)
    target = relate(OTHER_TEACHER, OTHER_SLOTS, alike, 0.04)
    assert relation_cross_entropy(target, STUDENT, alike, 0.1).item() == pytest.approx(math.log(K))


def test_an_empty_memory_gives_a_loss_of_exactly_zero_and_no_gradient() -> None:
    student = STUDENT.float().requires_grad_()
    related = relation_cross_entropy(target_of(0), student, SLOTS[:0], 0.1)
    contrast = info_nce(student, TEACHER, SLOTS[:0], 0.2)
    assert related.dtype == contrast.dtype == SLOTS.dtype
    assert related == 0
    assert contrast == 0
    (related + contrast).backward()
    assert student.grad is not None
    assert (student.grad == 0).all()


def test_the_gradient_of_the_cross_entropy_leads_from_the_predicted_slot_to_the_expected_one() -> None:
    student = STUDENT.clone().requires_grad_()
    relation_cross_entropy(target_of(), student, SLOTS, 0.1).backward()
    predicted = plain_relation(STUDENT, SLOTS, 0.1) @ SLOTS
    taught = plain_relation(OTHER_TEACHER, OTHER_SLOTS, 0.04) @ SLOTS
    assert student.grad is not None
    torch.testing.assert_close(student.grad, (predicted - taught) / (0.1 * B))


def test_a_query_moves_towards_its_key_and_away_from_the_slots() -> None:
    queries = STUDENT.clone().requires_grad_()
    info_nce(queries, TEACHER, SLOTS, 0.2).backward()
    choices = torch.cat([(STUDENT * TEACHER).sum(1, keepdim=True), STUDENT @ SLOTS.T], dim=1) / 0.2
    weights = choices.softmax(dim=1)
    expected = (weights[:, :1] * TEACHER + weights[:, 1:] @ SLOTS - TEACHER) / (0.2 * B)
    assert queries.grad is not None
    torch.testing.assert_close(queries.grad, expected)
