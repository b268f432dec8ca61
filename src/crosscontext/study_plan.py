"""What a study compares: a study file → **study plan** → cells, each with the settings of its runs.

A cell is one way to pretrain; all cells share base, budget, seeds and evaluations. What can be known to be
wrong before anything is opened is found here.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, JsonValue, field_validator, model_validator

from crosscontext.complaints import nearest
from crosscontext.contenders import told
from crosscontext.errors import SettingsError
from crosscontext.evaluation import EvaluateSettings
from crosscontext.fields import places
from crosscontext.layers import Layer, changes, resolve
from crosscontext.planning import PretrainSettings
from crosscontext.references import name_of
from crosscontext.results import ABSENT
from crosscontext.settings import Settings

Values = dict[str, JsonValue]
"""Settings as they stand in a file, nested."""

_NOT_OF_A_CELL = {
    **dict.fromkeys(PretrainSettings.ONE_OF, "the length of all runs is the 'budget:' of the study"),
    "seed": "the seeds of all cells are the 'seeds:' of the study",
    "out": "runs are kept below 'runs:' of the study",
    "threads": "it is the 'threads:' of the study",
    "overwrite": "changed runs are replaced by --overwrite of the study",
    "resume": "a study always goes on where it stopped",
    "extend": "a study has one budget",
    "time_limit": "each run goes on to the end of the budget",
    "stop_after": "each run goes on to the end of the budget",
}
_NOT_OF_AN_EVALUATION = {
    "run": "each run of the study is evaluated",
    "threads": "it is the 'threads:' of the study",
}
_NAME = re.compile(r"\w[\w.,=+-]*")
_UNKNOWN_RUN = Path("RUN")


class BudgetSettings(Settings):
    """What each run may cost, the same for all; one of the three is given."""

    images: float | None = Field(None, gt=0)
    """Images seen, an image counting again each time."""

    steps: int | None = Field(None, ge=1)
    """Steps; as good as images where all cells have one batch size."""

    minutes: float | None = Field(None, gt=0)
    """Minutes of training. Before the first run each cell is timed on its own, with the threads that it will
    have; all its seeds then take the steps that fit."""

    @model_validator(mode="after")
    def _refuse_none_or_two(self) -> "BudgetSettings":
        if len(self.given) != 1:
            given = ", ".join(f"{key} {value}" for key, value in self.given.items()) or "nothing"
            raise ValueError(f"{given} is given; expected one of {', '.join(BudgetSettings.model_fields)}.")
        return self

    @property
    def given(self) -> dict[str, float | int]:
        """The one that is given, with its value."""
        return {
            key: value for key in BudgetSettings.model_fields if (value := getattr(self, key)) is not None
        }


class StudySettings(Settings):
    """Cells × seeds under one data pipeline and one budget. What is compared stands in the study file."""

    OF_THE_FILE: ClassVar[tuple[str, ...]] = ("base", "cells", "grid", "evaluate")

    base: Values = Field(default_factory=dict)
    """Settings of pretraining that all cells start from; in the study file alone."""

    cells: dict[str, Values] = Field(default_factory=dict)
    """Name of a cell → its settings over the base; in the study file alone."""

    grid: dict[str, list[JsonValue] | Values] = Field(default_factory=dict)
    """Dotted name of a setting → its values, or names of values → values. Each combination is a cell; in
    the study file alone."""

    vary: tuple[str, ...] = ("method",)
    """Settings in which cells may differ; a difference elsewhere is refused."""

    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    """Each cell is run once with each."""

    budget: BudgetSettings
    """Length of every run."""

    evaluate: tuple[Values, ...] = Field(min_length=1)
    """Evaluations of each run, with the settings of `crosscontext evaluate`, in the study file alone.
    References are scored once, beside the first run."""

    baseline: str | None = None
    """Cell or reference that the others are subtracted from; by default the first cell."""

    jobs: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Runs at once; auto: as many as find `threads` cores each, on a GPU one."""

    threads: int = Field(1, ge=1)
    """CPU threads of each run."""

    out: Path
    """Folder of the results: records.json, table.md and curves.svg; the command line takes studies/STUDY.
    Runs that are recorded there count as finished, also where their folders are gone."""

    runs: Path
    """Folder of the runs with their weights, one a cell and seed; the command line takes runs/STUDY."""

    overwrite: bool = False
    """Train those runs anew whose settings have changed since they were begun, and replace records of runs
    that the study has no more."""

    @field_validator("seeds")
    @classmethod
    def _refuse_equal_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"one of {', '.join(map(str, seeds))} stands twice. Give each seed once.")
        return seeds


class StudyPlan(NamedTuple):
    """What a study comes down to."""

    cells: Mapping[str, PretrainSettings]
    """By name; without seed, place and length of a run."""

    evaluations: tuple[EvaluateSettings, ...]
    """Of each run; which one is left open."""


def plan_of(study: StudySettings) -> StudyPlan:
    """Put the settings of all cells together, and make sure that they can be compared.

    Raises:
        SettingsError: one line for each thing that is wrong, naming the cell.
    """
    complaints: list[str] = []
    cells: dict[str, PretrainSettings] = {}
    for name, values in named_cells(study).items():
        layers = [
            Layer("studies", {"report": False}),  # which compare runs, and leave the page to who asks for it
            Layer("base", study.base),
            Layer(f"cell {name}", values),
            Layer("the study", _common(study)),
        ]
        try:
            _refuse_misplaced(layers[1:3], _NOT_OF_A_CELL)
            cells[name] = resolve(PretrainSettings, layers)
        except SettingsError as error:
            complaints += str(error).splitlines()
    evaluations: list[EvaluateSettings] = []
    for number, values in enumerate(study.evaluate, start=1):
        layer = Layer(f"evaluation {number}", values)
        common = Layer("the study", {"run": _UNKNOWN_RUN, "threads": study.threads})
        try:
            _refuse_misplaced([layer], _NOT_OF_AN_EVALUATION)
            evaluations.append(resolve(EvaluateSettings, [layer, common]))
        except SettingsError as error:
            complaints += str(error).splitlines()
    if not complaints:
        complaints = [*_incomparable(study, cells), *_ambiguous(study, evaluations, list(cells))]
    if complaints:
        raise SettingsError("\n".join(dict.fromkeys(complaints)))
    return StudyPlan(cells, tuple(evaluations))


def named_cells(study: StudySettings) -> dict[str, Values]:
    """Name the cells: those of the file, then the combinations of the grid.

    Raises:
        SettingsError: there is none, two have one name, or a name cannot be that of a folder.
    """
    named = [*study.cells.items(), *_combinations(study.grid)]
    names = [name for name, _ in named]
    if not named:
        raise SettingsError("There is no cell. Give 'cells:', names with settings, or 'grid:' in the study.")
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"Two cells are called {name}. Rename the one in 'cells:'.")
        if not _NAME.fullmatch(name):
            raise SettingsError(
                f"A cell is called {name!r}, which cannot name a folder everywhere. Use letters, digits and "
                "any of . , = + - _; values of a grid get names when written as 'NAME: VALUE'."
            )
    return dict(named)


def _common(study: StudySettings) -> dict[str, object]:
    return {"out": _UNKNOWN_RUN, "seed": study.seeds[0], "threads": study.threads, **study.budget.given}


def _combinations(grid: Mapping[str, list[JsonValue] | Values]) -> Iterator[tuple[str, Values]]:
    """Every choice of one value for each setting, e.g. ``momentum=0.9,slots=1024``."""
    keys = [path.rpartition(".")[2] for path in grid]
    labels = [
        key if keys.count(key) == 1 else path.replace(".", "-") for path, key in zip(grid, keys, strict=True)
    ]
    axes = [
        list(values.items()) if isinstance(values, dict) else [(str(value), value) for value in values]
        for values in grid.values()
    ]
    for choice in itertools.product(*axes) if grid else ():
        settings: Values = {}
        for path, (_, value) in zip(grid, choice, strict=True):
            *outer, last = path.split(".")
            inside = settings
            for key in outer:
                below = inside.setdefault(key, {})
                assert isinstance(below, dict)
                inside = below
            inside[last] = value
        yield ",".join(f"{label}={name}" for label, (name, _) in zip(labels, choice, strict=True)), settings


def _refuse_misplaced(layers: Sequence[Layer], elsewhere: Mapping[str, str]) -> None:
    found = [
        f"'{key}' in {layer.origin} has no place there: {elsewhere[key]}. Leave it out."
        for layer in layers
        for key in layer.values
        if key in elsewhere
    ]
    if found:
        raise SettingsError("\n".join(found))


def _incomparable(study: StudySettings, cells: Mapping[str, PretrainSettings]) -> Iterator[str]:
    """Say what cells must not differ in and do."""
    known = [".".join(place.path) for place in places(PretrainSettings)]
    for path in study.vary:
        if path not in known:
            yield f"vary names '{path}', which is no setting of pretraining{nearest(path, known) or '.'}"
    (first, reference), *others = cells.items()
    for name, settings in others:
        found = changes(reference, settings)
        if not found:
            yield f"The cells {first} and {name} have the same settings. Leave one of them out."
        stray = {
            path: (at(reference, path), at(settings, path)) for path in found if not _varies(study, path)
        }
        if stray:
            yield (
                f"The cells {first} and {name} differ in {told(stray)}, but only {', '.join(study.vary)} may "
                "vary. Add that to 'vary:', or put it into the base."
            )
    if study.budget.steps is not None and _varies(study, "batch_size"):
        yield "The budget is in steps, but batch_size may vary: give the images seen instead."


def _ambiguous(
    study: StudySettings, evaluations: Sequence[EvaluateSettings], cells: Sequence[str]
) -> Iterator[str]:
    """Say where scores could not be put into one table."""
    of_data = any(path.partition(".")[0] == "data" for path in study.vary)
    for number, settings in enumerate(evaluations, start=1):
        if of_data and settings.data is None:
            yield f"The data may vary, so evaluation {number} must say its own. Add 'data:' to it."
        sized = any(_varies(study, name) for name in ("image_size", "test_size"))
        if (of_data or sized) and settings.image_size is None:
            yield f"The image size may vary, so evaluation {number} must say one. Add 'image_size:' to it."
    references = {name_of(reference) for settings in evaluations for reference in settings.references}
    if both := sorted(references & set(cells)):
        yield f"{both[0]} is the name of a cell and of a reference. Rename the cell."
    there_are = [*cells, *sorted(references)]
    if study.baseline is not None and study.baseline not in there_are:
        hint = nearest(study.baseline, there_are) or "."
        yield f"There is no baseline '{study.baseline}'; there are {', '.join(there_are)}{hint}"


def _varies(study: StudySettings, path: str) -> bool:
    return any(path == allowed or path.startswith(f"{allowed}.") for allowed in study.vary)


def at(settings: Settings, path: str) -> object:
    """Read a value by its dotted path, as JSON; `ABSENT` where another member of an open set stands there."""
    value: object = settings.model_dump(mode="json")
    for key in path.split("."):
        value = value.get(key, ABSENT) if isinstance(value, dict) else ABSENT
    return value
