"""What colour, light and sharpness do to a view: batched, on any device, decided by given draws.

decoded crops → **photometry** → views. `retouching` turns draws into decisions; `retouch` carries them out.
"""

from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float64, Int64
from pydantic import AfterValidator, Field, PositiveFloat
from torch import Tensor

from crosscontext.settings import Settings
from crosscontext.shapes import Bool, Float

Probability = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, le=1)]

NUM_DRAWS = 13
_CONTRAST, _SATURATION, _HUE = 1, 2, 3  # after brightness, in `Retouching.factors`
_JITTERED, _FACTORS, _ORDER, _GREY, _BLURRED, _SIGMA, _SOLARIZED = 0, slice(1, 5), slice(5, 9), 9, 10, 11, 12
_GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # of torchvision; they sum to 0.9999


def ordered(pair: tuple[float, float]) -> tuple[float, float]:
    """Refuse a range whose end is below its start."""
    if pair[0] > pair[1]:
        raise ValueError(f"the range {pair} ends below its start; write the smaller number first.")
    return pair


class PhotometrySettings(Settings):
    """How strongly the colours, the light and the sharpness of a view vary."""

    jitter_probability: Probability = 0.0
    """Share of the views whose brightness, contrast, saturation and hue are jittered, in random order."""

    brightness: Strength = 0.4
    """The brightness of a jittered view is multiplied by 1 ± this."""

    contrast: Strength = 0.4
    """The contrast of a jittered view is multiplied by 1 ± this."""

    saturation: Strength = 0.4
    """The saturation of a jittered view is multiplied by 1 ± this."""

    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """The hue of a jittered view turns by ± this, in full circles."""

    grey_probability: Probability = 0.0
    """Share of the views without colour."""

    blur_probability: Probability | Literal["auto"] = 0.0
    """Share of the views that are blurred; auto: 0.5 for views of 64 pixels and more, else 0."""

    blur_sigma: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(ordered)] = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels of the view, whatever its size."""

    solarize_probability: Probability = 0.0
    """Share of the views whose bright half of the scale is inverted."""


class Retouching(NamedTuple):
    """What is done to each of B views; the order of the fields is the order of the work."""

    jittered: Bool[np.ndarray, " B"]
    factors: Float64[np.ndarray, "B 4"]
    """Of brightness, contrast and saturation (1 changes nothing), and the turn of the hue in circles."""

    order: Int64[np.ndarray, "B 4"]
    """Which of the four is done first, second, third, last."""

    grey: Bool[np.ndarray, " B"]
    blurred: Bool[np.ndarray, " B"]
    sigma: Float64[np.ndarray, " B"]
    """In pixels."""

    solarized: Bool[np.ndarray, " B"]


def retouching(draws: Float64[np.ndarray, "B 13"], settings: PhotometrySettings) -> Retouching:
    """Decide what is done to each view.

    Args:
        draws: `NUM_DRAWS` uniform numbers in [0, 1) a view.
        settings: without "auto" (see `views.resolve`).
    """
    assert not isinstance(settings.blur_probability, str), "views.resolve comes first"
    strengths = np.array([settings.brightness, settings.contrast, settings.saturation, settings.hue])
    centres = np.array([1.0, 1.0, 1.0, 0.0])
    low, high = settings.blur_sigma
    return Retouching(
        jittered=draws[:, _JITTERED] < settings.jitter_probability,
        factors=centres + strengths * (2 * draws[:, _FACTORS] - 1),
        order=np.argsort(draws[:, _ORDER], axis=1),
        grey=draws[:, _GREY] < settings.grey_probability,
        blurred=draws[:, _BLURRED] < settings.blur_probability,
        sigma=low + (high - low) * draws[:, _SIGMA],
        solarized=draws[:, _SOLARIZED] < settings.solarize_probability,
    )


def retouch(images: Float[Tensor, "B 3 S S"], decisions: Retouching) -> Float[Tensor, "B 3 S S"]:
    """Jitter, grey, blur and solarize, each image as decided, in the order of MoCo v2 and BYOL.

    Every operation means what torchvision's of the same name means on images in [0, 1].

    Args:
        images: in [0, 1]; changed in place.
        decisions: one row an image.

    Returns:
        The same images, in [0, 1] but for rounding.
    """
    if decisions.jittered.any():
        _jitter(images, decisions)
    if len(rows := _rows(decisions.grey, images)):
        images.index_copy_(0, rows, _grey(images.index_select(0, rows)).expand(-1, 3, -1, -1))
    if len(rows := _rows(decisions.blurred, images)):
        images.index_copy_(0, rows, blur(images.index_select(0, rows), decisions.sigma[decisions.blurred]))
    if len(rows := _rows(decisions.solarized, images)):
        images.index_copy_(0, rows, solarize(images.index_select(0, rows)))
    return images


def _jitter(images: Float[Tensor, "B 3 S S"], decisions: Retouching) -> None:
    """Adjust brightness, contrast, saturation and hue of the jittered images, each in its own order.

    The hue is the dearest and is turned once for all. Images whose hue comes late are put first, so that what
    is done before the hue concerns the first images, and what is done after it the last ones.
    """
    hue_comes = (decisions.order == _HUE).argmax(axis=1)
    chosen = np.flatnonzero(decisions.jittered)
    chosen = chosen[np.argsort(-hue_comes[chosen], kind="stable")]
    order, factors, hue_comes = decisions.order[chosen], decisions.factors[chosen], hue_comes[chosen]
    rows = torch.from_numpy(chosen).to(images.device, non_blocking=True)
    jittered = images.index_select(0, rows)
    for position in range(3):
        before = slice(int((hue_comes > position).sum()))
        _adjust(jittered[before], order[before, position], factors[before])
    turn_hue(jittered, torch.as_tensor(factors[:, _HUE], dtype=images.dtype).to(images.device))
    for position in range(1, 4):
        after = slice(int((hue_comes >= position).sum()), None)
        _adjust(jittered[after], order[after, position], factors[after])
    images.index_copy_(0, rows, jittered)


def _adjust(
    images: Float[Tensor, "B 3 S S"], operations: Int64[np.ndarray, " B"], factors: Float64[np.ndarray, "B 4"]
) -> None:
    """Adjust brightness, contrast or saturation in place, in each image another.

    Each of them mixes the image with something else: with black, with its mean grey, or with its grey self.
    """
    if not len(images):
        return
    factor = factors[np.arange(len(factors)), operations]
    parts = np.stack([factor, *((1 - factor) * (operations == other) for other in (_SATURATION, _CONTRAST))])
    of_image, of_grey, of_mean = torch.as_tensor(parts, dtype=images.dtype).to(images.device)[
        ..., None, None, None
    ]
    grey = _grey(images)
    means = grey.mean(dim=(1, 2, 3), keepdim=True)
    other = grey.mul_(of_grey).add_(of_mean * means)
    torch.addcmul(other, images, of_image, out=images).clamp_(0, 1)


def turn_hue(images: Float[Tensor, "B 3 S S"], turns: Float[Tensor, " B"]) -> None:
    """Turn the hue of each image in place, keeping value and saturation of HSV.

    With the hue h in circles, red is lowest − span + 6 span · |h − 1/2|, green highest + span − 6 span ·
    |h − 1/3|, and blue the same with 2/3, each distance kept in [1/6, 1/3]; so there is no need to build
    an HSV image.

    Args:
        images: in [0, 1].
        turns: in circles.
    """
    red, green, blue = images.split(1, dim=1)
    highest = torch.maximum(red, green).clamp_(min=blue)
    lowest = torch.minimum(red, green).clamp_(max=blue)
    span = highest - lowest
    sixfold = span * 6
    # one where green is the highest, else the other; torch.where takes five times as long on a CPU
    hue = (blue - red).add_(span, alpha=2).lerp_((red - green).add_(span, alpha=4), (highest - green).ceil_())
    hue = (green - blue).lerp_(hue, (highest - red).ceil_()).div_(sixfold.clamp_min(1e-12))
    hue += turns[:, None, None, None]
    hue -= hue.floor()
    distance = torch.empty_like(hue)
    for channel, base, place, sign in (
        (red, lowest.sub_(span), 1 / 2, 1),
        (green, highest.add_(span), 1 / 3, -1),
        (blue, highest, 2 / 3, -1),
    ):
        torch.sub(hue, place, out=distance).abs_().clamp_(1 / 6, 1 / 3)
        torch.addcmul(base, sixfold, distance, value=sign, out=channel)


def blur(images: Float[Tensor, "B 3 S S"], sigma: Float64[np.ndarray, " B"]) -> Float[Tensor, "B 3 S S"]:
    """Blur each image with its own Gaussian; beyond the edges lies the mirrored image.

    The kernel reaches 4.5 sigma far or further. Images with kernels of one length are blurred together, along
    the rows and then along the columns.

    Args:
        images: of any range.
        sigma: standard deviation, in pixels, well below S.
    """
    side = images.shape[-1]
    reaches = np.minimum(3 * np.ceil(4.5 * sigma / 3).astype(np.int64), side - 1)  # few lengths
    blurred = torch.empty_like(images)
    for reach in np.unique(reaches).tolist():
        alike = reaches == reach
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma[alike, None]) ** 2)
        weights /= weights.sum(axis=1, keepdims=True)
        kernels = torch.as_tensor(weights, dtype=images.dtype).to(images.device, non_blocking=True)
        kernels = kernels[:, None].expand(-1, 3, -1).reshape(-1, 1, 1, 2 * reach + 1)
        rows = _rows(alike, images)
        planes = F.pad(images.index_select(0, rows), (reach,) * 4, mode="reflect").flatten(0, 1)[None]
        for kernel in (kernels, kernels.mT):
            planes = F.conv2d(planes, kernel, groups=len(kernels))
        blurred.index_copy_(0, rows, planes.view(-1, 3, side, side))
    return blurred


def solarize(images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 3 S S"]:
    """Invert what is brighter than the middle."""
    return torch.where(images >= 0.5, 1 - images, images)


def _grey(images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 1 S S"]:
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    weights = _GREY_WEIGHTS
    return (red * weights[0]).add_(green, alpha=weights[1]).add_(blue, alpha=weights[2])


def _rows(chosen: Bool[np.ndarray, " B"], images: Tensor) -> Tensor:
    """Indices of the chosen images, found on the host so that the device is never waited for."""
    return torch.from_numpy(np.flatnonzero(chosen)).to(images.device, non_blocking=True)
