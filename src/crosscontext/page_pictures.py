"""The pictures on the page of a run: inspection → **page pictures** → the template."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from crosscontext.contexts import hypercolumn
from crosscontext.encoders import Encoder
from crosscontext.inspection import NEIGHBOURS, Inspection
from crosscontext.preview import as_picture
from crosscontext.sprites import data_uri, sheet_of
from crosscontext.stage_pictures import stage_pictures
from crosscontext.views import ViewsSettings, draw_view

_THUMBNAILS = (32, 96)  # smallest and largest side, in pixels
_QUERIES, _PAINTED, _WITH_VIEWS = 8, 6, 4


class DrawnViews(NamedTuple):
    """Which views are drawn of an image."""

    settings: ViewsSettings
    """Resolved."""

    kinds: tuple[tuple[str, int], ...]
    """Name of each view, and number of the copy."""

    side: int
    """Of the weak and strong views, in pixels; the encoder's pictures may be larger."""


class Painted(NamedTuple):
    """One image as the stages of the network see it."""

    row: int
    input: str
    stages: tuple[str, ...]


class Viewed(NamedTuple):
    """One image and its views."""

    name: str
    image: str
    views: tuple[tuple[str, str], ...]
    """Name and picture of each."""


def pictures_of(
    found: Inspection,
    encoder: Encoder,
    views: DrawnViews,
    stages: Sequence[int],
    seed: int,
) -> dict[str, object]:
    """Make everything that the template shows of images.

    Args:
        found: at least 20 images.
        encoder: in evaluation mode.
        views: that are drawn of some images.
        stages: of the hypercolumn, counted as in a Python list.
        seed: of the views.
    """
    images, (smallest, largest) = found.images, _THUMBNAILS
    size, labels = encoder.preprocessing.image_size, images.labels
    names = [stage.name for stage in encoder.backbone.stages]
    return {
        "found": found,
        "sheet": sheet_of(
            [images.image(row) for row in range(len(images.names))], min(max(size, smallest), largest)
        ),
        "names": list(images.names),
        "classes": None if labels is None else [labels.class_names[i] for i in labels.classes],
        "queries": list(range(_QUERIES)),
        "viewed": list(_viewed(found, views, seed)),
        "painted": _painted(encoder, found, stages),
        "shared": (found.agreement * NEIGHBOURS).round().long().bincount(minlength=NEIGHBOURS + 1).tolist(),
        "stage_names": [*names, "hypercolumn"],
        "stacked": " + ".join(names[i] for i in stages),
        "map": {
            "points": [[round(float(x), 4), round(float(y), 4)] for x, y in found.points],
            "names": list(images.names),
            "classes": None if labels is None else labels.classes.tolist(),
            "classNames": None if labels is None else list(labels.class_names),
            "after": found.after.rows.tolist(),
            "before": found.before.rows.tolist(),
        },
    }


def _viewed(found: Inspection, views: DrawnViews, seed: int) -> Iterator[Viewed]:
    for row in range(_WITH_VIEWS):
        drawn = []
        for view in views.kinds:
            values = draw_view(found.images, row, views.settings, views.side, view, (seed, 0))
            drawn.append((view[0], data_uri(as_picture(values))))
        yield Viewed(found.images.names[row], data_uri(found.images.image(row)), tuple(drawn))


def _painted(encoder: Encoder, found: Inspection, stages: Sequence[int]) -> list[Painted]:
    """Paint the maps of all stages and of the hypercolumn over a few images."""
    preprocessing = encoder.preprocessing
    inputs = torch.stack([encoder.preprocess(found.images.image(row)) for row in range(_PAINTED)])
    with torch.no_grad():
        maps = encoder.backbone(inputs.to(next(encoder.parameters()).device))
    shown = [*maps, hypercolumn([maps[i] for i in stages])]
    painted = [stage_pictures(stage_map.float()) for stage_map in shown]
    return [
        Painted(
            row,
            data_uri(as_picture(inputs[row], preprocessing.mean, preprocessing.std)),
            tuple(data_uri(of_stage[row], lossless=True) for of_stage in painted),
        )
        for row in range(_PAINTED)
    ]
