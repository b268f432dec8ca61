"""Ctrl-C and SIGTERM → a run that ends after the current step, with a checkpoint.

Of several processes all end after the same step, whichever of them got the signal.
"""

import signal
import threading
from pathlib import Path
from types import FrameType

from crosscontext.distributed import Vote, is_launched
from crosscontext.errors import InterruptedRunError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """While it is entered, the first signal is only noted; a second one of the same kind acts at once.

    Not so under a launcher, which passes a Ctrl-C on to processes that have got it already, and which ends
    them after half a minute. Outside the main thread, where Python delivers no signals, nothing happens.

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

    def ask(self) -> None:
        """Find out, once a step, whether this or another process has got a signal."""
        number = self._vote.largest(self._noted)
        self.signal = signal.Signals(number) if number else None

    def raise_stopped(self, step: int, folder: Path) -> None:
        """End the run.

        Raises:
            InterruptedRunError: always.
        """
        assert self.signal is not None
        raise InterruptedRunError(
            f"Interrupted by {self.signal.name} after step {step}; the checkpoint is saved. "
            f"Go on with: crosscontext pretrain --out {folder} --resume",
            self.signal,
        )
