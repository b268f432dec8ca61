from typing import Any

import pytest

from bench import processes
from crosscontext.planning import PretrainSettings
from crosscontext.schedules import Plan
from crosscontext.traffic import Message, messages
from crosscontext.workload import workload_of
from test_workload import small

SPLIT = {"name": "split", "groups": 4}
PLAN = Plan(1000, 8, 100)


def named(settings: PretrainSettings, count: int) -> dict[str, Message]:
    sent = messages(settings, workload_of(settings, PLAN, 8 // count), count)
    return {message.what: message for message in sent}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("cgh", {}),
        ("cgh", {"batch_norm": SPLIT}),
        ("simclr", {}),
        ({"name": "simcgh", "local_views": 2}, {"views": {"local": {"image_size": 16}}}),
        ({"name": "dino", "prototypes": 32}, {}),
    ],
)
def test_two_processes_hand_over_what_was_forecast(method: Any, changes: dict[str, Any]) -> None:
    counted = processes.count_bytes(small(method, **changes), 2)
    assert counted.payload == counted.predicted
    assert counted.payload > 100_000
    if changes.get("batch_norm") != SPLIT:  # a shuffle sends by chance a little less or more than on average
        assert counted.least <= counted.sent <= counted.least * 1.05


def test_one_process_sends_nothing() -> None:
    assert named(small(), 1) == {}


def test_statistics_are_sent_with_sync_alone() -> None:
    assert {"BatchNorm, forward", "BatchNorm, backward"} <= named(small(), 2).keys()
    split = named(small(batch_norm=SPLIT), 2)
    assert {"images to shuffle", "shuffled embeddings"} <= split.keys()
    assert not any(what.startswith("BatchNorm") for what in split)
    assert named(small(batch_norm="local"), 2).keys() == split.keys() - {
        "images to shuffle",
        "shuffled embeddings",
    }


def test_keys_are_two_rows_an_image() -> None:
    assert (
        named(small(), 2)["keys of the memory"].payload == 4 * 2 * 128 * 4
    )  # images, contexts, width, bytes


def test_a_ring_sends_twice_the_gradients_at_most() -> None:
    gradients = Message("gradients", "all_reduce", 1000, 1)
    assert [gradients.sent(count) for count in (1, 2, 4, 1000)] == [0, 1000, 1500, 1998]
    assert Message("keys", "all_gather", 10, 1).sent(4) == 30
    assert Message("images", "all_to_all", 100, 1).sent(4) == 75
