import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from crosscontext.losses import info_nce, relation_cross_entropy
from crosscontext.relations import CHUNK, log_partition, relate
from plain_relations import plain_cross_entropy, plain_info_nce, plain_relation, unit_rows

B, D = 3, 5
SIZES = [1, 7, CHUNK, CHUNK + 1, 3 * CHUNK + 7]
ROWS = unit_rows(B, D, seed=0)


@pytest.mark.parametrize("num_slots", SIZES)
@pytest.mark.parametrize("temperature", [0.01, 0.04, 1.0])
def test_a_relation_is_the_softmax_over_all_slots(num_slots: int, temperature: float) -> None:
    slots, values = unit_rows(num_slots, D, 1), unit_rows(num_slots, D + 1, 2)
    probabilities = plain_relation(ROWS, slots, temperature)
    ours = relate(ROWS, slots, values, temperature)
    torch.testing.assert_close(
        ours.log_partition, (ROWS @ slots.T / temperature).logsumexp(1), atol=1e-10, rtol=0
    )
    torch.testing.assert_close(ours.expected, probabilities @ values, atol=1e-10, rtol=0)
    entropy = torch.special.entr(probabilities).sum(dim=1).mean() / math.log(max(num_slots, 2))
    torch.testing.assert_close(ours.entropy, entropy, atol=1e-10, rtol=0)


def test_a_centre_is_subtracted_from_the_similarities() -> None:
    slots, centre = unit_rows(SIZES[-1], D, 1), torch.linspace(-1, 2, SIZES[-1], dtype=torch.float64)
    expected = ((ROWS @ slots.T - centre) / 0.1).softmax(dim=1) @ slots
    ours = relate(ROWS, slots, slots, 0.1, centre).expected
    torch.testing.assert_close(ours, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("descending", [False, True])
def test_the_order_of_the_slots_does_not_matter(descending: bool) -> None:
    slots = unit_rows(SIZES[-1], D, 1)
    ordered = slots[(slots @ ROWS[0]).argsort(descending=descending)]
    torch.testing.assert_close(relate(ROWS, ordered, ordered, 0.04), relate(ROWS, slots, slots, 0.04))


def test_logits_far_beyond_the_range_of_exp_are_no_trouble() -> None:
    slots = torch.cat([-ROWS[:1].float().expand(CHUNK, D), ROWS[:1].float()])
    ours = relate(ROWS[:1].float(), slots, slots, 1e-3)
    torch.testing.assert_close(ours.log_partition, torch.tensor([1000.0]))
    torch.testing.assert_close(ours.expected, ROWS[:1].float())
    assert ours.entropy == 0


@pytest.mark.parametrize("num_slots", [2, 64, 3 * CHUNK])
def test_a_uniform_relation_has_entropy_one(num_slots: int) -> None:
    alike = ROWS[:1].expand(num_slots, D)
    assert relate(ROWS, alike, alike, 0.1).entropy.item() == pytest.approx(1)


def test_a_relation_between_half_of_the_slots_has_the_entropy_of_that_half() -> None:
    slots = torch.cat([ROWS[:1].expand(4, D), -ROWS[:1].expand(12, D)])
    assert relate(ROWS[:1], slots, slots, 0.01).entropy.item() == pytest.approx(0.5)


@pytest.mark.parametrize("num_slots", [0, 1])
def test_too_few_slots_to_differ_have_entropy_zero(num_slots: int) -> None:
    slots = ROWS[:num_slots]
    assert relate(ROWS, slots, slots, 0.1).entropy == 0


def test_no_slots_have_a_log_partition_of_minus_infinity_and_no_gradient() -> None:
    rows = ROWS.clone().requires_grad_()
    result = log_partition(rows, ROWS[:0], 0.1)
    assert (result == -math.inf).all()
    result.sum().backward()
    assert rows.grad is not None
    assert (rows.grad == 0).all()


@pytest.mark.parametrize("num_slots", [7, CHUNK + 1])
def test_the_gradient_of_the_log_partition_is_that_of_finite_differences(num_slots: int) -> None:
    slots = unit_rows(num_slots, D, 1)
    assert torch.autograd.gradcheck(
        lambda rows: log_partition(rows, slots, 0.3), ROWS.clone().requires_grad_()
    )


def test_slots_get_no_gradient_and_may_change_before_backward() -> None:
    slots, rows = unit_rows(9, D, 1).requires_grad_(), ROWS.clone().requires_grad_()
    result = log_partition(rows, slots, 0.1)
    expected = relate(ROWS, slots, slots, 0.1).expected / 0.1
    with torch.no_grad():
        slots.zero_()
    result.sum().backward()
    assert rows.grad is not None
    assert slots.grad is None
    torch.testing.assert_close(rows.grad, expected)


class Recorder(TorchDispatchMode):
    """Notes name and size of the result of every operation, in backward too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.results: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # torch's
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else (result,):
            if isinstance(each, Tensor):
                self.results.append((str(func), each.numel()))
        return result


def test_without_a_gradient_no_slots_are_summed() -> None:
    slots, rows = unit_rows(9, D, 1), ROWS.clone().requires_grad_()
    summed = []
    for embeddings in (rows, ROWS):
        recorder = Recorder()
        with recorder:
            log_partition(embeddings, slots, 0.1)
        summed.append([size for name, size in recorder.results if "addmm" in name])
    assert summed == [[B * D], [0]]


def streamed(student: Tensor, teacher: Tensor, slots: Tensor) -> Tensor:
    target = relate(teacher, slots, slots, 0.04)
    return relation_cross_entropy(target, student, slots, 0.1) + info_nce(student, teacher, slots, 0.2)


def plain(student: Tensor, teacher: Tensor, slots: Tensor) -> Tensor:
    target = plain_relation(teacher, slots, 0.04)
    related = plain_cross_entropy(target, student, slots, 0.1)
    return related + plain_info_nce(student, teacher, slots, 0.2)


def largest_tensor(loss: Callable[[Tensor, Tensor, Tensor], Tensor], num_slots: int) -> int:
    batch = 16
    slots = unit_rows(num_slots, D, 2)
    student, teacher = unit_rows(batch, D, 0).requires_grad_(), unit_rows(batch, D, 1)
    recorder = Recorder()
    with recorder:
        loss(student, teacher, slots).backward()
    assert student.grad is not None
    assert student.grad.any()
    return max(size for _, size in recorder.results)


def test_no_tensor_of_forward_or_backward_grows_with_the_memory() -> None:
    assert largest_tensor(streamed, 2 * CHUNK) == largest_tensor(streamed, 20 * CHUNK)
    assert largest_tensor(plain, 20 * CHUNK) >= 16 * 20 * CHUNK


@pytest.mark.parametrize("embedded", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(embedded: torch.dtype) -> None:
    slots = unit_rows(CHUNK + 9, 64, 2, torch.float32)
    results = []
    for enabled in (False, True):
        student = unit_rows(8, 64, 0, embedded).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = streamed(student, unit_rows(8, 64, 1, embedded), slots)
        assert loss.dtype == torch.float32
        loss.backward()
        assert student.grad is not None
        results.append((loss.detach(), student.grad))
    torch.testing.assert_close(*results, atol=0, rtol=0)
