from datetime import timedelta

import pytest
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from crosscontext import joining
from crosscontext.errors import DataError
from crosscontext.joining import joined


def boards(count: int = 3) -> list[joining._Board]:
    store = HashStore()
    store.set_timeout(timedelta(seconds=5))
    return [joining._Board(store, rank, count) for rank in range(count)]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_GRACE", 0.2)


def test_the_first_reason_stays() -> None:
    first, second, _ = boards()
    assert second.post("the disk is full", 1).rank == 1
    assert first.post("the weights are NaN", 7) == (1, "the disk is full", 1)


def test_who_lost_the_connection_learns_the_reason_and_leaves_with_its_code() -> None:
    first, second, _ = boards()
    second.post("Interrupted by SIGTERM", 143)
    explained = first.explain(RuntimeError("gloo: connection closed"))
    assert (str(explained), explained.exit_code, explained.told) == ("Interrupted by SIGTERM", 143, True)


def test_a_process_that_says_nothing_is_named_once(impatient: None) -> None:
    first, _, third = boards()
    explained = first.explain(RuntimeError("gloo: timed out"))
    assert str(explained).startswith("No answer from process 1, 2 of 3: killed, hanging, or cut off.")
    assert explained.told is False
    assert third.explain(RuntimeError("gloo: timed out")).told is True


def test_when_all_answer_one_was_too_late(impatient: None) -> None:
    first, second = boards(2)
    second._store.set("here/1", "")
    assert "All 2 processes answer, but one of them was too late: gloo: 3 s." in str(
        first.explain(RuntimeError("gloo: 3 s"))
    )


def test_without_a_launcher_nothing_happens() -> None:
    with joined(minutes=1.0):
        assert not dist.is_initialized()
    error = DataError("empty")
    with pytest.raises(DataError), joined(minutes=1.0):
        raise error
    assert error.told is None
