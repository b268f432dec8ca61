import threading
from collections.abc import Iterator

import pytest

from crosscontext.prefetching import ahead


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_batches_come_in_order_whatever_the_number_of_threads(workers: int) -> None:
    batches = [[3, 1], [], [4], [1, 5, 9]]
    assert list(ahead(lambda key: -key, batches, workers)) == [[-3, -1], [], [-4], [-1, -5, -9]]


def test_only_a_few_batches_are_asked_for_before_they_are_needed() -> None:
    asked: list[int] = []

    def batches() -> Iterator[list[int]]:
        for number in range(100):
            asked.append(number)
            yield [number]

    loaded = ahead(lambda key: key, batches(), 2)
    assert next(loaded) == [0]
    assert asked == [0, 1, 2]


def test_an_error_reaches_whoever_asks() -> None:
    def load(key: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        return 1 // key

    loaded = ahead(load, [[1], [0]], 2)
    assert next(loaded) == [1]
    with pytest.raises(ZeroDivisionError):
        next(loaded)
