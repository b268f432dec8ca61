"""Have the features collapsed? Measures of the monitor → **collapse** → green, amber, or red and the end.

The verdict is a function of the lines of metrics.jsonl, so that a resumed run comes to the same one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pydantic import Field

from crosscontext.errors import CollapseError
from crosscontext.floors import RANK, SPREAD, Level
from crosscontext.schedules import Duration, Plan
from crosscontext.settings import Settings

Scalars = Mapping[str, int | float]

_RANK, _SPREAD, _RELATION = "health/rankme_share", "health/feature_std", "health/relation_entropy_"
_SHARP, _FLAT = 0.02, 0.98  # of ln K


class CollapseSettings(Settings):
    """When a run counts as collapsed; the floors are a quarter of the least seen in 120 sound runs."""

    rank: float = Field(RANK.red, ge=0, lt=1)
    """Floor of RankMe (health/rankme_share), as a share of the largest value there is: the width of the
    features, or the number of images that the monitor looks at if that is less. 0: none."""

    spread: float = Field(SPREAD.red, ge=0, lt=1)
    """Floor of the spread of the features (health/feature_std). 0: none."""

    after: Duration = "10%"
    """Measurements before this say nothing."""

    patience: int = Field(2, ge=1)
    """Measurements in a row below a floor that end the run, with exit code 3; fewer are a warning."""


class Verdict(NamedTuple):
    """What a measurement says, with those before it."""

    level: Level
    """Red: the run is to end. Amber: so it will be if it goes on like this."""

    sentence: str
    """What is seen, its likely cause, what to do next."""


class Judge:
    """Looks at each measurement of a run.

    Args:
        settings: floors and patience.
        plan: of the run.
        lines: of metrics.jsonl so far.
        say: is told each amber verdict.
    """

    def __init__(
        self, settings: CollapseSettings, plan: Plan, lines: Sequence[Scalars], say: Callable[[str], None]
    ):
        self._settings, self._plan, self._say = settings, plan, say
        self._measured = [line for line in lines if _RANK in line]

    def collapse(self, step: int, scalars: Scalars) -> CollapseError | None:
        """Judge the measurement of a step, if there is one.

        Args:
            step: steps done.
            scalars: of the step, and of the monitor if it has looked.

        Returns:
            What ends the run, after its checkpoint is saved; None while it may go on.
        """
        if _RANK not in scalars:
            return None
        self._measured.append({"step": step, **scalars})
        verdict = verdict_on(self._measured, self._settings, self._plan)
        if verdict is None:
            return None
        if verdict.level == "red":
            return CollapseError(f"Collapsed at step {step} (red): {verdict.sentence}")
        self._say(f"Close to a collapse at step {step} (amber): {verdict.sentence}")
        return None


def verdict_on(measured: Sequence[Scalars], settings: CollapseSettings, plan: Plan) -> Verdict | None:
    """Judge the last of some measurements.

    Args:
        measured: step and scalars of each, in their order.
        settings: floors and patience.
        plan: of the run.

    Returns:
        None: green.
    """
    first = plan.steps(settings.after)
    low = 0
    for scalars in reversed(measured):
        below = scalars[_RANK] < settings.rank or scalars[_SPREAD] < settings.spread
        if not below or scalars["step"] < first:
            break
        low += 1
    if low == 0:
        return None
    last = measured[-1]
    if last[_SPREAD] < settings.spread:
        seen = f"the spread of the features is {last[_SPREAD]:.3g}, below {settings.spread:g}: all look alike"
    else:
        seen = (
            f"RankMe is {last[_RANK]:.2%} of what it can be, below {settings.rank:.2%}: "
            "the features lie in few directions"
        )
    counted = f"{low} measurement{'s' if low > 1 else ''} in a row; {settings.patience} end the run"
    return Verdict("red" if low >= settings.patience else "amber", f"{seen} ({counted}). {_cause(last)}")


def _cause(scalars: Scalars) -> str:
    entropies = [value for name, value in scalars.items() if name.startswith(_RELATION)]
    if entropies and min(entropies) < _SHARP:
        return (
            "Likely cause: the teacher's relations have become one-hot. "
            "Next: begin again with a higher temperature of the teacher."
        )
    if entropies and min(entropies) > _FLAT:
        return (
            "Likely cause: the teacher's relations are uniform and teach nothing. "
            "Next: begin again with a lower temperature of the teacher; CGH: with a longer method.warmup."
        )
    return (
        "Likely cause: steps too large, or a weight decay that outweighs the loss. Next: look at train/loss "
        "and train/gradient_norm in metrics.jsonl, then begin again with half the optimizer.learning_rate, "
        "a longer optimizer.warmup and the default optimizer.weight_decay."
    )
