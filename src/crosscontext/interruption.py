"""Ctrl-C and SIGTERM → a run that ends after the current step, with a checkpoint."""

import signal
import threading
from pathlib import Path
from types import FrameType

from crosscontext.errors import InterruptedRunError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """While it is entered, the first signal is only noted; a second one of the same kind acts at once.

    Outside the main thread, where Python delivers no signals, it does nothing.
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
