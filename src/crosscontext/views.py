"""One image becomes named views: *weak* for the teacher, *strong* for the student, *local* in multi-crop.

data set → **views** → batches → backbones. Geometry is applied to each image at decoding, photometry to
the batch on the device; both are functions of draws keyed by (seed, epoch, image, view).
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float64, Int64
from pydantic import AfterValidator, Field, PositiveFloat
from torch import Tensor

from crosscontext.datasets.contract import Dataset
from crosscontext.photometry import (
    NUM_DRAWS,
    PhotometrySettings,
    Probability,
    ordered,
    retouch,
    retouching,
)
from crosscontext.randomness import uniforms
from crosscontext.resampling import crop
from crosscontext.settings import Settings
from crosscontext.shapes import Float, UInt8

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

GEOMETRY, PHOTOMETRY = 0, 1  # streams of draws
VIEW_NAMES = ("weak", "strong", "local")

Share = Annotated[float, Field(gt=0, le=1)]

_ATTEMPTS = 10  # of RandomResizedCrop, before it takes the middle
_FLIP, _TOP, _LEFT, _AREAS, _RATIOS = 0, 1, 2, slice(3, 3 + _ATTEMPTS), slice(3 + _ATTEMPTS, None)
_NUM_GEOMETRY_DRAWS = 3 + 2 * _ATTEMPTS
_COPIES = 1024  # numbers kept free for the copies of one named view
_BLUR_FROM = 64  # pixels; the recipes for CIFAR leave the blur out


class ViewSettings(PhotometrySettings):
    """How one view is cut out and retouched; the defaults are the weak view: crop and flip."""

    scale: Annotated[tuple[Share, Share], AfterValidator(ordered)] = (0.2, 1.0)
    """Smallest and largest share of the image's area that a crop takes."""

    ratio: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(ordered)] = (3 / 4, 4 / 3)
    """Smallest and largest width of a crop over its height, before it is made square."""

    flip_probability: Probability = 0.5
    """Share of the views that are mirrored left to right."""


class StrongViewSettings(ViewSettings):
    """The view of MoCo v2 (Chen et al., 2020, section 3)."""

    jitter_probability: Probability = 0.8
    """Share of the views whose brightness, contrast, saturation and hue are jittered, in random order."""

    grey_probability: Probability = 0.2
    """Share of the views without colour."""

    blur_probability: Probability | Literal["auto"] = "auto"
    """Share of the views that are blurred; auto: 0.5 for views of 64 pixels and more, else 0."""


class LocalViewSettings(StrongViewSettings):
    """A small crop, as strong as the strong view (SwAV: Caron et al., 2020, section 3.3)."""

    scale: Annotated[tuple[Share, Share], AfterValidator(ordered)] = (0.05, 0.2)
    """Smallest and largest share of the image's area that a crop takes."""

    image_size: Annotated[int, Field(ge=8)] | Literal["auto"] = "auto"
    """Side in pixels; auto: 3/7 of the other views' side, to a multiple of 8 (96 for 224)."""


class ViewsSettings(Settings):
    """The named views; how many of each are made is the method's matter."""

    weak: ViewSettings = ViewSettings()
    """Crop and flip."""

    strong: StrongViewSettings = StrongViewSettings()
    """Crop, flip, colour jitter, grey and blur."""

    local: LocalViewSettings = LocalViewSettings()
    """The strong view of a small part of the image, at a small size."""

    def named(self, name: str) -> ViewSettings:
        """Look up the settings of a view by its name, one of `VIEW_NAMES`."""
        return {"weak": self.weak, "strong": self.strong, "local": self.local}[name]


def resolve(settings: ViewsSettings, image_size: int) -> ViewsSettings:
    """Replace every "auto" by what it means for views of `image_size` pixels."""
    values = settings.model_dump()
    if settings.local.image_size == "auto":
        values["local"]["image_size"] = max(8, 8 * round(image_size * 3 / 7 / 8))
    for view in values.values():
        if view["blur_probability"] == "auto":
            view["blur_probability"] = 0.5 if view.get("image_size", image_size) >= _BLUR_FROM else 0.0
    return ViewsSettings.model_validate(values)


def side_of(settings: ViewsSettings, name: str, image_size: int) -> int:
    """Look up the side of a named view, in pixels."""
    if name != "local":
        return image_size
    assert isinstance(settings.local.image_size, int), "views.resolve comes first"
    return settings.local.image_size


def geometry_draws(
    seed: int, epoch: int, images: Int64[np.ndarray, " B"], name: str, copy: int
) -> Float64[np.ndarray, "B 23"]:
    """Draw what decides the crop and the flip of one view of each image."""
    number = VIEW_NAMES.index(name) * _COPIES + copy
    return uniforms(seed, epoch, images, number, count=_NUM_GEOMETRY_DRAWS, stream=GEOMETRY)


def photometry_draws(
    seed: int, epoch: int, images: Int64[np.ndarray, " B"], name: str, copy: int
) -> Float64[np.ndarray, "B 13"]:
    """Draw what decides the colours and the sharpness of one view of each image."""
    number = VIEW_NAMES.index(name) * _COPIES + copy
    return uniforms(seed, epoch, images, number, count=NUM_DRAWS, stream=PHOTOMETRY)


def crop_boxes(
    draws: Float64[np.ndarray, "B 23"], sizes: Int64[np.ndarray, "B 2"], settings: ViewSettings
) -> Int64[np.ndarray, "B 4"]:
    """Choose a part of each image as torchvision's RandomResizedCrop does.

    Ten attempts draw an area and, log-uniformly, a ratio; the first that fits into the image gets a random
    place. Where none fits, it is the largest box of an allowed ratio in the middle.

    Args:
        draws: of `geometry_draws`.
        sizes: width and height of the images, in pixels.
        settings: for scale and ratio.

    Returns:
        Left, top, width and height, in pixels.
    """
    (smallest, largest), (narrowest, widest) = settings.scale, settings.ratio
    areas = sizes.prod(axis=1)[:, None] * (smallest + (largest - smallest) * draws[:, _AREAS])
    ratios = narrowest * (widest / narrowest) ** draws[:, _RATIOS]
    attempts = np.rint(np.sqrt(np.stack([areas * ratios, areas / ratios], axis=-1))).astype(np.int64)
    fits = ((attempts > 0) & (attempts <= sizes[:, None])).all(axis=-1)  # (B, attempts)
    first = fits.argmax(axis=1)
    boxes = attempts[np.arange(len(attempts)), first]
    free = sizes - boxes
    corners = (draws[:, [_LEFT, _TOP]] * (free + 1)).astype(np.int64)
    if (none := ~fits.any(axis=1)).any():
        width, height = sizes[none].T
        allowed = np.stack([np.rint(height * widest), np.rint(width / narrowest)], axis=1).astype(np.int64)
        boxes[none] = np.minimum(sizes[none], allowed)
        corners[none] = (sizes[none] - boxes[none]) // 2
    return np.concatenate([corners, boxes], axis=1)


def cut(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    draws: Float64[np.ndarray, "B 23"],
    settings: ViewSettings,
    size: int,
) -> UInt8[np.ndarray, "B 3 S S"]:
    """Do the geometry of one view of some images: crop, resize, mirror."""
    sizes = np.array([(picture.shape[1], picture.shape[0]) for picture in pictures])
    return crop(
        pictures, crop_boxes(draws, sizes, settings), draws[:, _FLIP] < settings.flip_probability, size
    )


def empty_views(crops: UInt8[Tensor, "B 3 S S"]) -> Float[Tensor, "B 3 S S"]:
    """Allocate views as the networks take them: the three values of a pixel lie side by side in memory."""
    return torch.empty(crops.shape, device=crops.device, memory_format=torch.channels_last)


def photometry(
    crops: UInt8[Tensor, "B 3 S S"],
    draws: Float64[np.ndarray, "B 13"],
    settings: ViewSettings,
    out: Float[Tensor, "B 3 S S"] | None = None,
) -> Float[Tensor, "B 3 S S"]:
    """Do the photometry of one view of some images, and normalise with the mean and deviation of ImageNet.

    Args:
        crops: on any device, in any memory format.
        draws: of `photometry_draws`.
        settings: without "auto".
        out: where the views are written; by default new memory of `empty_views`.

    Returns:
        float32 on the device of the crops.
    """
    images = crops.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    images = retouch(images, retouching(draws, settings))
    views = empty_views(crops) if out is None else out
    for channel, (mean, deviation) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        plane = images[:, channel].mul_(1 / deviation)
        torch.add(plane, -mean / deviation, out=views[:, channel])
    return views


def finish_views(
    crops: dict[str, list[Tensor]],
    images: Int64[np.ndarray, " B"],
    settings: ViewsSettings,
    seed: int,
    epoch: int,
    out: dict[str, list[Tensor]] | None = None,
) -> dict[str, list[Tensor]]:
    """Do the photometry of all views of some images.

    Args:
        crops: the copies of each named view, uint8 of shape (B, 3, S, S).
        images: the indices of the images, which with seed and epoch key the draws.
        settings: resolved.
        seed: of the run.
        epoch: of the batch.
        out: where the views are written, of the same names and shapes; by default new memory.

    Returns:
        The same names and numbers of copies; normalised float32.
    """
    out = out or {name: [empty_views(copy) for copy in copies] for name, copies in crops.items()}
    for name, copies in crops.items():
        for copy, (cropped, view) in enumerate(zip(copies, out[name], strict=True)):
            draws = photometry_draws(seed, epoch, images, name, copy)
            photometry(cropped, draws, settings.named(name), view)
    return out


def draw_view(
    dataset: Dataset,
    index: int,
    settings: ViewsSettings,
    image_size: int,
    view: tuple[str, int],
    key: tuple[int, int],
) -> Float[Tensor, "3 S S"]:
    """Draw one view of one image again, alone: what training saw of it.

    Args:
        dataset: of the image.
        index: of the image in the data set.
        settings: resolved.
        image_size: side of the weak and strong views, in pixels.
        view: name and number of the copy.
        key: seed of the run, and epoch.
    """
    name, images, chosen = view[0], np.array([index]), settings.named(view[0])
    draws = geometry_draws(*key, images, *view)
    crops = cut([dataset.pixels(index)], draws, chosen, side_of(settings, name, image_size))
    return photometry(torch.from_numpy(crops), photometry_draws(*key, images, *view), chosen)[0]
