import math

import pytest
import torch

from crosscontext.relations import log_relation, relation, relation_entropy, similarities

GENERATOR = torch.Generator().manual_seed(0)
ROWS = torch.nn.functional.normalize(torch.randn(3, 5, generator=GENERATOR, dtype=torch.float64))
SLOTS = torch.nn.functional.normalize(torch.randn(7, 5, generator=GENERATOR, dtype=torch.float64))


def test_similarities_are_the_cosines_of_all_pairs() -> None:
    expected = [[sum(a * b for a, b in zip(row, slot, strict=True)) for slot in SLOTS] for row in ROWS]
    torch.testing.assert_close(similarities(ROWS, SLOTS), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("temperature", [0.04, 0.1, 1.0])
def test_a_relation_is_the_naive_softmax_over_the_slots(temperature: float) -> None:
    similarity = similarities(ROWS, SLOTS)
    for row, probabilities in zip(similarity.tolist(), relation(similarity, temperature), strict=True):
        weights = [math.exp(value / temperature) for value in row]
        expected = torch.tensor([weight / sum(weights) for weight in weights], dtype=torch.float64)
        torch.testing.assert_close(probabilities, expected)


def test_the_logarithm_of_a_relation_stays_finite_where_the_relation_underflows() -> None:
    similarity = torch.tensor([[1.0, -1.0]])
    assert relation(similarity, 0.01)[0, 1] == 0
    torch.testing.assert_close(log_relation(similarity, 0.01), torch.tensor([[0.0, -200.0]]))


def test_the_order_of_the_slots_does_not_matter() -> None:
    order = torch.tensor([4, 1, 6, 0, 2, 5, 3])
    torch.testing.assert_close(
        relation(similarities(ROWS, SLOTS[order]), 0.1), relation(similarities(ROWS, SLOTS), 0.1)[:, order]
    )


@pytest.mark.parametrize("num_slots", [2, 64, 4096])
def test_a_uniform_relation_has_entropy_one(num_slots: int) -> None:
    uniform = torch.full((3, num_slots), 1 / num_slots)
    assert relation_entropy(uniform).item() == pytest.approx(1, abs=1e-5)


def test_a_relation_to_a_single_slot_has_entropy_zero() -> None:
    assert relation_entropy(torch.eye(5)) == 0


def test_a_relation_between_half_of_the_slots_has_the_entropy_of_that_half() -> None:
    halves = torch.tensor([[0.25] * 4 + [0.0] * 12])
    assert relation_entropy(halves).item() == pytest.approx(0.5)


@pytest.mark.parametrize("num_slots", [0, 1])
def test_too_few_slots_to_differ_have_entropy_zero(num_slots: int) -> None:
    assert relation_entropy(relation(torch.zeros(3, num_slots), 0.1)) == 0
