"""What a logger offers: made for a run, then told its numbers, then closed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple


class LoggedRun(NamedTuple):
    """What a logger learns of the run before its first number."""

    folder: Path
    """The run folder; its name is that of the run."""

    files: Path
    """Folder for the logger's own files; it exists, goes with the run, and is empty when a run begins."""

    settings: Mapping[str, object]
    """All settings, resolved: what config.yaml holds."""

    step: int
    """Steps done; what an earlier session said of later ones is said again. 0: the run begins."""


class Logger(ABC):
    """One destination of the numbers. A thread of its own makes it, tells it and closes it, in this order.

    So it may take its time. Whatever it raises is told once, and switches it off; training goes on.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    """Packages that have to be installed; the extra that brings them has the logger's name."""

    rewinds: ClassVar[bool] = False
    """Whether numbers after `LoggedRun.step` are forgotten when it is made. Else it is told no step twice."""

    @abstractmethod
    def __init__(self, run: LoggedRun) -> None:
        """Begin, or go on with what an earlier session began."""

    @abstractmethod
    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Take the numbers of one step by their full names, as in metrics.jsonl."""

    @abstractmethod
    def close(self, failed: bool) -> None:
        """Send what is left; `failed`: the session ends with an error."""
