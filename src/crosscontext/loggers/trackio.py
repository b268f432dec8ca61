"""Trackio: its local database (``TRACKIO_DIR``), which ``trackio show`` draws; no network.

A space or server is used if ``TRACKIO_SPACE_ID`` or ``TRACKIO_SERVER_URL`` names one.
"""

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import ClassVar

from crosscontext.loggers.contract import LoggedRun, Logger


class TrackioLogger(Logger):
    """A run of the name of the run folder, and the same one again when that is resumed."""

    needs: ClassVar = ("trackio",)

    def __init__(self, run: LoggedRun) -> None:
        with redirect_stdout(sys.stderr):  # it greets where only results belong
            import trackio

            self._run = trackio.init(
                project="crosscontext",
                name=run.folder.name,
                config=dict(run.settings),
                resume="allow" if run.step else "never",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Send one row."""
        self._run.log(dict(scalars), step=step)

    def close(self, failed: bool) -> None:
        """Write what is left."""
        with redirect_stdout(sys.stderr):
            self._run.finish()
