"""Loggers: the numbers of a run, told to other programs too. metrics.jsonl stays what counts.

To add one from another package: a class that has the three methods of `Logger`, and in its pyproject.toml

    [project.entry-points."crosscontext.loggers"]
    NAME = "MODULE:CLASS"
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec

from crosscontext.complaints import nearest
from crosscontext.errors import SettingsError
from crosscontext.loggers.contract import LoggedRun, Logger
from crosscontext.loggers.mlflow import MlflowLogger
from crosscontext.loggers.tensorboard import TensorBoardLogger
from crosscontext.loggers.trackio import TrackioLogger
from crosscontext.loggers.wandb import WandbLogger

__all__ = ["AUTO", "GROUP", "NONE", "OWN", "LoggedRun", "Logger", "find_loggers", "logger_names"]

GROUP = "crosscontext.loggers"
"""Entry points under which other packages offer theirs."""

AUTO, NONE = "auto", "none"

OWN: Mapping[str, type[Logger]] = {
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
    "mlflow": MlflowLogger,
    "trackio": TrackioLogger,
}
"""Those of this package, by the name that asks for them."""


def logger_names() -> list[str]:
    """All that can be asked for: those of this package, and those that other packages offer."""
    return [*OWN, *sorted({point.name for point in entry_points(group=GROUP)} - OWN.keys())]


def find_loggers(names: Sequence[str]) -> dict[str, type[Logger]]:
    """Find loggers by their names; nothing is opened yet.

    Args:
        names: ``auto`` stands for TensorBoard where it is installed, ``none`` for nothing.

    Raises:
        SettingsError: a name is unknown, or what the logger needs is not installed.
    """
    wanted = [name for name in dict.fromkeys(names) if name not in (AUTO, NONE)]
    if AUTO in names and "tensorboard" not in wanted and _missing(OWN["tensorboard"]) is None:
        wanted.append("tensorboard")
    return {name: _find(name) for name in wanted}


def _find(name: str) -> type[Logger]:
    kind = OWN.get(name) or _of_others(name)
    missing = _missing(kind)
    if missing is not None and name in OWN:
        raise SettingsError(
            f"The logger {name} needs {missing}, which is not installed: "
            f'pip install "crosscontext[{name}]", or leave it out of --loggers.'
        )
    if missing is not None:
        raise SettingsError(
            f"The logger {name} needs {missing}, which is not installed. Install it, or leave the logger out "
            "of --loggers."
        )
    return kind


def _of_others(name: str) -> type[Logger]:
    points = entry_points(group=GROUP, name=name)
    if not points:
        known = [AUTO, NONE, *logger_names()]
        hint = nearest(name, known) or ". Give one of them, or install the package that offers it."
        raise SettingsError(f"Unknown logger '{name}'; there are {', '.join(known)}{hint}")
    point = next(iter(points))
    try:
        kind = point.load()
    except Exception as error:  # whatever the code of others raises
        raise SettingsError(
            f"The logger {name} ({point.value}) cannot be imported: {type(error).__name__}: {error}. "
            "Mend its package, or leave it out of --loggers."
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Logger)):
        raise SettingsError(
            f"The logger {name} ({point.value}) is no subclass of crosscontext.loggers.Logger. Mend its "
            "package, or leave it out of --loggers."
        )
    return kind


def _missing(kind: type[Logger]) -> str | None:
    return next((package for package in kind.needs if find_spec(package) is None), None)
