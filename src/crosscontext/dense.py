"""Whole pictures with their masks, and what stage maps say of a pixel: masks → **dense** → segmentation.

Pictures keep their size and shape; the square crop of an encoder's preprocessing is for features. Which of
them go through a network together depends on the data set alone, so that nothing else changes a number.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from crosscontext.backbones.contract import Backbone
from crosscontext.datasets.contract import MaskDataset
from crosscontext.datasets.subset import MaskSubset
from crosscontext.encoders import Preprocessing
from crosscontext.errors import DataError, ImageError
from crosscontext.prefetching import ahead, in_batches
from crosscontext.shapes import Float, Int64, UInt8

_PAIRS_AT_ONCE = 8
_CAUSES_SHOWN = 3
_PIXELS_AT_ONCE = 8 * 224**2  # what stays in the caches of a CPU, see `inference`


class Pairs(NamedTuple):
    """Images of one size, with their masks."""

    indices: list[int]
    """In the data set."""

    images: Float[Tensor, "B 3 h w"]
    """Normalised, on the CPU."""

    masks: UInt8[Tensor, "B H W"]
    """Of the size of the files, whatever the scale of the images."""


@runtime_checkable
class Segmenter(Protocol):
    """What a segmentation head has learned."""

    def __call__(
        self, images: Float[Tensor, "B 3 h w"], mask_size: Sequence[int]
    ) -> dict[str, Float[Tensor, "B V H W"]]:
        """Judge every pixel of some images.

        Args:
            images: normalised.
            mask_size: height and width of the masks.

        Returns:
            Name of each head → its logits.
        """


class Learned(NamedTuple):
    """A segmenter, and what was found out on the way."""

    segmenter: Segmenter

    details: dict[str, dict[str, object]]
    """Of each head, by its name."""


def read_pair(dataset: MaskDataset, index: int) -> tuple[UInt8[Tensor, "3 H W"], UInt8[Tensor, "H W"]]:
    """Decode an image and its mask.

    Raises:
        ImageError: one of them cannot be decoded.
        DataError: they differ in size, or as of `MaskDataset.mask`.
    """
    pixels, mask = dataset.pixels(index), dataset.mask(index)
    if pixels.shape[:2] != mask.shape:
        (height, width), (mask_height, mask_width) = pixels.shape[:2], mask.shape
        raise DataError(
            f"the image {dataset.names[index]!r} has {width} × {height} pixels (upright), its mask "
            f"{mask_width} × {mask_height}. Give both the same size."
        )
    return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(mask)


def readable_pair(
    dataset: MaskDataset, index: int, skipped: dict[str, str]
) -> tuple[UInt8[Tensor, "3 H W"], UInt8[Tensor, "H W"]] | None:
    """Decode an image and its mask, or note in `skipped` why one of them cannot be decoded."""
    try:
        return read_pair(dataset, index)
    except ImageError as error:
        skipped[dataset.names[index]] = str(error)
        return None


class Usable(NamedTuple):
    """The images of a set from which something can be learned."""

    images: MaskDataset
    """They can be read, and have pixels that count."""

    pixels: Int64[Tensor, " V"]
    """Number of pixels of each class."""


def usable(dataset: MaskDataset, workers: int, skipped: dict[str, str]) -> Usable:
    """Read all images and masks once, and keep those from which something can be learned.

    Args:
        dataset: is read from several threads.
        workers: threads; 0 counts as 1.
        skipped: receives the name and the cause of each image that cannot be decoded, or whose mask cannot.

    Raises:
        DataError: none is left, or as of `read_pair`.
    """
    num_classes = len(dataset.class_names)

    def count(index: int) -> tuple[int, Tensor]:
        pair = readable_pair(dataset, index, skipped)
        classes = torch.empty(0, dtype=torch.uint8) if pair is None else pair[1].flatten()
        return index, torch.bincount(classes, minlength=num_classes)[:num_classes]

    batches = in_batches(len(dataset.names), _PAIRS_AT_ONCE)
    numbers = [pair for loads in ahead(count, batches, workers) for pair in loads]
    kept = [index for index, pixels in numbers if pixels.any()]
    if not kept:
        raise nothing_counts(dataset, "training", skipped)
    return Usable(MaskSubset(dataset, kept), torch.stack([pixels for _, pixels in numbers]).sum(dim=0))


def nothing_counts(dataset: MaskDataset, part: str, skipped: dict[str, str]) -> DataError:
    """Complain that a part of a set is empty once unreadable images and ignored pixels are left out."""
    causes = "; ".join(list(skipped.values())[:_CAUSES_SHOWN]) or "all of them are ignored"
    return DataError(
        f"None of {len(dataset.names)} {part} images has a pixel that counts ({causes}). Check the images "
        "and masks, and which values of masks are ignored (--data.ignored)."
    )


def normalised(pixels: UInt8[Tensor, "B 3 h w"], preprocessing: Preprocessing) -> Float[Tensor, "B 3 h w"]:
    """Turn bytes into the values that an encoder takes."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return (pixels.float() / 255 - mean) / std


def load_pairs(
    dataset: MaskDataset, preprocessing: Preprocessing, scale: float, workers: int, skipped: dict[str, str]
) -> Iterator[Pairs]:
    """Decode all images with their masks, in order, a few ahead of the network.

    Args:
        dataset: is read from several threads.
        preprocessing: its normalisation is used.
        scale: factor of the sides of the images; those of the masks stay.
        workers: threads; 0 counts as 1.
        skipped: receives the name and the cause of each image that cannot be decoded, or whose mask cannot.

    Raises:
        DataError: as of `read_pair`.
    """

    def load(index: int) -> tuple[int, Tensor, Tensor] | None:
        pair = readable_pair(dataset, index, skipped)
        return pair and (index, _scaled(pair[0], scale), pair[1])

    for loads in ahead(load, in_batches(len(dataset.names), _PAIRS_AT_ONCE), workers):
        loaded = [triple for triple in loads if triple is not None]
        for (size, _), group in groupby(loaded, lambda pair: (pair[1].shape, pair[2].shape)):
            members = list(group)
            at_once = max(1, _PIXELS_AT_ONCE // size[1:].numel())
            for start in range(0, len(members), at_once):
                indices, pixels, masks = zip(*members[start : start + at_once], strict=True)
                yield Pairs(list(indices), normalised(torch.stack(pixels), preprocessing), torch.stack(masks))


def stage_maps(backbone: Backbone, images: Float[Tensor, "B 3 h w"]) -> list[Tensor]:
    """Compute the maps of all stages of images of any size.

    What lacks to a multiple of the largest stride is added on the right and below, in the mean colour: so a
    cell of a map always covers the same number of pixels.
    """
    height, width = images.shape[-2:]
    stride = _stride(backbone)
    maps: list[Tensor] = backbone(F.pad(images, (0, -width % stride, 0, -height % stride)))
    return maps


def places(
    rows: Int64[Tensor, "..."],
    columns: Int64[Tensor, "..."],
    mask_size: Sequence[int],
    image_size: Sequence[int],
    backbone: Backbone,
) -> Float[Tensor, "... 2"]:
    """Say where in its stage maps the centres of pixels of a mask lie.

    Args:
        rows: of the pixels.
        columns: of the pixels.
        mask_size: height and width of the mask.
        image_size: height and width of the image that `stage_maps` got.
        backbone: the network of the maps.

    Returns:
        For each pixel x and y as of `grid_sample`: from -1 at one edge of a map to 1 at the other.
    """
    stride = _stride(backbone)
    axes = []
    for numbers, mask_length, length in zip((columns, rows), mask_size[::-1], image_size[::-1], strict=True):
        padded = length + -length % stride
        axes.append((numbers + 0.5) * (2 * length / (mask_length * padded)) - 1)
    return torch.stack(axes, dim=-1)


def all_places(
    mask_size: Sequence[int], image_size: Sequence[int], backbone: Backbone
) -> Float[Tensor, "H W 2"]:
    """The `places` of all pixels of a mask."""
    rows, columns = torch.meshgrid(*(torch.arange(length) for length in mask_size), indexing="ij")
    return places(rows, columns, mask_size, image_size, backbone)


def at_places(stage_map: Float[Tensor, "B C h w"], where: Float[Tensor, "H W 2"]) -> Float[Tensor, "B C H W"]:
    """Read a map at places between the centres of its cells: bilinear, as `interpolate` does.

    With `all_places` of an unpadded image it is ``interpolate(stage_map, mask_size, mode="bilinear",
    align_corners=False)``.
    """
    where = where.to(stage_map).expand(len(stage_map), *where.shape)
    return F.grid_sample(stage_map, where, mode="bilinear", padding_mode="border", align_corners=False)


def _scaled(pixels: UInt8[Tensor, "3 H W"], scale: float) -> UInt8[Tensor, "3 h w"]:
    size = [max(1, round(length * scale)) for length in pixels.shape[1:]]
    if size == list(pixels.shape[1:]):
        return pixels
    return F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]


def _stride(backbone: Backbone) -> int:
    return max(stage.stride for stage in backbone.stages)
