"""A line now and then from trainings that last: steps → **heartbeat** → whoever is told."""

import time
from collections.abc import Callable

from torch import Tensor

Beat = Callable[[int, int, Tensor], None]
"""Is told of each step: its number, from 0; how many there are; its loss."""

EVERY = 15.0
"""Seconds between two lines; what takes less says nothing."""


def silent(step: int, steps: int, loss: Tensor) -> None:
    """Say nothing."""


def heartbeat(
    what: str,
    notify: Callable[[str], None],
    every: float = EVERY,
    clock: Callable[[], float] = time.monotonic,
) -> Beat:
    """Make a function that is told of each step, and says now and then how far the training is.

    Args:
        what: is trained; the lines begin with it.
        notify: is told the lines.
        every: seconds between two lines.
        clock: gives seconds.
    """
    began = last = clock()

    def beat(step: int, steps: int, loss: Tensor) -> None:
        nonlocal last
        now = clock()
        if now - last < every:
            return
        last = now
        done = step + 1
        left = round((now - began) / done * (steps - done))
        notify(
            f"{what}: step {done} of {steps}, loss {loss.item():.3f}, {left // 60}:{left % 60:02d} min left"
        )

    return beat
