"""Weights & Biases: offline in the run folder, unless ``WANDB_MODE=online`` asks for the network.

``wandb sync`` uploads an offline run later. Its own variables hold, such as WANDB_PROJECT and WANDB_ENTITY.
"""

import os
import uuid
from collections.abc import Mapping
from typing import ClassVar

from crosscontext.loggers.contract import LoggedRun, Logger


class WandbLogger(Logger):
    """Goes on under the same id when the run is resumed; what is on the console is left alone."""

    needs: ClassVar = ("wandb",)

    def __init__(self, run: LoggedRun) -> None:
        import wandb

        identity = run.files / "run-id"
        if not identity.is_file():
            identity.write_text(uuid.uuid4().hex)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "crosscontext"),
            name=run.folder.name,
            id=identity.read_text(),
            resume="allow",
            mode=os.environ.get("WANDB_MODE", "offline"),
            dir=run.files,
            config=dict(run.settings),
            settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
        )

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Send one row."""
        self._run.log(dict(scalars), step=step)

    def close(self, failed: bool) -> None:
        """Wait until all rows are written, or uploaded."""
        self._run.finish(exit_code=int(failed))
