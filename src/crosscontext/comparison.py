"""Scores side by side: runs → **comparison** → table, CSV or JSON.

Only scores of equal protocol stand in one row. A method has a mean and a t-interval over its seeds; with one
seed it has the bootstrap interval over the test images. Differences are paired, by seed or by image.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from crosscontext.complaints import nearest
from crosscontext.confidence import CONFIDENCE, interval
from crosscontext.contenders import BySeed, Contender, Line, contenders_of, read_run, short, told
from crosscontext.errors import SettingsError
from crosscontext.results import ABSENT, Score, differences, unpack
from crosscontext.settings import Settings
from crosscontext.shapes import Float64

Format = Literal["markdown", "csv", "json"]

_LEAST_SEEDS = 2  # of an interval over seeds


class CompareSettings(Settings):
    """Which runs are compared, and how the table is written."""

    runs: tuple[Path, ...] = Field(min_length=1)
    """Run folders, or files of results. Runs that differ in their seed alone are one method."""

    labels: tuple[str, ...] = ()
    """Names of the methods, one for each run: runs of equal name are one method. By default the settings of
    the runs decide."""

    baseline: str | None = None
    """What the others are subtracted from: name of a method or of a reference, or one of the runs, which
    stands for its method; by default the first method."""

    format: Format = "markdown"
    """Of what is printed."""

    @model_validator(mode="after")
    def _refuse_what_does_not_fit(self) -> "CompareSettings":
        if len(set(self.runs)) < len(self.runs):
            twice = next(run for run in self.runs if self.runs.count(run) > 1)
            raise ValueError(f"{twice} is given twice among the runs. Give each run once.")
        if self.labels and len(self.labels) != len(self.runs):
            raise ValueError(
                f"There are {len(self.runs)} runs and {len(self.labels)} labels. Give one label for each, in "
                "the order of the runs, or none."
            )
        return self


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Estimate(_Record):
    """A value of a method or of a difference, and how sure it is."""

    value: float
    """Mean over the seeds."""

    low: float | None
    """Lower end of the 95 % interval; None where there is none."""

    high: float | None
    """Upper end of the interval."""

    over: Literal["seeds", "images"]
    """seeds: t-interval over training runs. images: bootstrap interval over the test images, for the trained
    networks as they are."""

    seeds: int = Field(ge=1)
    """Training runs, or pairs of them, that the value is a mean of; 1 for a reference."""


class Row(_Record):
    """One metric under one protocol."""

    task: str
    metric: str

    conditions: str
    """What tells the row from others of the same metric; empty where there is one."""

    unit: Literal["share", "number"]
    """As of `Score`."""

    protocol_digest: str
    protocol: dict[str, JsonValue]

    cells: dict[str, Estimate]
    """By label; without those that have no such score."""

    differences: dict[str, Estimate]
    """From the baseline, by label."""


class Comparison(_Record):
    """A table."""

    labels: tuple[str, ...]
    """Of the columns: methods in the order of the runs, then references."""

    baseline: str
    rows: tuple[Row, ...]

    notes: tuple[str, ...]
    """What is not in the table, and why."""


def compare(settings: CompareSettings, notify: Callable[[str], None] = lambda _: None) -> Comparison:
    """Compare runs by the scores in their results files.

    Args:
        settings: see there.
        notify: is told in one line each what is left out, and why.

    Raises:
        RunFolderError: there are no results, or a line of them is no score.
        SettingsError: no two methods share a protocol, or there is no such baseline.
    """
    runs = [read_run(path, notify) for path in settings.runs]
    comparison = line_up(contenders_of(runs, settings.labels, notify), settings.baseline)
    for note in comparison.notes:
        notify(note)
    return comparison


def line_up(contenders: Sequence[Contender], baseline: str | None = None) -> Comparison:
    """Put scores of equal protocol side by side.

    Args:
        contenders: methods and references, with labels of their own.
        baseline: label of the one that is subtracted, or the path of a run of it; by default the first method
            that is in the table.

    Raises:
        SettingsError: there is no score that can be compared, or no such label.
    """
    methods = [contender for contender in contenders if not contender.is_reference]
    kept, notes = _comparable(methods)
    if not kept:
        named = ", ".join(contender.label for contender in contenders)
        raise SettingsError("\n".join([f"There is nothing to compare in {named}.", *notes]))
    shown = {c.label: c for c in contenders if any(line in c.scores for line in kept)}
    baseline = next(iter(shown)) if baseline is None else baseline
    if baseline not in shown:
        baseline = next((label for label, c in shown.items() if Path(baseline) in c.paths), baseline)
    if baseline not in shown:
        hint = nearest(baseline, list(shown)) or "."
        raise SettingsError(f"There is no baseline '{baseline}'; there are {', '.join(shown)}{hint}")
    rows = [
        _row(line, conditions, list(shown.values()), shown[baseline]) for line, conditions in kept.items()
    ]
    return Comparison(labels=tuple(shown), baseline=baseline, rows=tuple(rows), notes=tuple(notes))


def estimate(scores: Sequence[Score]) -> Estimate:
    """Mean over seeds with its t-interval; of a single score, its bootstrap interval over the images."""
    if len(scores) >= _LEAST_SEEDS:
        return _over_seeds([score.value for score in scores])
    (score,) = scores
    return Estimate(value=score.value, low=score.low, high=score.high, over="images", seeds=1)


def difference(one: BySeed, other: BySeed) -> Estimate:
    """Subtract the scores of another contender, in pairs.

    With two or more seeds in common, a pair is a seed: the same order of images, the same first weights. Else
    a pair is a test image, as resampled for both; there is no interval if they were resampled differently, or
    the resamples were not kept.

    Args:
        one: its scores under some protocol.
        other: the baseline's under the same protocol.
    """
    pairs = list(_shared(one, other))
    if len(pairs) >= _LEAST_SEEDS:
        return _over_seeds([left.value - right.value for left, right in pairs])
    value = float(np.mean([s.value for s in one.values()]) - np.mean([s.value for s in other.values()]))
    resamples = {(s.n, s.seed, len(s.replicates)) for s in (*one.values(), *other.values())}
    low, high = (
        interval(_mean_replicates(one) - _mean_replicates(other))
        if len(resamples) == 1 and all(length for *_, length in resamples)
        else (None, None)
    )
    return Estimate(value=value, low=low, high=high, over="images", seeds=min(len(one), len(other)))


def _over_seeds(values: Sequence[float]) -> Estimate:
    from scipy.special import stdtrit

    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    half = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * error
    return Estimate(value=mean, low=mean - half, high=mean + half, over="seeds", seeds=len(values))


def _mean_replicates(scores: BySeed) -> Float64[np.ndarray, " R"]:
    replicates = [unpack(score.replicates).astype(np.float64) for score in scores.values()]
    return np.asarray(np.mean(replicates, axis=0))


def _shared(one: BySeed, other: BySeed) -> Iterator[tuple[Score, Score]]:
    """Pair scores of the same seed; a reference goes with each seed."""
    for seed in dict.fromkeys([*one, *other]):
        left, right = one.get(seed, one.get(None)), other.get(seed, other.get(None))
        if seed is not None and left is not None and right is not None:
            yield left, right


def _row(line: Line, conditions: str, contenders: Sequence[Contender], subtracted: Contender) -> Row:
    scores = {c.label: c.scores[line] for c in contenders if line in c.scores}
    against = subtracted.scores.get(line)
    some = _some(scores.values())
    return Row(
        task=line.task,
        metric=line.metric,
        conditions=conditions,
        unit=some.unit,
        protocol_digest=line.protocol_digest,
        protocol=some.protocol,
        cells={label: estimate(list(by_seed.values())) for label, by_seed in scores.items()},
        differences={
            label: difference(by_seed, against)
            for label, by_seed in scores.items()
            if against is not None and label != subtracted.label
        },
    )


def _comparable(methods: Sequence[Contender]) -> tuple[dict[Line, str], list[str]]:
    """Choose the lines that at least two methods share; of a single method, all.

    Returns:
        The lines, each with what tells it from others of its metric; and why methods are missing in them.
    """
    kept: dict[Line, str] = {}
    notes: list[str] = []
    all_lines = dict.fromkeys(line for method in methods for line in method.scores)
    for metric in dict.fromkeys((line.task, line.metric) for line in all_lines):
        lines = [line for line in all_lines if (line.task, line.metric) == metric]
        owners = {line: [method for method in methods if line in method.scores] for line in lines}
        shared = [line for line in lines if len(owners[line]) > 1 or len(methods) == 1]
        kept |= _told_apart({line: _protocol(owners[line][0], line) for line in shared})
        notes += [f"{' '.join(metric)}: {why}" for why in _refusals(methods, lines, shared)]
    return kept, notes


def _refusals(methods: Sequence[Contender], lines: Sequence[Line], shared: Sequence[Line]) -> Iterator[str]:
    """Say why methods that have a metric have no score in the lines that are shared."""
    having = [method for method in methods if any(line in method.scores for line in lines)]
    if len(having) == 1 < len(methods):
        yield f"only {having[0].label} has it"
    line = (shared or lines)[0]
    inside = next(method for method in having if line in method.scores)
    protocol = _protocol(inside, line)
    for other in having:
        if other is not inside and not any(line in other.scores for line in shared):
            its_own = [_protocol(other, line) for line in lines if line in other.scores]
            found = min((differences(protocol, another) for another in its_own), key=len)
            yield f"the protocols of {inside.label} and {other.label} differ in {told(found)}"


def _told_apart(protocols: Mapping[Line, Mapping[str, JsonValue]]) -> dict[Line, str]:
    """Find what differs among the protocols of one metric, and say how it is in each."""
    first = next(iter(protocols.values()), {})
    varying = {path for protocol in protocols.values() for path in differences(first, protocol)}
    return {
        line: ", ".join(f"{path} {short(_at(path, protocol))}" for path in sorted(varying))
        for line, protocol in protocols.items()
    }


def _at(path: str, content: Mapping[str, JsonValue]) -> JsonValue:
    value: JsonValue = dict(content)
    for key in path.split("."):
        value = value.get(key, ABSENT) if isinstance(value, dict) else ABSENT
    return value


def _protocol(contender: Contender, line: Line) -> dict[str, JsonValue]:
    return _some([contender.scores[line]]).protocol


def _some(found: Iterable[BySeed]) -> Score:
    return next(score for by_seed in found for score in by_seed.values())
