"""Long trainings say how far they are; short ones say nothing."""

import torch

from crosscontext.heartbeat import EVERY, heartbeat


def lines_of(seconds_per_step: float, steps: int) -> list[str]:
    """What is said in a training whose steps take so many seconds, and whose loss is 2."""
    lines: list[str] = []
    clock = iter(range(steps + 1))
    beat = heartbeat("encoder: semi", lines.append, clock=lambda: next(clock) * seconds_per_step)
    for step in range(steps):
        beat(step, steps, torch.tensor(2.0))
    return lines


def test_step_loss_and_remaining_time_are_told() -> None:
    lines = lines_of(seconds_per_step=EVERY, steps=10)
    assert len(lines) == 10
    assert lines[3] == "encoder: semi: step 4 of 10, loss 2.000, 1:30 min left"
    assert lines[-1] == "encoder: semi: step 10 of 10, loss 2.000, 0:00 min left"


def test_lines_keep_their_distance() -> None:
    assert len(lines_of(seconds_per_step=1, steps=100)) == 100 // EVERY


def test_a_short_training_says_nothing() -> None:
    assert not lines_of(seconds_per_step=EVERY / 100, steps=50)
