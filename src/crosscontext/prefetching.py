"""Loading while the network computes: keys → **prefetching** → what they stand for, batch by batch."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Loaded = TypeVar("Loaded")

_BATCHES_AHEAD = 2


def ahead(
    load: Callable[[Key], Loaded], batches: Iterable[Sequence[Key]], workers: int
) -> Iterator[list[Loaded]]:
    """Load from a pool of threads, in order; only a few batches wait in memory, however many there are.

    Args:
        load: is called once for each key, from several threads.
        batches: of keys.
        workers: threads; 0 counts as 1.

    Yields:
        What was loaded for the keys of each batch.
    """
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        waiting: deque[list[Future[Loaded]]] = deque()
        for batch in batches:
            waiting.append([pool.submit(load, key) for key in batch])
            if len(waiting) > _BATCHES_AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]


def in_batches(size: int, batch_size: int) -> Iterator[range]:
    """Divide 0 … size − 1 into batches, of which the last one may be smaller."""
    for start in range(0, size, batch_size):
        yield range(start, min(start + batch_size, size))
