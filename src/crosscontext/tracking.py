"""Numbers of a run → metrics.jsonl, and what a person sees of them while it runs.

pretrain → **tracking** → files, console
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from crosscontext.errors import RunFolderError
from crosscontext.run_folder import write_atomically

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_SECONDS_BETWEEN_LINES = 10.0


class MetricsFile:
    """JSON lines, one a logged step: step, images, and scalars by their full names.

    Args:
        path: is appended to.
        first_step: lines from this step on are dropped: a resumed run writes them again.
    """

    def __init__(self, path: Path, first_step: int):
        lines = read_metrics(path)
        self.kept = [line for line in lines if line["step"] < first_step]
        """The lines before that."""

        self.told_until = max((int(line["step"]) for line in lines), default=0)
        """Step of the last line that was there, dropped ones too."""

        text = "".join(json.dumps(line) + "\n" for line in self.kept)
        write_atomically(path, lambda file: file.write(text.encode()))
        self._path = path

    def write(self, step: int, images: int, scalars: Mapping[str, float]) -> None:
        """Append one line; it has left the process when this returns.

        Raises:
            RunFolderError: the disk is full, or the file can no longer be written.
        """
        _append(self._path, [{"step": step, "images": images, **scalars}], f" at step {step}")


class SkippedFile:
    """JSON lines, one an unreadable image: its name and the cause. Those of earlier sessions stay.

    Args:
        path: is appended to; a last line that a crash has cut off is dropped.
    """

    def __init__(self, path: Path):
        whole, _, torn = (path.read_bytes() if path.exists() else b"").rpartition(b"\n")
        lines = whole.splitlines()
        if torn:
            write_atomically(path, lambda file: file.writelines(line + b"\n" for line in lines))
        self._names: set[str] = {json.loads(line)["name"] for line in lines}
        self._path = path

    def add(self, skipped: Mapping[str, str]) -> None:
        """Append those images that are not in it yet, if there are any; nothing is touched otherwise.

        Args:
            skipped: name → cause.

        Raises:
            RunFolderError: the disk is full, or the file can no longer be written.
        """
        new = sorted(skipped.keys() - self._names)
        if new:
            _append(self._path, [{"name": name, "cause": skipped[name]} for name in new])
            self._names.update(new)


def _append(path: Path, lines: Sequence[Mapping[str, object]], when: str = "") -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))
    except OSError as error:
        raise RunFolderError(
            f"{path} could not be written{when}: {error.strerror}. What was written before, and the last "
            "checkpoint, are as they were. Make room or mend the folder, and go on with --resume."
        ) from error


def read_metrics(path: Path) -> list[dict[str, int | float]]:
    """Read all whole lines; a last one that a crash has cut off is left out. No file: no lines."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


@runtime_checkable
class Progress(Protocol):
    """What a run tells while it goes on."""

    def say(self, line: str) -> None:
        """Tell a fact in one line."""

    def start(self, total_steps: int, step: int) -> None:
        """Training of `total_steps` begins at `step`."""

    def advance(self, step: int, scalars: Mapping[str, float]) -> None:
        """`step` steps are done; the latest scalars by their full names."""


class Silence:
    """Tells nothing."""

    def say(self, line: str) -> None:
        """Tell nothing."""

    def start(self, total_steps: int, step: int) -> None:
        """Tell nothing."""

    def advance(self, step: int, scalars: Mapping[str, float]) -> None:
        """Tell nothing."""


def summary(scalars: Mapping[str, float]) -> str:
    """Write the scalars that matter to a person: loss, speed, k-NN or RankMe when known."""
    shown = (
        ("loss", "train/loss", "{:.3f}"),
        ("images/s", "time/images_per_second", "{:.0f}"),
        ("k-NN", "val/knn_top1", "{:.1%}"),
        ("RankMe", "health/rankme", "{:.1f}"),
    )
    return "  ".join(
        f"{label} {form.format(scalars[name])}" for label, name, form in shown if name in scalars
    )


def tell(line: str) -> None:
    """Write one line to the error stream, at once."""
    print(line, file=sys.stderr, flush=True)


class PlainLines:
    """Writes a line every ten seconds: for files, pipes and schedulers."""

    def __init__(self) -> None:
        self._total = 0
        self._first = 0
        self._started = self._last = time.monotonic()

    def say(self, line: str) -> None:
        """Write one line."""
        tell(line)

    def start(self, total_steps: int, step: int) -> None:
        """Start the clock."""
        self._total, self._first = total_steps, step
        self._started = self._last = time.monotonic()

    def advance(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write a line if the last one is old enough, or if this is the end."""
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES and step < self._total:
            return
        self._last = now
        left = (now - self._started) / max(step - self._first, 1) * (self._total - step)
        self.say(f"step {step}/{self._total}  {summary(scalars)}  left {_clock(left)}")


class Bar:
    """Draws a bar that stays on one line of the terminal."""

    def __init__(self, bar: "RichProgress"):
        self._bar = bar
        self._task = bar.add_task("pretrain", total=None, summary="", visible=False)

    def say(self, line: str) -> None:
        """Write one line above the bar."""
        self._bar.console.print(line, highlight=False, markup=False)

    def start(self, total_steps: int, step: int) -> None:
        """Show the bar."""
        self._bar.reset(self._task, total=total_steps, completed=step, visible=True)

    def advance(self, step: int, scalars: Mapping[str, float]) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=step, summary=summary(scalars))


class Stopwatch:
    """Measures speed, waiting and pauses between two readings; speed does not count pauses."""

    def __init__(self) -> None:
        self._mark = time.perf_counter()
        self._waited = self._worked = self._paused = 0.0
        self._images = 0

    def data_arrived(self) -> None:
        """The time since the last call of any kind was spent waiting for data."""
        self._waited += self._lap()

    def step_done(self, images: int) -> None:
        """The time since the last call of any kind was spent on a step of so many images."""
        self._worked += self._lap()
        self._images += images

    def pause_over(self) -> None:
        """The time since the last call of any kind was spent on monitors, checkpoints and files."""
        self._paused += self._lap()

    def read(self) -> dict[str, float]:
        """Give the scalars ``time/…`` since the last reading.

        Returns:
            Images a second and the part spent waiting, both of the time without pauses; the part of the whole
            time that was paused.
        """
        total = self._waited + self._worked
        scalars = {
            "time/images_per_second": self._images / total,
            "time/data_wait": self._waited / total,
            "time/paused": self._paused / (total + self._paused),
        }
        self._waited = self._worked = self._paused = 0.0
        self._images = 0
        return scalars

    def _lap(self) -> float:
        before, self._mark = self._mark, time.perf_counter()
        return self._mark - before


@contextmanager
def console_progress() -> Iterator[Progress]:
    """Choose a bar on a terminal and plain lines elsewhere; both go to the error stream."""
    if not sys.stderr.isatty():
        yield PlainLines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[summary]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as bar:
        yield Bar(bar)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
