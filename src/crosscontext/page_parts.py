"""What the page of a run tells in words, tables and curves: run folder → **page parts** → the template."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from crosscontext.charts import COLOURS, Inks, Line, Panel, draw
from crosscontext.comparison import difference
from crosscontext.encoders import Encoder
from crosscontext.planning import PretrainSettings
from crosscontext.results import Score, shown
from crosscontext.run_folder import RunFolder
from crosscontext.verdict import Contest

Metrics = Sequence[Mapping[str, int | float]]
"""The lines of metrics.jsonl."""

_MOST_POINTS = 120
_LAST_PART = 0.8  # of a run, from which on its trend is taken
_OF_THE_PAGE = Inks("currentColor", "var(--rule)", "none")
_KNN = "val/knn_top1"
_ENCODER = "encoder"


class _Kind(NamedTuple):
    """What one panel shows."""

    title: str
    meaning: str
    names: str
    """Of its scalars, as a regular expression."""

    up: tuple[float, float] | None = None
    """Ends of the vertical axis."""


_KINDS = (
    _Kind("Loss", "What training makes smaller.", r"train/loss(_\w+)?"),
    _Kind("k-NN accuracy", "Share of training images whose nearest others name the right class.", _KNN),
    _Kind("RankMe", "Dimensions that the features use; a fall to 1 is a collapse.", "health/rankme"),
    _Kind("Spread of the features", "From 0, a collapse, to 1.", "health/feature_std", (0.0, 1.0)),
    _Kind(
        "Entropy of the relations",
        "As a share of the largest; at 1 a relation says nothing, at 0 it knows one image alone.",
        r"health/relation_entropy_\w+",
        (0.0, 1.0),
    ),
    _Kind("Learning rate", "", "train/lr"),
    _Kind("Images per second", "Without measurements and checkpoints.", "time/images_per_second"),
)


class Curve(NamedTuple):
    """One panel."""

    title: str
    meaning: str
    svg: str
    told: str
    """The panel in words, for those who do not see it."""

    lines: tuple[tuple[str, str], ...]
    """Label and colour of each; empty where there is but one."""


class Cell(NamedTuple):
    """One score."""

    model: str
    shown: str
    at: float
    """Place of the value in the row, in per cent of its width."""

    low: float
    high: float


class ScoreRow(NamedTuple):
    """One metric under one protocol, of all models."""

    name: str
    cells: tuple[Cell, ...]


def curves_of(metrics: Metrics) -> list[Curve]:
    """Draw whatever was measured; points of long runs are means."""
    names = sorted({name for line in metrics for name in line})
    found = []
    for kind in _KINDS:
        lines = [_line(metrics, name) for name in names if re.fullmatch(kind.names, name)]
        if lines:
            told = "; ".join(
                f"{line.label} from {line.ys[0]:.4g} to {line.ys[-1]:.4g}, least {min(line.ys):.4g}, "
                f"most {max(line.ys):.4g}"
                for line in lines
            )
            svg = draw([[Panel("", "images seen", lines, kind.up)]], legend=False, inks=_OF_THE_PAGE)
            legend = tuple((line.label, colour) for line, colour in zip(lines, COLOURS, strict=False))
            found.append(Curve(kind.title, kind.meaning, svg, told, legend if len(lines) > 1 else ()))
    return found


def rise_of(metrics: Metrics) -> float | None:
    """By how much the k-NN accuracy rose over the last fifth of the run; None where it was not measured."""
    measured = [(line["step"], line[_KNN]) for line in metrics if _KNN in line]
    early = [value for step, value in measured if step <= _LAST_PART * measured[-1][0]]
    return measured[-1][1] - early[-1] if early else None


def last_of(metrics: Metrics, name: str) -> float | None:
    """Look up what a scalar was when it was last measured."""
    return next((float(line[name]) for line in reversed(metrics) if name in line), None)


def score_rows(scores: Sequence[Score]) -> list[ScoreRow]:
    """Put the latest score of each model beside those of the other models, the encoder first."""
    latest = {(score.task, score.metric, score.protocol_digest, score.model): score for score in scores}
    rows: dict[tuple[str, str, str], list[Score]] = {}
    for (*row, _), score in latest.items():
        rows.setdefault((row[0], row[1], row[2]), []).append(score)
    return [_row(f"{task} {metric}", of_row) for (task, metric, _), of_row in rows.items()]


def contests_of(scores: Sequence[Score], rival: str) -> list[Contest]:
    """Find where an encoder and a rival were scored in k-NN or linear accuracy, k-NN first.

    Args:
        scores: of all models.
        rival: name of a reference: random (the untrained twin) or pixels.
    """
    found = []
    for task, metric in (("knn", "top1_k20"), ("linear", "top1"), ("knn", "top1")):
        latest = {
            (score.protocol_digest, score.model): score
            for score in scores
            if score.task == task and score.metric == metric
        }
        for (protocol, model), ours in latest.items():
            theirs = latest.get((protocol, rival))
            if model == _ENCODER and theirs is not None:
                gap = difference({None: ours}, {None: theirs})
                if gap.low is not None and gap.high is not None:
                    what = f"{ours.n} test images, right by {'k-NN' if task == 'knn' else 'a linear probe'}"
                    found.append(Contest(what, True, ours.value, theirs.value, gap.low, gap.high))
    return found


def facts_of(
    saved: PretrainSettings | None, encoder: Encoder, metrics: Metrics, folder: RunFolder
) -> list[tuple[str, str]]:
    """List what was trained, on what, and how long, for people."""
    step, images = (metrics[-1]["step"], metrics[-1]["images"]) if metrics else (encoder.card.step, None)
    weights = sum(parameter.numel() for parameter in encoder.parameters())
    backbone = encoder.backbone_settings.model_dump(mode="json")
    named = ", ".join(str(value) for key, value in backbone.items() if value is not None and key != "name")
    facts = [
        ("Backbone", f"{backbone['name']} ({named}), {weights / 1e6:.2f} million weights"),
        ("Features", f"{encoder.width} numbers an image of {encoder.preprocessing.image_size} px"),
    ]
    if saved is not None:
        data = saved.data.model_dump(mode="json", exclude_none=True)
        told = [f"{key} {value}" for key, value in data.items() if key != "name" and value is not False]
        facts[:0] = [("Method", saved.method.name), ("Images", ", ".join([data["name"], *told]))]
        facts.append(("Batch, seed", f"{saved.batch_size} images, seed {saved.seed}"))
    facts.append(("Steps", f"{step:,}" + (f", {images:,} images seen" if images is not None else "")))
    if (speed := last_of(metrics, "time/images_per_second")) is not None:
        facts.append(("Speed", f"{speed:.0f} images a second"))
    if folder.environment.is_file():
        machine = json.loads(folder.environment.read_text(encoding="utf-8"))
        of_interest = ("device", "cores", "threads", "torch", "crosscontext")
        facts.append(("Machine", ", ".join(f"{key} {machine[key]}" for key in of_interest if key in machine)))
    facts.append(("Weights", f"digest {encoder.digest}"))
    return facts


def _line(metrics: Metrics, name: str) -> Line:
    measured = np.array([(line["images"], line[name]) for line in metrics if name in line], dtype=np.float64)
    parts = np.array_split(measured, min(len(measured), _MOST_POINTS))
    label = name.partition("/")[2].removeprefix("relation_entropy_").replace("_", " ")
    return Line(label, [float(part[-1, 0]) for part in parts], [float(part[:, 1].mean()) for part in parts])


def _row(name: str, scores: Sequence[Score]) -> ScoreRow:
    low, high = min(score.low for score in scores), max(score.high for score in scores)

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2) if high > low else 50.0

    ordered = sorted(scores, key=lambda score: score.model != _ENCODER)
    return ScoreRow(
        name,
        tuple(
            Cell(score.model, shown(score), place(score.value), place(score.low), place(score.high))
            for score in ordered
        ),
    )
