"""How well masks agree: predicted and true masks → pixels a class → **overlap** → mIoU, pixel accuracy."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from crosscontext.datasets.contract import IGNORED
from crosscontext.shapes import Float64, Int64, UInt8


class Overlap(NamedTuple):
    """Numbers of pixels of each image, by class; ignored pixels are in none of them."""

    hits: Int64[Tensor, "N V"]
    """Of this class in the mask and in the prediction."""

    in_masks: Int64[Tensor, "N V"]
    """Of this class in the mask."""

    in_predictions: Int64[Tensor, "N V"]
    """Of this class in the prediction."""

    @classmethod
    def of(
        cls, predicted: Int64[Tensor, "B H W"], masks: UInt8[Tensor, "B H W"], num_classes: int
    ) -> "Overlap":
        """Count the pixels of predictions and masks of the same size.

        Args:
            predicted: indices of classes.
            masks: indices of classes, or `IGNORED`.
            num_classes: V.
        """
        rows = []
        for prediction, mask in zip(predicted, masks.long(), strict=True):
            counted = mask != IGNORED
            is_hit = counted & (prediction == mask)
            rows.append(
                [
                    torch.bincount(classes, minlength=num_classes)
                    for classes in (mask[is_hit], mask[counted], prediction[counted])
                ]
            )
        return cls(*(torch.stack(column) for column in zip(*rows, strict=True)))

    @classmethod
    def join(cls, parts: Sequence["Overlap"]) -> "Overlap":
        """Put the images of several parts one after the other."""
        return cls(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def judged(self) -> "Overlap":
        """Leave out images all of whose pixels are ignored."""
        rows = self.in_masks.sum(dim=1) > 0
        return Overlap(*(column[rows] for column in self))


class MeanIoU(NamedTuple):
    """Mean over the classes of their intersection over union, each summed over all pixels of all images.

    The classes are those that occur in the masks of the images that are counted. Source: Everingham et al.,
    "The Pascal Visual Object Classes Challenge: A Retrospective", IJCV 2015, where all of them do::

        hits, union, occurs = zeros(V), zeros(V), zeros(V)
        for image in images:  for predicted, true in pixels_that_count(image):
            occurs[true] = 1
            union[true] += 1
            if predicted == true: hits[true] += 1
            else: union[predicted] += 1
        mean(hits[c] / union[c] for c in classes if occurs[c])
    """

    overlap: Overlap
    """Each image has a pixel that counts."""

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.overlap.hits)

    def __call__(self, counts: Float64[Tensor, "R N"]) -> Float64[Tensor, " R"]:
        """Compute the mean R times."""
        return self.of_classes(counts).nanmean(dim=1)

    def of_classes(self, counts: Float64[Tensor, "R N"]) -> Float64[Tensor, "R V"]:
        """Intersection over union of each class; NaN where it does not occur in the masks."""
        hits, in_masks, in_predictions = (counts @ pixels.double() for pixels in self.overlap)
        return torch.where(in_masks > 0, hits / (in_masks + in_predictions - hits), torch.nan)


class PixelAccuracy(NamedTuple):
    """Share of all pixels that count whose class is right."""

    overlap: Overlap
    """Each image has a pixel that counts."""

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.overlap.hits)

    def __call__(self, counts: Float64[Tensor, "R N"]) -> Float64[Tensor, " R"]:
        """Compute the share R times."""
        hits, in_masks, _ = (counts @ pixels.sum(dim=1).double() for pixels in self.overlap)
        return hits / in_masks
