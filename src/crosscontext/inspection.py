"""A look at an encoder through some of its images: encoder, images → **inspection** → the page of a run.

Everything is measured on the same few hundred images, for the encoder and for its untrained twin: rough
beside the scores of `evaluate`, but no labels are needed, and each number has its pictures.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from crosscontext.confidence import Mean, interval, resample, value_of
from crosscontext.datasets.altered import AlteredDataset
from crosscontext.datasets.contract import Dataset
from crosscontext.datasets.held import hold
from crosscontext.datasets.shrunk import ShrunkDataset
from crosscontext.datasets.subset import Subset
from crosscontext.encoders import Encoder
from crosscontext.errors import DataError
from crosscontext.features import extract
from crosscontext.health import LinearCKA, feature_std, neighbour_agreement, rankme
from crosscontext.layout import layout
from crosscontext.neighbours import Neighbours, nearest
from crosscontext.preview import as_picture
from crosscontext.probe import vote
from crosscontext.randomness import permutation
from crosscontext.references import Pixels, random_twin
from crosscontext.shapes import Float, Float32, Int64
from crosscontext.tasks.health import PooledHypercolumn
from crosscontext.verdict import Contest
from crosscontext.views import ViewsSettings, draw_view

NEIGHBOURS = 10
"""That are kept of each image."""

FEWEST_IMAGES = 20
_VOTERS, _TEMPERATURE = 20, 0.07  # of the k-NN vote, as in the monitor
_HELD_GIGABYTES = 2.0
_SHOWN = 12  # images of each kind of surprise


class Surprise(NamedTuple):
    """An image that stands out."""

    row: int
    why: str


class Inspection(NamedTuple):
    """What was found; N images, K neighbours of each."""

    images: Dataset
    """Decoded, small, all of them readable."""

    skipped: int
    """Images that could not be read."""

    after: Neighbours
    """Of each image, among the others, by the features of the encoder."""

    before: Neighbours
    """By those of the untrained twin."""

    by_hypercolumn: Neighbours
    """By the stacked maps of the encoder; see `tasks.health`."""

    agreement: Float[Tensor, " N"]
    """Share of the neighbours that features and hypercolumns have in common."""

    cka: float
    """`health.LinearCKA` of features and hypercolumns."""

    points: Float32[np.ndarray, "N 2"]
    """The map, in [0, 1]."""

    rankme: float
    spread: float
    largest_rank: int
    contests: tuple[Contest, ...]
    """Against the untrained twin."""

    against_pixels: tuple[Contest, ...]
    """Against raw pixels; empty without labels."""

    lonely: tuple[Surprise, ...]
    """Least like any other."""

    contradicted: tuple[Surprise, ...]
    """Of another class than their neighbours; empty without labels."""

    divided: tuple[Surprise, ...]
    """With other neighbours in one context than in the other."""

    doubles: tuple[tuple[int, int, float], ...]
    """Pairs that are most alike, with their cosine."""


def look_at(
    encoder: Encoder,
    dataset: Dataset,
    views: ViewsSettings,
    stages: Sequence[int],
    num_images: int,
    seed: int,
    workers: int,
) -> Inspection:
    """Measure an encoder and its untrained twin on some images.

    Args:
        encoder: is left as it is.
        dataset: to draw the images from.
        views: resolved; the strong one distorts the copies that must find their originals.
        stages: of the hypercolumn, counted as in a Python list.
        num_images: to draw; all, if there are fewer.
        seed: of the choice, of the twin and of the distortions.
        workers: threads that decode.

    Raises:
        DataError: fewer than 20 of the images can be read.
        SettingsError: a stage does not exist.
    """
    preprocessing = encoder.preprocessing
    short = round(preprocessing.image_size / preprocessing.crop_fraction)
    drawn = Subset(dataset, permutation(seed, 0, len(dataset.names))[:num_images].tolist())
    held = hold(ShrunkDataset(drawn, short), _HELD_GIGABYTES)
    batch_size = 64
    features = extract(encoder, held, batch_size, workers)
    if len(features.names) < FEWEST_IMAGES:
        raise DataError(
            f"Only {len(features.names)} of {len(drawn.names)} images can be read; {FEWEST_IMAGES} are "
            "needed to tell neighbours. Give more images with --data DIR."
        )
    readable = [row for row, name in enumerate(held.names) if name not in features.skipped]
    images = Subset(held, readable)
    distorted = AlteredDataset(
        images,
        lambda _, row: as_picture(
            draw_view(images, row, views, preprocessing.image_size, ("strong", 0), (seed, 0))
        ),
    )
    copies = hold(distorted, _HELD_GIGABYTES)
    twin = random_twin(encoder, images, seed, workers)
    values, of_twin = features.values, extract(twin, images, batch_size, workers).values
    contexts = PooledHypercolumn(encoder, stages).eval()  # the encoder is in it
    stacked = extract(contexts, images, batch_size, workers).values
    finds, twin_finds = (
        _finds(extract(model, copies, batch_size, workers).values, gallery)
        for model, gallery in ((encoder, values), (twin, of_twin))
    )
    contests = [_contest("Distorted copies that find their original", False, finds, twin_finds, seed)]
    against_pixels: list[Contest] = []
    contradicted: tuple[Surprise, ...] = ()
    if features.classes is not None:
        pixels = extract(Pixels(preprocessing), images, batch_size, workers).values
        right, *others = (_right(rows, features.classes) for rows in (values, of_twin, pixels))
        what = f"Images whose class the {min(_VOTERS, len(values) - 1)} nearest of {len(values)} name"
        by_labels, *against_pixels = (_contest(what, True, right, other, seed) for other in others)
        contests.insert(0, by_labels)
    after, before, by_hypercolumn = (_others(rows, NEIGHBOURS) for rows in (values, of_twin, stacked))
    if features.classes is not None:
        contradicted = _contradicted(after, features.classes, images.class_names)
    agreement = neighbour_agreement(values, stacked, NEIGHBOURS)
    return Inspection(
        images=images,
        skipped=len(features.skipped),
        after=after,
        before=before,
        by_hypercolumn=by_hypercolumn,
        agreement=agreement,
        cka=value_of(LinearCKA.of(values, stacked)),
        points=layout(values),
        rankme=rankme(values),
        spread=feature_std(values),
        largest_rank=min(values.shape),
        contests=tuple(contests),
        against_pixels=tuple(against_pixels),
        lonely=_lonely(after),
        contradicted=contradicted,
        divided=_divided(agreement),
        doubles=_doubles(after),
    )


def _others(rows: Float[Tensor, "N D"], k: int) -> Neighbours:
    return nearest(rows, rows, k, torch.arange(len(rows)))


def _finds(copies: Float[Tensor, "N D"], originals: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
    return (nearest(copies, originals, 1).rows[:, 0] == torch.arange(len(originals))).double()


def _right(rows: Float[Tensor, "N D"], classes: Int64[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Whether the others put each image into the right class."""
    k = min(_VOTERS, len(rows) - 1)
    return (vote(_others(rows, k), classes, (k,), _TEMPERATURE)[k] == classes).double()


def _contest(
    what: str, labelled: bool, ours: Float[Tensor, " N"], twins: Float[Tensor, " N"], seed: int
) -> Contest:
    low, high = interval(resample(Mean(ours - twins), seed))
    return Contest(what, labelled, float(ours.mean()), float(twins.mean()), low, high)


def _lonely(after: Neighbours) -> tuple[Surprise, ...]:
    nearness = after.similarity.mean(dim=1)
    rows = nearness.argsort(stable=True)[:_SHOWN].tolist()
    return tuple(Surprise(row, f"mean cosine of its neighbours {nearness[row]:.2f}") for row in rows)


def _contradicted(
    after: Neighbours, classes: Int64[Tensor, " N"], class_names: Sequence[str]
) -> tuple[Surprise, ...]:
    """Find images whose neighbours agree most on another class; of equal ones, the least lonely first."""
    votes = torch.zeros(len(classes), len(class_names), dtype=torch.int64)
    votes.scatter_add_(1, classes[after.rows], torch.ones_like(after.rows))
    most, winner = votes.max(dim=1)
    strength = torch.where(winner == classes, -1.0, most + after.similarity.mean(dim=1).clamp(0, 0.99))
    rows = [
        row for row in strength.argsort(descending=True, stable=True)[:_SHOWN].tolist() if strength[row] > 0
    ]
    return tuple(
        Surprise(
            row,
            f"labelled {class_names[int(classes[row])]}; {int(most[row])} of {after.rows.shape[1]} "
            f"neighbours are {class_names[int(winner[row])]}",
        )
        for row in rows
    )


def _divided(agreement: Float[Tensor, " N"]) -> tuple[Surprise, ...]:
    rows = agreement.argsort(stable=True)[:_SHOWN].tolist()
    return tuple(
        Surprise(row, f"{round(float(agreement[row]) * NEIGHBOURS)} of {NEIGHBOURS} neighbours shared")
        for row in rows
    )


def _doubles(after: Neighbours) -> tuple[tuple[int, int, float], ...]:
    found: dict[tuple[int, int], float] = {}
    for row in after.similarity[:, 0].argsort(descending=True, stable=True).tolist():
        other = int(after.rows[row, 0])
        found.setdefault((min(row, other), max(row, other)), float(after.similarity[row, 0]))
        if len(found) == _SHOWN // 2:
            break
    return tuple((one, other, cosine) for (one, other), cosine in found.items())
