"""The whole state of training in one file: written atomically, read without unpickling, never half loaded."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZipFile

import torch
from torch.optim import Optimizer

from crosscontext.errors import CheckpointError, RunFolderError
from crosscontext.methods.contract import Method
from crosscontext.run_folder import RunFolder, keep, write_atomically
from crosscontext.weights import DAMAGES, cause_of, load_exactly, refuse_bombs

FORMAT_VERSION = 1
KEYS = ("format_version", "step", "method", "optimizer")


def save_checkpoint(folder: RunFolder, method: Method, optimizer: Optimizer, step: int) -> None:
    """Write a checkpoint, and keep the one before it.

    Args:
        folder: of the run.
        method: with student, teacher and memory.
        optimizer: of the student.
        step: steps done.

    Raises:
        RunFolderError: it could not be written; the last checkpoint is intact.
    """
    state = {
        "format_version": FORMAT_VERSION,
        "step": step,
        "method": method.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    if os.path.exists(folder.checkpoint):  # noqa: PTH110 (no error where one may not look, but on writing)
        keep(folder.checkpoint, under=folder.previous_checkpoint)
    write_atomically(folder.checkpoint, lambda file: _save(state, file))


def fall_back(folder: RunFolder, say: Callable[[str], None]) -> None:
    """Make sure that the last checkpoint is whole; put the one before in its place if it is not.

    The file is a zip archive with a checksum of each tensor, which `torch.save` writes and `torch.load` does
    not look at; here they are compared. Of several processes of a run, the first does this before all load.

    Args:
        folder: of the run; it has a checkpoint.
        say: is told in one line what was wrong.

    Raises:
        CheckpointError: both are damaged.
        RunFolderError: the files cannot be renamed.
    """
    newest, previous = folder.checkpoint, folder.previous_checkpoint
    damage = damage_of(newest)
    if damage is None:
        return
    if damage_of(previous) is not None:
        raise CheckpointError(
            f"The checkpoint {newest} is damaged: {damage} The one before it, {previous.name}, is no better. "
            "Put a copy of one of them in its place, or begin the run again with --overwrite."
        )
    try:
        if newest.exists():
            keep(newest, under=folder.damaged_checkpoint)
        previous.replace(newest)
    except OSError as error:
        raise RunFolderError(
            f"The checkpoint {newest} is damaged: {damage} "
            f"{previous} cannot take its place: {error.strerror}. Mend the permissions of the folder."
        ) from error
    say(
        f"{newest} is damaged: {damage} It is kept as {folder.damaged_checkpoint.name}; "
        "going on from the checkpoint before it"
    )


def damage_of(file: Path) -> str | None:
    """Say in a sentence what is wrong with a checkpoint file; None if each of its checksums is right."""
    try:
        refuse_bombs(file)
        with ZipFile(file) as archive:
            wrong = archive.testzip()
        if wrong is None:
            torch.load(file, map_location="cpu", weights_only=True, mmap=True)  # reads the structure alone
    except DAMAGES as error:
        return f"{cause_of(error).rstrip('.')}."
    return None if wrong is None else f"the checksum of its part {wrong} does not match."


def load_checkpoint(folder: RunFolder, method: Method, optimizer: Optimizer) -> int:
    """Put the last checkpoint's state into method and optimiser; see `load_state`."""
    return load_state(folder.checkpoint, method, optimizer)


def load_state(file: Path, method: Method, optimizer: Optimizer) -> int:
    """Put a checkpoint's state into method and optimiser.

    Randomness has no state here: batches and views are functions of the step.

    Args:
        file: a checkpoint.
        method: of the same settings.
        optimizer: of the student.

    Returns:
        The number of steps done.

    Raises:
        CheckpointError: the file is damaged, of another format, or of another architecture.
    """
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except DAMAGES as error:
        raise CheckpointError(
            f"The checkpoint {file} is damaged: {cause_of(error)} Resume from another one."
        ) from error
    if (
        not isinstance(state, dict)
        or state.get("format_version") != FORMAT_VERSION
        or set(state) != set(KEYS)
    ):
        raise CheckpointError(
            f"{file} is not a checkpoint of format {FORMAT_VERSION}. "
            "Use the version of crosscontext that wrote it."
        )
    load_exactly(method, state["method"], str(file))
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def _save(state: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:  # torch buries what the disk says under a complaint of its own
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
