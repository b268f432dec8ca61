"""What ends a session before its run is finished, with a checkpoint: a step, a time, Ctrl-C or SIGTERM.

Of several processes all end after the same step, whichever of them got the signal.

settings, signals → **interruption** → the loop
"""

import math
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from crosscontext.distributed import Vote, is_launched
from crosscontext.errors import InterruptedRunError, StoppedEarlyError
from crosscontext.schedules import Duration, Plan, Timespan, seconds_of

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TIME_IS_UP = 1  # below both
_RESERVE = 1.0  # seconds


class Interruption:
    """While it is entered, the first signal is only noted; a second one of the same kind acts at once.

    It may be entered again, and still knows what it noted. Under a launcher every signal is only noted: it
    passes a Ctrl-C on to processes that have got it already, and ends them after half a minute. Outside the
    main thread, where Python delivers no signals, nothing happens.

    Attributes:
        signal: what ends the run; set by `ask`.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._noted = 0
        self._vote = Vote()
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._note) for each in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)  # type: ignore[arg-type]  # what signal.signal has returned

    def _note(self, number: int, _: FrameType | None) -> None:
        self._noted = number
        if not is_launched():
            signal.signal(number, self._before[signal.Signals(number)])  # type: ignore[arg-type]  # as above

    def ask(self, otherwise: int = 0) -> int:
        """Find out, once a step, what this process or another one has noted.

        Args:
            otherwise: a number below those of the signals, which counts where there is none.

        Returns:
            The number of a signal, or the largest of what all processes gave; with several, one step later.
        """
        number = self._vote.largest(self._noted or otherwise)
        self.signal = signal.Signals(number) if number in _SIGNALS else None
        return number

    def close(self) -> None:
        """Leave nothing on its way to the other processes; all of them have asked equally often."""
        self._vote.close()


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
        """Whether the session is over after so many steps; all processes ask, once a step."""
        noted = self.interruption.ask(_TIME_IS_UP if self._limit.is_near() else 0)
        return noted > 0 or step >= self.stop

    def close(self, step: int, folder: Path) -> None:
        """Tell how the session has ended, where that was not with the run; the checkpoint is saved.

        Raises:
            InterruptedRunError: by a signal.
            StoppedEarlyError: by its length or its time limit.
        """
        go_on = f"the checkpoint is saved. Go on with: crosscontext pretrain --out {folder} --resume"
        self.interruption.close()
        if self.interruption.signal is not None:
            name = self.interruption.signal.name
            raise InterruptedRunError(
                f"Interrupted by {name} after step {step}; {go_on}", self.interruption.signal
            )
        if step < self.plan.total_steps:
            why = "as asked" if step >= self.stop else "before the time limit"
            raise StoppedEarlyError(f"Stopped after step {step} of {self.plan.total_steps}, {why}; {go_on}")
