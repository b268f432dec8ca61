"""What ends a session before its run is finished, with a checkpoint: a step, a time, Ctrl-C or SIGTERM.

settings, signals → **interruption** → the loop
"""

import math
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from crosscontext.errors import InterruptedRunError, StoppedEarlyError
from crosscontext.schedules import Duration, Plan, Timespan, seconds_of

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_RESERVE = 1.0  # seconds


class Interruption:
    """While it is entered, the first signal is only noted; a second one of the same kind acts at once.

    It may be entered again, and still knows what it noted. Outside the main thread, where Python delivers no
    signals, it does nothing.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._note) for each in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)  # type: ignore[arg-type]  # what signal.signal has returned

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        signal.signal(number, self._before[self.signal])  # type: ignore[arg-type]  # as above


class TimeLimit:
    """Says when a session has to end, so that its checkpoint is written within its time.

    Args:
        timespan: from now on; None: without limit.
        clock: gives seconds; it must not jump, as the time of day may.
    """

    def __init__(self, timespan: Timespan | None, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._end = math.inf if timespan is None else clock() + seconds_of(timespan)
        self._longest = 0.0
        self._mark: float | None = None

    def is_near(self) -> bool:
        """Whether twice the longest time between two calls is no longer left; it is called once a step."""
        now = self._clock()
        if self._mark is not None:
            self._longest = max(self._longest, now - self._mark)
        self._mark = now
        return now + 2 * self._longest + _RESERVE >= self._end


class Session:
    """One session of a run.

    Args:
        plan: of the run.
        step: steps done before.
        stop_after: length of the session; None: to the end of the run.
        limit: of its time.
    """

    def __init__(self, plan: Plan, step: int, stop_after: Duration | None, limit: TimeLimit):
        self.plan, self.interruption = plan, Interruption()
        self.stop = plan.total_steps
        """The step after which it ends at last."""
        if stop_after is not None:
            self.stop = min(self.stop, step + max(plan.steps(stop_after), 1))
        self._limit = limit

    def ends(self, step: int) -> bool:
        """Whether the session is over after so many steps; it is asked once a step."""
        near = self._limit.is_near()
        return near or step >= self.stop or self.interruption.signal is not None

    def close(self, step: int, folder: Path) -> None:
        """Tell how the session has ended, where that was not with the run; the checkpoint is saved.

        Raises:
            InterruptedRunError: by a signal.
            StoppedEarlyError: by its length or its time limit.
        """
        go_on = f"the checkpoint is saved. Go on with: crosscontext pretrain --out {folder} --resume"
        if self.interruption.signal is not None:
            name = self.interruption.signal.name
            raise InterruptedRunError(
                f"Interrupted by {name} after step {step}; {go_on}", self.interruption.signal
            )
        if step < self.plan.total_steps:
            why = "as asked" if step >= self.stop else "before the time limit"
            raise StoppedEarlyError(f"Stopped after step {step} of {self.plan.total_steps}, {why}; {go_on}")
