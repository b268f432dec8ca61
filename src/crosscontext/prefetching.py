"""Loading while the network computes: keys → **prefetching** → what they stand for, batch by batch."""

import math
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
    workers = max(workers, 1)

    def load_all(keys: Sequence[Key]) -> list[Loaded]:
        return [load(key) for key in keys]

    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[list[Future[list[Loaded]]]] = deque()
        for batch in batches:
            # a share for each thread: to hand over a small image costs more than to load it
            shares = in_batches(len(batch), math.ceil(len(batch) / workers) or 1)
            waiting.append([pool.submit(load_all, batch[share.start : share.stop]) for share in shares])
            if len(waiting) > _BATCHES_AHEAD:
                yield _all_of(waiting.popleft())
        while waiting:
            yield _all_of(waiting.popleft())


def _all_of(shares: Iterable[Future[list[Loaded]]]) -> list[Loaded]:
    return [loaded for share in shares for loaded in share.result()]


def in_batches(size: int, batch_size: int) -> Iterator[range]:
    """Divide 0 … size − 1 into batches, of which the last one may be smaller."""
    for start in range(0, size, batch_size):
        yield range(start, min(start + batch_size, size))
