"""How long a run is, and what changes on the way: the one place that converts durations to steps."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

_DURATION = re.compile(r"(?P<amount>\d+(?:\.\d*)?(?:e\d+)?) ?(?P<unit>epochs?|steps?|images?|%)")

_TIMESPAN = re.compile(
    r"(?:(?P<hours>\d+(?:\.\d+)?) ?h)? ?"
    r"(?:(?P<minutes>\d+(?:\.\d+)?) ?min)? ?"
    r"(?:(?P<seconds>\d+(?:\.\d+)?) ?s)?"
)


def _check_duration(text: str) -> str:
    if not _DURATION.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a duration. Write a number with its unit: "
            "'5 epochs', '200 steps', '1e6 images' or '2.5%'"
        )
    return text


def _check_timespan(text: str) -> str:
    if not text.strip() or not _TIMESPAN.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a length of time. Write hours, minutes and seconds with their units: "
            "'2h', '90min', '1h 30min' or '45s'"
        )
    return text


Timespan = Annotated[str, AfterValidator(_check_timespan)]
"""A length of time: ``2h``, ``90min``, ``1h 30min`` or ``45s``."""

Duration = Annotated[str, AfterValidator(_check_duration)]
"""A length of training: ``5 epochs``, ``200 steps``, ``1e6 images`` or ``2.5%`` of the whole run."""


class Plan(NamedTuple):
    """The extent of a run, known before its first step."""

    num_images: int
    """Images in the training set."""

    batch_size: int
    total_steps: int

    num_classes: int = 0
    """Of the labels; 0 without any."""

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the set."""
        return self.num_images // self.batch_size

    def steps(self, duration: Duration) -> int:
        """Convert a duration to steps, to the nearest one."""
        match = _DURATION.fullmatch(duration)
        assert match is not None  # settings are validated
        amount = float(match["amount"])
        unit_in_steps = {
            "s": 1.0,
            "e": float(self.steps_per_epoch),
            "i": 1 / self.batch_size,
            "%": self.total_steps / 100,
        }
        return round(amount * unit_in_steps[match["unit"][0]])


def long_warmups(settings: Iterable[tuple[str, object]], plan: Plan) -> list[str]:
    """Complain of each warm-up that takes more than half of the run, as one meant for a longer run does.

    Args:
        settings: dotted names and values; those called warmup count.
        plan: of the run.
    """
    warmups = [(name, str(value)) for name, value in settings if name.endswith(".warmup")]
    return [
        f"{name} is {value}, {plan.steps(value)} steps, but the run has only {plan.total_steps}. "
        f"Unless this is meant, give it a share of the run: --{name} 5%"
        for name, value in warmups
        if plan.steps(value) > plan.total_steps / 2
    ]


def seconds_of(timespan: Timespan) -> float:
    """Convert a length of time to seconds."""
    match = _TIMESPAN.fullmatch(timespan)
    assert match is not None  # settings are validated
    hours, minutes, seconds = (float(match[unit] or 0) for unit in ("hours", "minutes", "seconds"))
    return hours * 3600 + minutes * 60 + seconds


def warmup_cosine(step: int, *, total_steps: int, warmup_steps: int) -> float:
    """Factor of the learning rate: rises in a line, then falls along half a cosine to 0.

    The published code starts from a factor of exactly 0, which wastes its first step; here the rise is one
    step ahead: step *s* of the warm-up has the factor (s + 1) / warmup_steps.

    Args:
        step: in [0, total_steps).
        total_steps: of the run.
        warmup_steps: length of the rise.

    Returns:
        A factor in (0, 1].
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    fall = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * fall))


def warmup_drops(step: int, *, warmup_steps: int, drops: Sequence[int]) -> float:
    """Factor of the learning rate: rises in a line, then falls to a tenth at each of some steps.

    Args:
        step: from 0 on.
        warmup_steps: length of the rise; its first step is ahead of 0 as in `warmup_cosine`.
        drops: steps from which on the factor is a tenth of what it was.

    Returns:
        A factor in (0, 1].
    """
    rise = min((step + 1) / warmup_steps, 1.0) if warmup_steps else 1.0
    return rise * 0.1 ** sum(step >= drop for drop in drops)


def warmup_fraction(step: int, warmup_steps: int) -> float:
    """Part of a warm-up that is done before this step, in [0, 1]; 1 where there is no warm-up."""
    return min(step / warmup_steps, 1.0) if warmup_steps else 1.0


def steps_within(minutes: float, seconds_per_step: float) -> int:
    """Count the steps that fit into so many minutes, at least one."""
    return max(round(minutes * 60 / seconds_per_step), 1)


def rising_momentum(momentum: float, step: int, total_steps: int) -> float:
    """Momentum of a teacher that rises to 1 along half a cosine (BYOL, arXiv 2006.07733).

    Args:
        momentum: at step 0.
        step: in [0, total_steps).
        total_steps: of the run.
    """
    return 1 - (1 - momentum) * 0.5 * (1 + math.cos(math.pi * step / total_steps))
