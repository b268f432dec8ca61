"""How well boxes are found: detections and true boxes → **average_precision** → a statistic of the images.

Source: Lin et al., "Microsoft COCO", ECCV 2014, and its evaluation (cocodataset.org/#detection-eval). Which
detection finds which box is left to pycocotools; what follows is computed here, since it has to be done again
for each resample.
"""

import contextlib
import io
from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crosscontext.datasets.contract import Boxes
from crosscontext.errors import SettingsError
from crosscontext.shapes import Bool, Float32, Float64, Int64

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Overlaps (intersection over union) from which on a box counts as found."""

_RECALLS = np.linspace(0, 1, 101)  # at which precision is read; to the last bit those of pycocotools
_VALUES_AT_ONCE = 2**21


class Detections(NamedTuple):
    """What a detector found in one image."""

    corners: Float32[np.ndarray, "M 4"]
    """Left, top, right and bottom edge, in pixels of the whole image."""

    classes: Int64[np.ndarray, " M"]
    scores: Float32[np.ndarray, " M"]
    """How sure the detector is, in [0, 1]."""


class ClassMatches(NamedTuple):
    """All detections of one class, the surest first, and which of them are right."""

    images: Int64[Tensor, " D"]
    """Of each detection."""

    scores: Float64[Tensor, " D"]
    right: Bool[Tensor, "T D"]
    """Whether a detection found a box, at each of `IOU_THRESHOLDS`."""

    ignored: Bool[Tensor, "T D"]
    """Whether a detection counts neither as right nor as wrong, since it lies on a difficult object."""

    boxes_of_image: Float64[Tensor, " N"]
    """How many boxes there are to be found in each image; difficult ones are not among them."""


class AveragePrecision(NamedTuple):
    """Mean over classes and overlaps of the area under the curve of precision over recall.

    A class without a box is left out of the mean, in a resample as in the whole, as COCO does it. Without a
    single box the value is 0.
    """

    matches: Sequence[ClassMatches]
    thresholds: Sequence[int]
    """Which of `IOU_THRESHOLDS`: all of them for AP, 0 for AP50, 5 for AP75."""

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.matches[0].boxes_of_image)

    def __call__(self, counts: Float64[Tensor, "R N"]) -> Float64[Tensor, " R"]:
        """Compute it R times."""
        of_classes = torch.stack([_of_class(matches, self.thresholds, counts) for matches in self.matches])
        return of_classes.nanmean(dim=0).nan_to_num(0.0)


def match(
    found: Sequence[Detections], boxes: Sequence[Boxes], num_classes: int, max_detections: int
) -> list[ClassMatches]:
    """Assign the detections of each image to its boxes, the surest first.

    Difficult boxes are treated as COCO's crowds: what finds them, or a part of them, is ignored.

    Args:
        found: in each image.
        boxes: to be found, image by image.
        num_classes: of the data set.
        max_detections: of one class that count in one image, the surest ones.

    Returns:
        One record a class.

    Raises:
        SettingsError: pycocotools is not installed.
    """
    evaluated = _pycocotools(found, boxes, num_classes, max_detections)
    return [
        _of_evaluated(evaluated[start : start + len(found)]) for start in range(0, len(evaluated), len(found))
    ]


def require_pycocotools() -> tuple[type, type]:
    """Import what matches are found with, before anything is trained in vain.

    Returns:
        The classes of annotations and of their evaluation.

    Raises:
        SettingsError: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise SettingsError(
            'The task detect needs pycocotools, which is not installed: pip install "crosscontext[detect]".'
        ) from error
    return COCO, COCOeval


def _of_class(
    matches: ClassMatches, thresholds: Sequence[int], counts: Float64[Tensor, "R N"]
) -> Float64[Tensor, " R"]:
    rows = max(1, _VALUES_AT_ONCE // max(len(matches.images), 1))
    return torch.cat([_of_rows(matches, thresholds, part) for part in counts.split(rows)])


def _of_rows(
    matches: ClassMatches, thresholds: Sequence[int], counts: Float64[Tensor, "R N"]
) -> Float64[Tensor, " R"]:
    """Walk along the detections once for all resamples, and stop at those that are right.

    An image that is drawn three times has each of its detections three times, one behind the other. Precision
    has its peaks at right detections, so it is computed there alone.
    """
    num_boxes = (counts @ matches.boxes_of_image)[:, None]  # (R, 1)
    weights = _columns(counts, matches.images)  # (R, D)
    seen = weights.cumsum(dim=1)
    total = counts.new_zeros(len(counts))
    for threshold in thresholds:
        right = matches.right[threshold].nonzero().flatten()  # (P,)
        ignored = matches.ignored[threshold].nonzero().flatten()
        ignored_so_far = F.pad(_columns(weights, ignored).cumsum(dim=1), (1, 0))
        counted = _columns(seen, right) - _columns(ignored_so_far, torch.searchsorted(ignored, right))
        hits = _columns(weights, right).cumsum(dim=1)  # (R, P)
        precision = hits / counted.clamp_min(1)
        best_from_here = precision.flip(1).cummax(dim=1).values.flip(1)
        recalls = torch.from_numpy(_RECALLS).expand(len(counts), -1).contiguous()
        places = torch.searchsorted(hits / num_boxes.clamp_min(1), recalls)  # (R, 101)
        read = F.pad(best_from_here, (0, 1))  # 0 at recalls that are not reached
        total += read.gather(1, places).mean(dim=1)
    return torch.where(num_boxes[:, 0] > 0, total / len(thresholds), torch.nan)


def _columns(values: Float64[Tensor, "R D"], places: Int64[Tensor, " P"]) -> Float64[Tensor, "R P"]:
    """Look columns up row by row; column by column, as indexing does it, takes several times as long."""
    return values.gather(1, places.expand(len(values), -1))


def _of_evaluated(images: Sequence[dict[str, Any] | None]) -> ClassMatches:
    """Put the images of one class together; None stands for neither box nor detection."""
    none = np.zeros((len(IOU_THRESHOLDS), 0))
    places = [(i, e) for i, e in enumerate(images) if e is not None]
    scores = np.concatenate([np.zeros(0), *(e["dtScores"] for _, e in places)])
    order = np.argsort(-scores, kind="stable")  # equally sure ones stay in the order of the images
    right = np.concatenate([none, *(e["dtMatches"] for _, e in places)], axis=1)[:, order] > 0
    ignored = np.concatenate([none, *(e["dtIgnore"] for _, e in places)], axis=1)[:, order] > 0
    numbers = np.concatenate([np.full(len(e["dtScores"]), i) for i, e in places] or [np.zeros(0)])[order]
    boxes_of_image = [0 if e is None else np.count_nonzero(np.asarray(e["gtIgnore"]) == 0) for e in images]
    return ClassMatches(
        torch.from_numpy(numbers.astype(np.int64)),
        torch.from_numpy(scores[order]),
        torch.from_numpy(right & ~ignored),
        torch.from_numpy(ignored),
        torch.tensor(boxes_of_image, dtype=torch.float64),
    )


def _pycocotools(
    found: Sequence[Detections], boxes: Sequence[Boxes], num_classes: int, max_detections: int
) -> list[dict[str, Any] | None]:
    """Ask for the matches, one record for each class and image, classes outside."""
    COCO, COCOeval = require_pycocotools()  # noqa: N806 (they are classes)

    def coco(annotations: list[dict[str, Any]]) -> Any:
        listed = COCO()
        listed.dataset = {
            "images": [{"id": image} for image in range(len(found))],
            "categories": [{"id": number} for number in range(num_classes)],
            "annotations": annotations,
        }
        listed.createIndex()
        return listed

    true, detected = count(1), count(1)  # 0 would mean that nothing was found
    with contextlib.redirect_stdout(io.StringIO()):  # it prints, and standard output is for results
        evaluation = COCOeval(
            coco(
                [
                    _annotation(next(true), image, corners, label, iscrowd=int(difficult))
                    for image, of_image in enumerate(boxes)
                    for corners, label, difficult in zip(*of_image, strict=True)
                ]
            ),
            coco(
                [
                    _annotation(next(detected), image, corners, label, score=float(score))
                    for image, in_image in enumerate(found)
                    for corners, label, score in zip(*in_image, strict=True)
                ]
            ),
            "bbox",
        )
        evaluation.params.iouThrs = IOU_THRESHOLDS
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [max_detections]
        evaluation.evaluate()
    return list(evaluation.evalImgs)


def _annotation(
    number: int, image: int, corners: Float32[np.ndarray, " 4"], label: np.int64, **more: float | int
) -> dict[str, Any]:
    left, top, right, bottom = corners.astype(np.float64).tolist()
    bbox = [left, top, right - left, bottom - top]
    area = bbox[2] * bbox[3]
    return {"id": number, "image_id": image, "category_id": int(label), "bbox": bbox, "area": area, **more}
