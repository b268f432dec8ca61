"""A linear head on hypercolumns of a frozen network: images, masks → **hypercolumn head** → a class a pixel.

The hypercolumn of a pixel is what all chosen stage maps say at its place, read between their cells: the maps
resized to the size of the mask and stacked, of which only the pixels that are learned from are ever computed.
A linear map of it is the sum of linear maps of the stages, so that judging whole images needs no stack
either: each stage gives its logits on its own grid, and these are resized and added up.

Source: Hariharan et al., "Hypercolumns for Object Segmentation and Fine-grained Localization", CVPR 2015.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from crosscontext.backbones import Backbone
from crosscontext.confidence import value_of
from crosscontext.datasets.contract import IGNORED, MaskDataset
from crosscontext.dense import Learned, all_places, at_places, load_pairs, places, stage_maps
from crosscontext.encoders import Encoder
from crosscontext.errors import DataError, NonFiniteError, SettingsError
from crosscontext.inference import for_inference
from crosscontext.overlap import MeanIoU, Overlap
from crosscontext.probe import Chosen, choose_penalty
from crosscontext.settings import Settings
from crosscontext.shapes import Bool, Float, Int64, UInt8
from crosscontext.subjects import Subject


class FrozenSettings(Settings):
    """Multinomial logistic regression on standardised hypercolumns; the network stays as it is."""

    name: Literal["frozen"] = "frozen"
    """The network stays as it is."""

    hypercolumns: tuple[Annotated[tuple[int, ...], Field(min_length=1)], ...] = Field(
        ((-4, -3, -2, -1), (-1,)), min_length=1
    )
    """Stages whose maps are stacked, counted as in a Python list: -1 is the last one. One head and score for
    each entry; by default all four stages, and the last one alone."""

    pixels: int = Field(100_000, ge=1)
    """Pixels that the heads learn from, equally many of each training image, drawn among those that are not
    ignored."""

    penalties: tuple[Annotated[float, Field(gt=0)], ...] = Field((1e-5, 1e-4, 1e-3, 1e-2, 1e-1), min_length=1)
    """Candidates for the weight of the L2 penalty beside the mean loss."""

    held_out: float = Field(0.2, gt=0, lt=1)
    """Share of the training images whose pixels choose the penalty by their mIoU, in (0, 1)."""

    def learn(self, subject: Subject, train: MaskDataset, scale: float) -> Learned:
        """Fit one head for each hypercolumn, all to the same pixels.

        Args:
            subject: with an encoder.
            train: images that can be read and have pixels that count.
            scale: factor of the sides of the images.

        Raises:
            SettingsError: a stage does not exist.
            DataError: there is only one image.
            NonFiniteError: the network gives maps that are no numbers.
        """
        assert isinstance(subject.model, Encoder)
        backbone = for_inference(subject.model).backbone
        chosen = {_name(stages): stages for stages in self._numbers(backbone)}
        held_out = _some(len(train.names), self.held_out, subject.seed)
        stages = sorted({stage for column in chosen.values() for stage in column})
        sample = self.sample(backbone, stages, subject, train, scale)
        num_classes = len(train.class_names)

        def mean_iou(predicted: Tensor, classes: Tensor) -> float:
            masks = classes.to(torch.uint8)[None, None]
            return value_of(MeanIoU(Overlap.of(predicted[None, None], masks, num_classes)))

        heads: dict[str, LinearHead] = {}
        details: dict[str, dict[str, object]] = {}
        for name, column in chosen.items():
            features = torch.cat([sample.columns[stage] for stage in column], dim=1)
            fit = choose_penalty(
                features, sample.classes, num_classes, held_out[sample.images], self.penalties, mean_iou
            )
            heads[name] = LinearHead.of(fit, {stage: sample.columns[stage].shape[1] for stage in column})
            details[name] = {
                "penalty": fit.penalty,
                "held_out_miou": fit.score,
                "pixels": len(features),
            }
        return Learned(HypercolumnSegmenter(backbone, heads), details)

    def sample(
        self, backbone: Backbone, stages: Sequence[int], subject: Subject, train: MaskDataset, scale: float
    ) -> "Sample":
        """Read stage maps at some pixels of the training images.

        Args:
            backbone: of the subject's encoder, or a copy.
            stages: numbers of those whose maps are read.
            subject: with an encoder.
            train: images that can be read and have pixels that count.
            scale: factor of the sides of the images.

        Raises:
            NonFiniteError: the maps are no numbers.
        """
        assert isinstance(subject.model, Encoder)
        preprocessing = subject.model.preprocessing
        device = next(backbone.parameters()).device
        of_each_image = -(-self.pixels // len(train.names))
        columns: dict[int, list[Tensor]] = {stage: [] for stage in stages}
        classes, numbers = [], []
        for indices, images, masks in load_pairs(train, preprocessing, scale, subject.workers, skipped={}):
            with torch.no_grad():
                maps = stage_maps(backbone, images.to(device, memory_format=torch.channels_last))
            for row, (index, mask) in enumerate(zip(indices, masks, strict=True)):
                y, x = _drawn(mask, of_each_image, (subject.seed, index))
                where = places(y, x, mask.shape, images.shape[-2:], backbone)[None]
                for stage, found in columns.items():
                    found.append(at_places(maps[stage][row : row + 1], where)[0, :, 0].T.float().cpu())
                classes.append(mask[y, x].long())
                numbers.append(torch.full_like(y, index))
        stacked = {stage: torch.cat(found) for stage, found in columns.items()}
        if broken := [stage for stage, found in stacked.items() if not found.isfinite().all()]:
            raise NonFiniteError(
                f"The maps of {backbone.stages[broken[0]].name} are not finite; the weights are broken. Use "
                "an earlier checkpoint, or train with a lower learning rate."
            )
        return Sample(stacked, torch.cat(classes), torch.cat(numbers))

    def _numbers(self, backbone: Backbone) -> list[tuple[int, ...]]:
        """Count the stages of each hypercolumn from 0."""
        stages = backbone.stages
        if absent := [
            i for column in self.hypercolumns for i in column if not -len(stages) <= i < len(stages)
        ]:
            listing = ", ".join(f"{i - len(stages)}: {stage.name}" for i, stage in enumerate(stages))
            raise SettingsError(
                f"The hypercolumns name the stage {absent[0]}, but the backbone has these: {listing}. "
                "Name some of them under mode.hypercolumns."
            )
        return [tuple(sorted({i % len(stages) for i in column})) for column in self.hypercolumns]


class Sample(NamedTuple):
    """Some pixels of the training images."""

    columns: dict[int, Float[Tensor, "N C"]]
    """Number of each stage → what its maps say there."""

    classes: Int64[Tensor, " N"]

    images: Int64[Tensor, " N"]
    """Number of the image of each pixel."""


class LinearHead(NamedTuple):
    """Stage maps → logits."""

    weights: dict[int, Float[Tensor, "V C 1 1"]]
    """Number of each stage → its part of a 1×1 convolution."""

    bias: Float[Tensor, " V"]

    @classmethod
    def of(cls, fit: Chosen, widths: dict[int, int]) -> "LinearHead":
        """Take the standardisation into the weights, and divide them by stages.

        Args:
            fit: to the stacked maps.
            widths: number of each stage, in the order of the stack → its channels.
        """
        weights = fit.logistic.weights / fit.standard.scale
        bias = fit.logistic.bias - weights @ fit.standard.mean
        parts = weights[..., None, None].split(list(widths.values()), dim=1)
        return cls(dict(zip(widths, parts, strict=True)), bias)

    def __call__(self, maps: Sequence[Tensor], where: Float[Tensor, "H W 2"]) -> Float[Tensor, "B V H W"]:
        """Judge the pixels at some places."""
        logits = self.bias.to(maps[0]).view(-1, 1, 1)
        for stage, weight in self.weights.items():
            logits = logits + at_places(F.conv2d(maps[stage], weight.to(maps[stage])), where)
        return logits


class HypercolumnSegmenter(NamedTuple):
    """A network and the heads on it."""

    backbone: Backbone
    heads: dict[str, LinearHead]

    def __call__(
        self, images: Float[Tensor, "B 3 h w"], mask_size: Sequence[int]
    ) -> dict[str, Float[Tensor, "B V H W"]]:
        """Judge every pixel with each head; the network runs once."""
        where = all_places(mask_size, images.shape[-2:], self.backbone)
        maps = stage_maps(self.backbone, images)
        return {name: head(maps, where) for name, head in self.heads.items()}


def _name(stages: Sequence[int]) -> str:
    """Of a hypercolumn, in metrics: its stages, the first being 1."""
    return "stages_" + "".join(str(stage + 1) for stage in stages)


def _drawn(mask: UInt8[Tensor, "H W"], count: int, seed: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Rows and columns of so many pixels that are not ignored, or of all of them; each at most once."""
    possible = np.flatnonzero(mask.numpy() != IGNORED)
    drawn = np.random.default_rng(seed).choice(possible, min(count, len(possible)), replace=False)
    y, x = np.divmod(drawn, mask.shape[1])
    return torch.from_numpy(y), torch.from_numpy(x)


def _some(size: int, share: float, seed: int) -> Bool[Tensor, " N"]:
    """Pick a share of N images at random, at least one and never all."""
    if size < 2:
        raise DataError(
            "Only one training image has pixels that count; the heads need two, one of which chooses the "
            "penalty. Give more images with masks."
        )
    picked = torch.zeros(size, dtype=torch.bool)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(size))
    picked[order[: min(max(1, round(size * share)), size - 1)]] = True
    return picked
