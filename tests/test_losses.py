import math

import pytest
import torch
from torch import Tensor

from crosscontext.losses import info_nce, relation_cross_entropy
from crosscontext.relations import log_relation, relation, similarities

B, D, K = 4, 6, 9


def unit_rows(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, D, generator=generator, dtype=torch.float64))


def test_relation_cross_entropy_is_the_loop_of_its_docstring() -> None:
    target = relation(similarities(unit_rows(B, 0), unit_rows(K, 1)), 0.04)
    prediction = log_relation(similarities(unit_rows(B, 2), unit_rows(K, 1)), 0.1)
    loss = 0.0
    for b in range(B):
        for k in range(K):
            loss -= target[b, k].item() * prediction[b, k].item() / B
    assert relation_cross_entropy(target, prediction).item() == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_info_nce_is_the_loop_of_its_docstring(temperature: float) -> None:
    queries, keys, slots = unit_rows(B, 0), unit_rows(B, 1), unit_rows(K, 2)
    loss = 0.0
    for b in range(B):
        positive = math.exp(sum(queries[b, d].item() * keys[b, d].item() for d in range(D)) / temperature)
        others = 0.0
        for k in range(K):
            cosine = sum(queries[b, d].item() * slots[k, d].item() for d in range(D))
            others += math.exp(cosine / temperature)
        loss -= math.log(positive / (positive + others)) / B
    ours = info_nce(queries, keys, similarities(queries, slots), temperature)
    assert ours.item() == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("num_slots", [1, 9, 4096])
def test_info_nce_of_images_that_are_all_alike_is_the_logarithm_of_the_choices(num_slots: int) -> None:
    alike = unit_rows(1, 0).expand(B, D)
    loss = info_nce(alike, alike, similarities(alike, unit_rows(1, 0).expand(num_slots, D)), 0.2)
    assert loss.item() == pytest.approx(math.log(num_slots + 1))


def test_cross_entropy_of_a_relation_with_itself_is_its_entropy_and_any_other_costs_more() -> None:
    similarity = similarities(unit_rows(B, 0), unit_rows(K, 1))
    target = relation(similarity, 0.1)
    entropy = -(target * target.log()).sum(dim=1).mean()
    own = relation_cross_entropy(target, log_relation(similarity, 0.1))
    torch.testing.assert_close(own, entropy)
    other = relation_cross_entropy(target, log_relation(similarities(unit_rows(B, 2), unit_rows(K, 1)), 0.1))
    assert other > own


def test_uniform_predictions_cost_the_logarithm_of_the_slots_whatever_the_target() -> None:
    target = relation(similarities(unit_rows(B, 0), unit_rows(K, 1)), 0.1)
    loss = relation_cross_entropy(target, log_relation(torch.zeros(B, K, dtype=torch.float64), 0.1))
    assert loss.item() == pytest.approx(math.log(K))


def test_an_empty_memory_gives_a_loss_of_exactly_zero_and_no_gradient() -> None:
    queries, keys = unit_rows(B, 0).requires_grad_(), unit_rows(B, 1)
    nothing = similarities(queries, torch.zeros(0, D, dtype=torch.float64))
    related = relation_cross_entropy(relation(nothing.detach(), 0.04), log_relation(nothing, 0.1))
    contrast = info_nce(queries, keys, nothing, 0.2)
    assert related == 0
    assert contrast == 0
    (related + contrast).backward()
    assert queries.grad is not None
    assert not queries.grad.any()


def test_the_gradient_of_the_cross_entropy_is_prediction_minus_target() -> None:
    target = relation(similarities(unit_rows(B, 0), unit_rows(K, 1)), 0.04)
    logits = similarities(unit_rows(B, 2), unit_rows(K, 1)).requires_grad_()
    relation_cross_entropy(target, log_relation(logits, 0.1)).backward()
    assert logits.grad is not None
    expected = (relation(logits.detach(), 0.1) - target) / (0.1 * B)
    torch.testing.assert_close(logits.grad, expected)


def test_a_query_moves_towards_its_key_and_away_from_the_slots() -> None:
    queries = unit_rows(B, 0).requires_grad_()
    keys, slots = unit_rows(B, 1), unit_rows(K, 2)
    info_nce(queries, keys, similarities(queries, slots), 0.2).backward()
    assert queries.grad is not None
    weights = relation(torch.cat([(queries * keys).sum(1, keepdim=True), queries @ slots.T], 1).detach(), 0.2)
    expected = (weights[:, :1] * keys + weights[:, 1:] @ slots - keys) / (0.2 * B)
    torch.testing.assert_close(queries.grad, expected)
