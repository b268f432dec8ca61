"""The numbers of a run → its loggers, each in a thread of its own, so that none can hold the run up.

loggers → **telling** → the loop
"""

import queue
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple

from crosscontext.loggers import LoggedRun, Logger

_PATIENCE = 30.0  # seconds for which the end of a run waits for a logger that still has something to send
_LINES_WAITING = 10_000


class _Line(NamedTuple):
    step: int
    scalars: dict[str, float]


class _End(NamedTuple):
    failed: bool


class Telling:
    """Tells loggers what is logged, from when it is entered until it is left.

    A logger that fails, or that falls ten thousand lines behind, is switched off, which is said once.

    Args:
        kinds: of the loggers, by name.
        run: what they learn; `files` is the folder in which each gets one of its own.
        told_until: last step that an earlier session told, which may be later than where this one begins.
        say: is told of failures in one line.
    """

    def __init__(
        self,
        kinds: Mapping[str, type[Logger]],
        run: LoggedRun,
        told_until: int,
        say: Callable[[str], None],
    ):
        self._outlets = [_Outlet(name, kind, run, told_until, say) for name, kind in kinds.items()]

    def __enter__(self) -> "Telling":
        for outlet in self._outlets:
            outlet.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for outlet in self._outlets:
            outlet.end(failed=kind is not None)
        for outlet in self._outlets:
            outlet.wait()

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Pass the numbers of a step on; returns at once."""
        for outlet in self._outlets:
            outlet.log(_Line(step, dict(scalars)))


class _Outlet:
    def __init__(
        self, name: str, kind: type[Logger], run: LoggedRun, told_until: int, say: Callable[[str], None]
    ):
        self._name, self._kind, self._say = name, kind, say
        self._run = run._replace(files=run.files / name)
        self._skipped_until = 0 if kind.rewinds else told_until
        self._lines: queue.Queue[_Line | _End] = queue.Queue(_LINES_WAITING)
        self._is_off = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"logger {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def log(self, line: _Line) -> None:
        if line.step > self._skipped_until and not self._is_off.is_set():
            self._put(line)

    def end(self, *, failed: bool) -> None:
        if not self._is_off.is_set():
            self._put(_End(failed))

    def wait(self) -> None:
        if not self._is_off.is_set():
            self._thread.join(_PATIENCE)
            if self._thread.is_alive():
                self._switch_off(f"it did not end within {_PATIENCE:g} seconds")

    def _put(self, line: _Line | _End) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._switch_off(f"it is {_LINES_WAITING} lines behind")

    def _work(self) -> None:
        try:
            self._run.files.mkdir(parents=True, exist_ok=True)
            logger = self._kind(self._run)
            while isinstance(line := self._lines.get(), _Line):
                logger.log(*line)
                if self._is_off.is_set():
                    return
            logger.close(line.failed)
        except BaseException as error:  # also SystemExit, by which some libraries give up
            self._switch_off(f"{type(error).__name__}: {error}".partition("\n")[0])

    def _switch_off(self, cause: str) -> None:
        if not self._is_off.is_set():
            self._is_off.set()
            self._say(
                f"warning: the logger {self._name} is switched off: {cause.removesuffix('.')}. Training goes "
                "on, and metrics.jsonl has all numbers; --resume tries the logger again."
            )
