"""TensorBoard: event files in the run folder. ``tensorboard --logdir runs`` shows all runs below it."""

from collections.abc import Mapping
from typing import ClassVar

from crosscontext.loggers.contract import LoggedRun, Logger

_SECONDS_UNSAVED = 10


class TensorBoardLogger(Logger):
    """Writes event files; those of a resumed run hide the steps that are made again."""

    needs: ClassVar = ("tensorboard",)
    rewinds: ClassVar = True

    def __init__(self, run: LoggedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            str(run.files), purge_step=run.step + 1 if run.step else None, flush_secs=_SECONDS_UNSAVED
        )

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self, failed: bool) -> None:
        """Write what is left."""
        self._writer.close()
