"""The whole state of training in one file: written atomically, read without unpickling, never half loaded."""

import os
from contextlib import suppress
from typing import Any, BinaryIO

import torch
from torch.optim import Optimizer

from crosscontext.errors import CheckpointError
from crosscontext.methods.contract import Method
from crosscontext.run_folder import RunFolder, write_atomically
from crosscontext.weights import DAMAGES, cause_of, load_exactly

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
    newest, previous = folder.checkpoint, folder.previous_checkpoint
    if newest.exists():
        kept = newest.with_suffix(".kept")
        with suppress(FileNotFoundError):
            kept.unlink()
        try:
            os.link(newest, kept)
            kept.replace(previous)
        except OSError:  # not every file system has hard links
            write_atomically(previous, lambda file: file.write(newest.read_bytes()))
    write_atomically(newest, lambda file: _save(state, file))


def load_checkpoint(folder: RunFolder, method: Method, optimizer: Optimizer) -> int:
    """Put a checkpoint's state into method and optimiser.

    Randomness has no state here: batches and views are functions of the step.

    Args:
        folder: of the run; it has a checkpoint.
        method: of the same settings.
        optimizer: of the student.

    Returns:
        The number of steps done.

    Raises:
        CheckpointError: the file is damaged, of another format, or of another architecture.
    """
    file = folder.checkpoint
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except DAMAGES as error:
        raise CheckpointError(
            f"The checkpoint {file} is damaged: {cause_of(error)} "
            f"Rename {folder.previous_checkpoint.name} to {file.name} to resume from the one before."
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
