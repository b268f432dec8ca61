import io
import warnings
from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from crosscontext.memory import Memory, MemorySettings, auto_slots

WIDTHS = {"global": 3, "hyper": 2}


def keys(first: int, count: int) -> dict[str, Tensor]:
    """Rows that name their image: the same number in every context."""
    images = torch.arange(first, first + count, dtype=torch.float32)[:, None]
    return {context: images.expand(count, width) for context, width in WIDTHS.items()}


def images_in(memory: Memory) -> list[int]:
    """Which image is in each filled slot; the same in all contexts."""
    by_context = [memory.slots(context)[:, 0].int().tolist() for context in WIDTHS]
    assert by_context[0] == by_context[1]
    return [int(image) for image in by_context[0]]


def test_an_empty_memory_has_no_slots_until_they_are_pushed() -> None:
    memory = Memory(5, WIDTHS)
    assert (memory.filled, memory.pointer) == (0, 0)
    assert memory.slots("global").shape == (0, 3)
    memory.push(keys(0, 2))
    assert (memory.filled, memory.pointer) == (2, 2)
    assert images_in(memory) == [0, 1]


def test_push_wraps_around_and_keeps_slots_aligned() -> None:
    memory = Memory(5, WIDTHS)
    for first in range(0, 9, 3):
        memory.push(keys(first, 3))
    assert images_in(memory) == [5, 6, 7, 8, 4]
    assert (memory.filled, memory.pointer) == (5, 4)


def test_of_a_batch_larger_than_the_memory_the_last_images_stay() -> None:
    memory = Memory(4, WIDTHS)
    memory.push(keys(0, 3))
    memory.push(keys(3, 7))
    assert sorted(images_in(memory)) == [6, 7, 8, 9]
    assert images_in(memory)[memory.pointer] == 6  # the oldest one goes next


def test_a_random_start_fills_all_slots_with_unit_rows() -> None:
    memory = Memory(64, WIDTHS, start="random")
    assert (memory.filled, memory.pointer) == (64, 0)
    for context, width in WIDTHS.items():
        assert memory.slots(context).shape == (64, width)
        torch.testing.assert_close(memory.slots(context).norm(dim=1), torch.ones(64))
        assert len(memory.slots(context).unique(dim=0)) == 64


def test_the_first_push_after_a_random_start_goes_to_slot_zero() -> None:
    memory = Memory(64, WIDTHS, start="random")
    random = memory.slots("global").clone()
    memory.push(keys(0, 3))
    assert memory.slots("global")[:3, 0].tolist() == [0, 1, 2]
    assert torch.equal(memory.slots("global")[3:], random[3:])


def test_the_start_does_not_change_what_is_drawn_after_it() -> None:
    drawn = []
    for start in ("empty", "random"):
        torch.manual_seed(0)
        MemorySettings(slots=8, start=start).build(WIDTHS)
        drawn.append(torch.rand(1))
    assert drawn[0] == drawn[1]


def test_pushed_keys_carry_no_gradient() -> None:
    memory = Memory(4, WIDTHS)
    memory.push({context: rows.clone().requires_grad_() for context, rows in keys(0, 2).items()})
    assert not memory.slots("global").requires_grad


@pytest.mark.parametrize("pushed", [3, 8, 13])
def test_slots_and_pointer_survive_a_file(pushed: int) -> None:
    memory = Memory(8, WIDTHS)
    memory.push(keys(0, pushed))
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    restored = Memory(8, WIDTHS)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert (restored.pointer, restored.filled) == (memory.pointer, memory.filled)
    for each in (memory, restored):
        each.push(keys(pushed, 3))
    assert images_in(restored) == images_in(memory)


@settings(deadline=None, database=None, derandomize=True, max_examples=100)
@given(num_slots=st.integers(1, 20), batches=st.lists(st.integers(1, 30), max_size=12))
def test_the_ring_holds_what_a_bounded_queue_holds(num_slots: int, batches: list[int]) -> None:
    memory, queue = Memory(num_slots, WIDTHS), deque[int](maxlen=num_slots)
    first = 0
    for count in batches:
        memory.push(keys(first, count))
        queue.extend(range(first, first + count))
        first += count
        ring = images_in(memory)
        oldest = memory.pointer if memory.filled == num_slots else 0
        assert ring[oldest:] + ring[:oldest] == list(queue)
        assert all(slot == image % num_slots for slot, image in enumerate(ring)) or len(ring) < num_slots


@pytest.mark.parametrize(
    ("num_images", "slots"),
    [
        (1, 1),
        (9, 9),
        (100, 100),
        (256, 256),
        (3_000, 256),
        (5_120, 512),
        (10_000, 512),
        (50_000, 4_096),
        (100_000, 8_192),
        (1_281_167, 65_536),
        (10**9, 65_536),
    ],
)
def test_auto_takes_the_power_of_two_up_to_a_tenth_of_the_set(num_images: int, slots: int) -> None:
    assert auto_slots(num_images) == slots
    assert MemorySettings().resolve(num_images).slots == slots


def test_more_slots_than_images_are_warned_about_with_what_will_happen() -> None:
    with pytest.warns(UserWarning, match="65 slots, but the set only 64 images.*several embeddings"):
        settled = MemorySettings(slots=65).resolve(64)
    assert settled.slots == 65


@pytest.mark.parametrize("slots", ["auto", 64])
def test_as_many_slots_as_images_are_no_reason_for_a_warning(slots: str | int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settled = MemorySettings.model_validate({"slots": slots}).resolve(64)
    assert settled.slots == 64
