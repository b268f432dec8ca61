"""Steps that are not finite: kept to be replayed, then the end of the run, or a way around them.

stepping → **rollback** → the loop. A step that was skipped stays so: the list in the run folder is part of
what the result is a function of, and a resumed run reads it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from crosscontext import distributed
from crosscontext.errors import NonFiniteError, RunFolderError
from crosscontext.loading import Loader
from crosscontext.run_folder import RunFolder, keep, write_atomically
from crosscontext.weights import read_weights

NonFinitePolicy = Literal["stop", "rollback"]


class Rollbacks:
    """Answers steps that are not finite.

    Args:
        folder: of the run.
        policy: what to do.
        at_most: steps that may be skipped in the whole run.
        say: is told in one line what is done.
    """

    def __init__(self, folder: RunFolder, policy: NonFinitePolicy, at_most: int, say: Callable[[str], None]):
        self.skipped: set[int] = read_skipped_steps(folder)
        """Steps that change nothing."""

        self._folder, self._say = folder, say
        self._policy, self._at_most = policy, at_most

    def answer(self, error: NonFiniteError, loader: Loader) -> None:
        """Keep the batch of the step and the checkpoint before it; note that the step is to be skipped.

        Several processes meet a step that is not finite together, by the mean of their gradients; the first
        writes.

        Whoever calls goes back to the last checkpoint then: what came after is not to be trusted.

        Args:
            error: what was found.
            loader: makes the batch of the step again.

        Raises:
            NonFiniteError: the run is to stop, no more steps may be skipped, or none is to blame.
            RunFolderError: something cannot be written.
        """
        if error.step is None or error.step in self.skipped:
            raise error
        if distributed.is_first():
            keep_step(self._folder, loader.whole(), error.step)
        kept = f"The batch is kept in {self._folder.failed_batch(error.step)}."
        if self._policy == "stop":
            raise NonFiniteError(
                f"{error} {kept} To go around such steps: --resume --on-nonfinite rollback.", error.step
            ) from error
        if len(self.skipped) >= self._at_most:
            raise NonFiniteError(
                f"{error} {kept} {len(self.skipped)} steps were skipped before; rollbacks allows no more.",
                error.step,
            ) from error
        self.skipped.add(error.step)
        if distributed.is_first():
            lines = "".join(json.dumps({"step": step}) + "\n" for step in sorted(self.skipped))
            write_atomically(self._folder.rollbacks, lambda file: file.write(lines.encode()))
        self._say(
            f"{str(error).partition('. ')[0]}. Back to the last checkpoint, without step {error.step} "
            f"({len(self.skipped)} of at most {self._at_most} skipped). {kept}"
        )


def read_skipped_steps(folder: RunFolder) -> set[int]:
    """Read which steps of a run change nothing.

    Raises:
        RunFolderError: the file is damaged.
    """
    if not folder.rollbacks.is_file():
        return set()
    try:
        return {int(json.loads(line)["step"]) for line in folder.rollbacks.read_bytes().splitlines()}
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{folder.rollbacks} is damaged: {error}. Each of its lines is a step that is skipped, as "
            '{"step": 120}; mend it.'
        ) from error


def keep_step(folder: RunFolder, loader: Loader, step: int) -> None:
    """Write the batch of a step, and the last checkpoint beside it, so that the step can be replayed.

    Raises:
        RunFolderError: they cannot be written.
    """
    batch = next(loader.batches(step, step + 1))
    tensors = {
        f"{name}.{copy}": view.detach().cpu().contiguous()
        for name, copies in batch.views.items()
        for copy, view in enumerate(copies)
    }
    tensors["indices"] = torch.from_numpy(batch.indices)
    about = {
        "step": str(step),
        "epoch": str(batch.epoch),
        "names": json.dumps([loader.dataset.names[index] for index in batch.indices]),
    }
    path = folder.failed_batch(step)
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{path.parent} could not be made: {error.strerror}. Make room.") from error
    write_atomically(path, lambda file: file.write(save(tensors, metadata=about)))
    keep(folder.checkpoint, under=folder.failed_checkpoint(step))


def kept_views(path: Path) -> dict[str, list[Tensor]]:
    """Read the views of a kept batch, by name.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    views: dict[str, dict[int, Tensor]] = {}
    for key, tensor in read_weights(path).items():
        name, dot, copy = key.partition(".")
        if dot:
            views.setdefault(name, {})[int(copy)] = tensor
    return {name: [copies[number] for number in sorted(copies)] for name, copies in views.items()}


def kept_names(path: Path) -> list[str]:
    """Read which images are in a kept batch, row by row; `read_weights` has told that the file is whole."""
    with safe_open(path, "pt") as file:
        names: list[str] = json.loads(file.metadata()["names"])
    return names
