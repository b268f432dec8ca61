"""Who is compared: runs and their scores → **contenders** → comparison.

A method is a group of runs that differ in their seed alone; a reference model is the same beside all of them.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from crosscontext.errors import RunFolderError, SettingsError
from crosscontext.layers import Layer, resolve
from crosscontext.planning import SESSION_FIELDS, PretrainSettings
from crosscontext.results import Score, differences, read_results
from crosscontext.run_folder import RunFolder
from crosscontext.settings import load_yaml

NOT_OF_THE_METHOD = SESSION_FIELDS | {"seed", "monitor", "log_every", "checkpoint_every"}
"""Settings of a run in which two runs of one method may differ. Of paths, the last part alone counts."""

_PATHS = (("data", "path"), ("backbone", "weights"))
_ENCODER = "encoder"
_NAMED_AT_MOST = 5
_LONGEST = 40


class Line(NamedTuple):
    """What two scores must share to stand in one line of a table."""

    task: str
    metric: str
    protocol_digest: str


class Run(NamedTuple):
    """What pretraining and evaluation left of one run."""

    path: Path
    """As the user gave it."""

    config: Mapping[str, object]
    """Settings of the run; empty where there is no config.yaml beside the results."""

    scores: Sequence[Score]


BySeed = Mapping[int | str | None, Score]
"""Seed of a run → its score. Of a run whose seed is not known it is the path; of a reference None, which goes
with any seed."""


class Contender(NamedTuple):
    """A method or a reference model, with its scores."""

    label: str

    scores: Mapping[Line, BySeed]

    is_reference: bool

    paths: tuple[Path, ...] = ()
    """Of its runs, as the user gave them; a reference has none."""


def read_run(path: Path, notify: Callable[[str], None]) -> Run:
    """Read the scores of a run, and its settings if they are there.

    Args:
        path: of a run folder or of a results file.
        notify: is told of torn lines.

    Raises:
        RunFolderError: there is no results file, it has no scores, or a line is something else.
        SettingsError: the settings cannot be read.
    """
    folder = RunFolder(path if path.is_dir() else path.parent)
    file = folder.results if path.is_dir() else path
    scores, torn = read_results(file)
    if torn:
        notify(f"{file}: torn lines are left out: {', '.join(map(str, torn))}")
    if not scores:
        raise RunFolderError(f"{file} holds no scores. `crosscontext evaluate` adds them.")
    return Run(path, load_yaml(folder.config) if folder.config.exists() else {}, scores)


def contenders_of(
    runs: Sequence[Run], labels: Sequence[str], notify: Callable[[str], None]
) -> list[Contender]:
    """Group runs into methods, and find the reference models beside them.

    Args:
        runs: each once.
        labels: one for each run, equal ones for the runs of a method; without any, the settings decide.
        notify: is told which runs are left out, and how methods of one name differ.

    Returns:
        The methods in the order of the runs, then the references.

    Raises:
        SettingsError: two contenders would have the same label.
    """
    groups = _labelled(runs, labels) if labels else _grouped(runs, notify)
    methods = [_method(label, members, notify) for label, members in groups.items()]
    contenders = [*methods, *_references(groups)]
    names = [contender.label for contender in contenders]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(f"Two columns would be called {twice[0]}. Name the methods apart with --labels.")
    return contenders


def _labelled(runs: Sequence[Run], labels: Sequence[str]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run, label in zip(runs, labels, strict=True):
        groups.setdefault(label, []).append(run)
    return groups


def _grouped(runs: Sequence[Run], notify: Callable[[str], None]) -> dict[str, list[Run]]:
    """Group runs by what their settings say of the method; groups of one name are told apart by a path."""
    by_settings: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps(settings_of_method(run.config), sort_keys=True) if run.config else str(run.path)
        by_settings.setdefault(key, []).append(run)
    groups: dict[str, list[Run]] = {}
    first_of_name: dict[str, Run] = {}
    names = [_name(members[0]) for members in by_settings.values()]
    for name, members in zip(names, by_settings.values(), strict=True):
        first = first_of_name.setdefault(name, members[0])
        if first is not members[0]:
            settings = settings_of_method(first.config), settings_of_method(members[0].config)
            notify(f"{name}: {first.path} and {members[0].path} differ in {told(differences(*settings))}")
        groups[name if names.count(name) == 1 else f"{name} ({members[0].path})"] = members
    return groups


def settings_of_method(config: Mapping[str, object]) -> dict[str, object]:
    """Keep of the settings of a run what tells methods apart; of paths, the last part.

    A setting that is newer than the run has the default that it has today.
    """
    kept = {key: value for key, value in _completed(config).items() if key not in NOT_OF_THE_METHOD}
    for outer, inner in _PATHS:
        fields = kept.get(outer)
        if isinstance(fields, Mapping) and isinstance(fields.get(inner), str):
            kept[outer] = {**fields, inner: Path(fields[inner]).name}
    return kept


def _completed(config: Mapping[str, object]) -> Mapping[str, object]:
    """Add the defaults of what is not there; settings that this version does not know stay as they are."""
    known = {key: value for key, value in config.items() if key in PretrainSettings.model_fields}
    somewhere = Layer("", {"out": "."})  # recorded studies do not say where a run was
    try:
        return {**config, **resolve(PretrainSettings, [somewhere, Layer("", known)]).model_dump(mode="json")}
    except SettingsError:
        return config


def told(found: Mapping[str, tuple[object, object]]) -> str:
    """Say in which fields two mappings differ, with both values."""
    fields = [f"{path} ({short(one)}, {short(other)})" for path, (one, other) in found.items()]
    more = len(fields) - _NAMED_AT_MOST
    return ", ".join(fields[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def short(value: object) -> str:
    """Write a value of a mapping in a few words."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _method(label: str, runs: Sequence[Run], notify: Callable[[str], None]) -> Contender:
    scores: dict[Line, dict[int | str | None, Score]] = {}
    of_seed: dict[int | str, Run] = {}
    for run in runs:
        known = run.config.get("seed")
        seed = known if isinstance(known, int) else str(run.path)
        if of_seed.setdefault(seed, run) is not run:
            notify(f"{run.path} is left out: {of_seed[seed].path} is {label} with seed {seed} already")
            continue
        for model, line, score in _newest(run.scores):
            if model == _ENCODER:
                scores.setdefault(line, {})[seed] = score
    return Contender(label, scores, is_reference=False, paths=tuple(run.path for run in runs))


def _references(groups: Mapping[str, Sequence[Run]]) -> Iterator[Contender]:
    """Each reference model once, with its newest scores."""
    found: dict[str, dict[str, tuple[str, dict[Line, Score]]]] = {}
    for label, runs in groups.items():
        for run in runs:
            for model, line, score in _newest(run.scores):
                if model == _ENCODER:
                    continue
                apart = label if model == "random" else score.checkpoint_digest[:8]
                _, scores = found.setdefault(model, {}).setdefault(_identity(run, score), (apart, {}))
                if line not in scores or scores[line].created <= score.created:
                    scores[line] = score
    for model, variants in found.items():
        for apart, scores in variants.values():
            name = model if len(variants) == 1 else f"{model} ({apart})"
            yield Contender(name, {line: {None: score} for line, score in scores.items()}, is_reference=True)


def _identity(run: Run, score: Score) -> str:
    """What makes a reference model of one run that of another too."""
    if score.model == "pixels":
        return ""  # the protocol says all
    if score.model == "random":  # its digest varies with the protocol, and with the rounding of machines
        backbone = run.config.get("backbone")
        if not isinstance(backbone, Mapping):
            return str(run.path)
        return json.dumps({**backbone, "weights": None}, sort_keys=True)
    return score.checkpoint_digest


def _newest(scores: Iterable[Score]) -> Iterator[tuple[str, Line, Score]]:
    newest: dict[tuple[str, Line], Score] = {}
    for score in scores:
        key = score.model, Line(score.task, score.metric, score.protocol_digest)
        if key not in newest or newest[key].created <= score.created:
            newest[key] = score
    for (model, line), score in newest.items():
        yield model, line, score


def _name(run: Run) -> str:
    method = run.config.get("method")
    name = method.get("name") if isinstance(method, Mapping) else method
    return str(name or run.path)
