"""The folder of one run: where each file lies, who may write there, and how nothing is ever half written."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from crosscontext.errors import RunFolderError

LOCK = ".lock"
"""Name of the file by which a folder is locked."""


class RunFolder(NamedTuple):
    """Names of the files of a run."""

    path: Path

    @property
    def config(self) -> Path:
        """Resolved settings; they re-run the job."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions and machine."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a logged step."""
        return self.path / "metrics.jsonl"

    @property
    def results(self) -> Path:
        """One JSON object a score."""
        return self.path / "results.jsonl"

    @property
    def skipped(self) -> Path:
        """One JSON object an unreadable image."""
        return self.path / "skipped.jsonl"

    @property
    def features(self) -> Path:
        """Folder of the features that evaluation computed, one file a model and a set of images."""
        return self.path / "features"

    @property
    def loggers(self) -> Path:
        """Folder of what loggers keep, one folder a logger, such as event files of TensorBoard."""
        return self.path / "loggers"

    @property
    def report(self) -> Path:
        """A page that shows the run to a person."""
        return self.path / "report.html"

    @property
    def encoder(self) -> Path:
        """The backbone with its preprocessing."""
        return self.path / "encoder.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The whole state of training, to resume from."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def previous_checkpoint(self) -> Path:
        """The checkpoint before the last one."""
        return self.path / "checkpoints" / "previous.ckpt"

    @property
    def damaged_checkpoint(self) -> Path:
        """The last checkpoint that was found damaged, kept for whoever wants to know why."""
        return self.path / "checkpoints" / "damaged.ckpt"

    @property
    def stopped(self) -> Path:
        """Why the last session has ended, where it did so with a checkpoint and before the end of the run."""
        return self.path / "stopped.json"

    @property
    def has_checkpoint(self) -> bool:
        """Whether the run can be resumed: from the last checkpoint, or else from the one before."""
        return self.checkpoint.is_file() or self.previous_checkpoint.is_file()

    @property
    def lock(self) -> Path:
        """Who trains here, or did last."""
        return self.path / LOCK

    @property
    def rollbacks(self) -> Path:
        """One JSON object a step that is skipped because it was not finite."""
        return self.path / "rollbacks.jsonl"

    def failed_batch(self, step: int) -> Path:
        """The views of a step that was not finite."""
        return self.path / "nonfinite" / f"step-{step}.safetensors"

    def failed_checkpoint(self, step: int) -> Path:
        """The last checkpoint before a step that was not finite."""
        return self.path / "nonfinite" / f"step-{step}.ckpt"

    def earlier_config(self, step: int) -> Path:
        """The settings with which an extended run was made up to a step."""
        return self.path / f"config.until-{step}.yaml"

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Make sure that a run may be written here, before anything is computed; nothing is changed.

        Args:
            resume: there must be a checkpoint.
            overwrite: an earlier run may be in the way.

        Raises:
            RunFolderError: something is in the way, or nothing is there to resume.
        """
        if resume and not self.has_checkpoint:
            raise RunFolderError(
                f"There is no checkpoint {self.checkpoint} to resume from. "
                "Check --out, or start the run without --resume."
            )
        try:
            in_the_way = sorted(entry.name for entry in self.path.iterdir() if entry != self.lock)
        except FileNotFoundError:
            in_the_way = []
        except OSError as error:
            raise RunFolderError(
                f"{self.path} cannot be a run folder: {error.strerror}. Choose another --out."
            ) from error
        if in_the_way and not (resume or overwrite):
            raise RunFolderError(
                f"The run folder {self.path} is not empty: it holds {', '.join(in_the_way[:5])}. "
                "Continue it with --resume, replace it with --overwrite, or choose another --out."
            )

    def claim(self) -> None:
        """Make the folder ready for a new run: the files of an earlier one are removed, and nothing else.

        Raises:
            RunFolderError: the place is not writable.
        """
        try:
            for file in self._files():
                file.unlink(missing_ok=True)
            if self.loggers.is_dir():
                shutil.rmtree(self.loggers)
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(
                f"{self.path} cannot be written: {error.strerror}. Choose another --out."
            ) from error

    def sweep(self) -> None:
        """Remove unfinished files and the note of a stop, from earlier sessions; the caller has the lock."""
        with suppress(OSError):
            self.stopped.unlink(missing_ok=True)
            for file in self._files():
                for unfinished in file.parent.glob(f".{file.name}.*"):
                    unfinished.unlink()

    def note_stop(self, why: str, exit_code: int) -> None:
        """Note that a session has ended before the run: a script can tell that it has to be resumed.

        Raises:
            RunFolderError: the file cannot be written.
        """
        note = json.dumps({"why": why, "exit_code": exit_code}) + "\n"
        write_atomically(self.stopped, lambda file: file.write(note.encode()))

    def _files(self) -> list[Path]:
        return [
            self.config,
            self.environment,
            self.metrics,
            self.results,
            self.skipped,
            self.report,
            self.encoder,
            self.checkpoint,
            self.previous_checkpoint,
            self.damaged_checkpoint,
            self.rollbacks,
            self.stopped,
            *self.path.glob("config.until-*.yaml"),
            *self.path.glob("nonfinite/step-*.*"),
            *self.features.glob("*.safetensors"),
        ]


def check_writable(path: Path) -> None:
    """Make sure that a file can be written, before anything is computed for it.

    Raises:
        RunFolderError: its folder is missing or not writable, or it is a folder itself.
    """
    if path.is_dir():
        cause = "it is a folder; add the name of a file"
    elif not path.parent.is_dir():
        cause = f"there is no folder {path.parent}; make it"
    elif not os.access(path.parent, os.W_OK):
        cause = f"the folder {path.parent} is not writable; allow it"
    else:
        return
    raise RunFolderError(f"{path} cannot be written: {cause}, or choose another place.")


def keep(file: Path, under: Path) -> None:
    """Keep the content of a file under another name too, whatever becomes of the first; no copy if possible.

    Args:
        file: is there.
        under: the other name in a folder of the same file system; replaced at once.

    Raises:
        RunFolderError: the disk is full or the place is not writable.
    """
    kept = under.with_suffix(".kept")
    try:
        kept.unlink(missing_ok=True)
        os.link(file, kept)
        kept.replace(under)
    except OSError:  # not every file system has hard links
        write_atomically(under, lambda copy: copy.write(file.read_bytes()))


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that at every instant the old or the new one is there, whole, also after a crash.

    Args:
        path: of the file; its folder exists.
        write: receives the open file.

    Raises:
        RunFolderError: the disk is full or the place is not writable; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise RunFolderError(
            f"{path} could not be written: {error.strerror}. The file before it, if any, is intact. "
            "Make room or choose another --out."
        ) from error
