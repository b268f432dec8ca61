"""Twelve steps of every cell before the first run begins: what does not work is known, and what a step costs.

study plan → **trials** → steps of each run
"""

import json
import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from crosscontext.datasets.contract import Dataset
from crosscontext.datasets.held import hold
from crosscontext.errors import CrossContextError, SettingsError
from crosscontext.evaluation import EvaluateSettings, annotation_of
from crosscontext.machine import choose_device, keep_memory
from crosscontext.planning import SESSION_FIELDS, PretrainSettings, settle
from crosscontext.rehearsal import seconds_per_step
from crosscontext.results import digest
from crosscontext.run_folder import write_atomically
from crosscontext.schedules import steps_within
from crosscontext.splits import open_parts
from crosscontext.study_plan import StudyPlan, StudySettings

_ROUNDS = 3  # of timing, in turn, where the number of steps depends on it
_NO_SAY = SESSION_FIELDS | {"seed", *PretrainSettings.ONE_OF}


class Trial(NamedTuple):
    """What is known of the runs of a cell before they begin."""

    steps: int
    seconds_per_step: float

    @property
    def minutes(self) -> float:
        """Of training, of one run."""
        return self.steps * self.seconds_per_step / 60


def try_out(study: StudySettings, plan: StudyPlan, tell: Callable[[str], None]) -> dict[str, Trial]:
    """Open all data, and take a few steps with each cell; the weights are thrown away.

    What was timed is kept in `measured.json` beside the runs, so that the steps of a budget in minutes stay
    the same when the study goes on.

    Args:
        study: see there.
        plan: whose cells are tried, perhaps none.
        tell: is told in one line each what is tried.

    Returns:
        By the name of the cell.

    Raises:
        SettingsError: one line a cell or evaluation that does not work.
        RunFolderError: the timing cannot be written.
    """
    if not plan.cells:
        return {}
    torch.set_num_threads(study.threads)
    keep_memory()
    complaints: list[str] = []
    settled: dict[str, PretrainSettings] = {}
    datasets: dict[str, Dataset] = {}  # each is opened once
    images: dict[str, Dataset] = {}
    for name, settings in plan.cells.items():
        try:
            key = digest(settings.data.model_dump(mode="json"))
            if key not in datasets:
                datasets[key] = hold(settings.data.open().train, settings.hold_gigabytes)
            images[name] = datasets[key]
            settled[name] = settle(settings, images[name], lambda _: None)
        except CrossContextError as error:
            complaints.append(f"cell {name}: {error}")
    complaints += _unfit(plan.evaluations, next(iter(plan.cells.values())))
    measured = study.runs / "measured.json"
    seconds: dict[str, float] = json.loads(measured.read_text()) if measured.is_file() else {}
    new: dict[str, list[float]] = {}
    for _ in range(_ROUNDS if study.budget.minutes is not None else 1):
        for name, settings in settled.items():
            if complaints or _key(settings) in seconds:
                continue
            tell(f"trying out {name}")
            try:
                timed = seconds_per_step(settings, images[name], choose_device(settings.device))
                new.setdefault(_key(settings), []).append(timed)
            except CrossContextError as error:
                complaints.append(f"cell {name}: {error}")
    if complaints:
        raise SettingsError("\n".join(complaints))
    seconds |= {key: statistics.median(times) for key, times in new.items()}
    write_atomically(measured, lambda file: file.write(json.dumps(seconds, indent=1).encode()))
    return {name: _trial(settings, seconds[_key(settings)]) for name, settings in settled.items()}


def _unfit(evaluations: tuple[EvaluateSettings, ...], of_cells: PretrainSettings) -> Iterator[str]:
    """Say which evaluations find no annotation of their kind."""
    for number, each in enumerate(evaluations, start=1):
        try:
            open_parts(each.data or of_cells.data, each.test_data, annotation_of(each.tasks))
        except CrossContextError as error:
            yield f"evaluation {number}: {error}"


def _trial(settings: PretrainSettings, seconds: float) -> Trial:
    if settings.steps is not None:
        return Trial(settings.steps, seconds)
    assert settings.minutes is not None
    return Trial(steps_within(settings.minutes, seconds), seconds)


def _key(settings: PretrainSettings) -> str:
    timed = settings.model_dump(mode="json", exclude=set(_NO_SAY))
    of_the_machine = {"threads": settings.threads, "hold_gigabytes": settings.hold_gigabytes}
    return digest({**timed, **of_the_machine})
