"""What colour, light and sharpness do to a view: batched, on any device, decided by given draws.

decoded crops → **photometry** → views. `retouching` turns draws into decisions; `retouch` carries them out.
"""

from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from pydantic import AfterValidator, Field, PositiveFloat
from torch import Tensor

from crosscontext.settings import Settings
from crosscontext.shapes import Bool, Float

Probability = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, le=1)]

NUM_DRAWS = 13
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
        The same images, in [0, 1].
    """
    factors = torch.as_tensor(decisions.factors, dtype=images.dtype).to(images.device, non_blocking=True)
    for position in range(4):
        for operation, adjust in enumerate(_ADJUSTMENTS):
            rows = _rows(decisions.jittered & (decisions.order[:, position] == operation), images)
            if len(rows):
                images[rows] = adjust(images[rows], factors[rows, operation, None, None, None])
    if len(rows := _rows(decisions.grey, images)):
        images[rows] = _grey(images[rows]).expand(-1, 3, -1, -1)
    if len(rows := _rows(decisions.blurred, images)):
        images[rows] = blur(images[rows], torch.as_tensor(decisions.sigma[decisions.blurred]).to(images))
    if len(rows := _rows(decisions.solarized, images)):
        images[rows] = solarize(images[rows])
    return images


def adjust_brightness(
    images: Float[Tensor, "B 3 S S"], factors: Float[Tensor, "B 1 1 1"]
) -> Float[Tensor, "B 3 S S"]:
    """Blend each image with black."""
    return (images * factors).clamp_(0, 1)


def adjust_contrast(
    images: Float[Tensor, "B 3 S S"], factors: Float[Tensor, "B 1 1 1"]
) -> Float[Tensor, "B 3 S S"]:
    """Blend each image with its mean grey."""
    mean = _grey(images).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, factors).clamp_(0, 1)


def adjust_saturation(
    images: Float[Tensor, "B 3 S S"], factors: Float[Tensor, "B 1 1 1"]
) -> Float[Tensor, "B 3 S S"]:
    """Blend each image with its grey version."""
    return torch.lerp(_grey(images), images, factors).clamp_(0, 1)


def adjust_hue(images: Float[Tensor, "B 3 S S"], turns: Float[Tensor, "B 1 1 1"]) -> Float[Tensor, "B 3 S S"]:
    """Turn the hue of each image, keeping value and saturation of HSV.

    With the hue h in [0, 6), a colour is lowest + span · (|h − 3| − 1, 2 − |h − 2|, 2 − |h − 4|), each
    bracket clamped to [0, 1]; so there is no need to build an HSV image.
    """
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    highest = torch.maximum(torch.maximum(red, green), blue)
    lowest = torch.minimum(torch.minimum(red, green), blue)
    span = highest - lowest
    from_green, from_blue = (blue - red).add_(span, alpha=2), (red - green).add_(span, alpha=4)
    hue = torch.where(highest == green, from_green, from_blue)
    hue = torch.where(highest == red, green - blue, hue).div_(span.clamp_min(1e-12))
    hue.add_(turns, alpha=6).sub_((hue / 6).floor_(), alpha=6)
    shares = ((hue - 3).abs_().sub_(1), (hue - 2).abs_().neg_().add_(2), (hue - 4).abs_().neg_().add_(2))
    return torch.cat([torch.addcmul(lowest, span, share.clamp_(0, 1)) for share in shares], dim=1)


_ADJUSTMENTS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


def blur(images: Float[Tensor, "B 3 S S"], sigma: Float[Tensor, " B"]) -> Float[Tensor, "B 3 S S"]:
    """Blur each image with a Gaussian of its own, mirrored at the borders (the edge pixel is not doubled).

    A blur along one side is a product with one S × S matrix: nothing has to be common to the batch, and
    the kernel is cut off only where the image ends.

    Args:
        images: of any range.
        sigma: standard deviation, in pixels, well below S.
    """
    side = images.shape[-1]
    distances = torch.arange(2 * side, device=images.device)
    weights = torch.exp(-0.5 * (distances / sigma[:, None]) ** 2)
    weights[:, -1] = 0  # no pixel of a mirrored image is that far
    place = distances[:side]
    straight = (place[:, None] - place).abs()
    before = torch.where(place > 0, place[:, None] + place, 2 * side - 1)  # the mirror image left of pixel 0
    after = before.flip(0, 1)
    matrix = weights[:, straight] + weights[:, before] + weights[:, after]
    matrix = matrix / matrix.sum(dim=2, keepdim=True)  # (B, S, S)
    for _ in range(2):  # along the rows, then, transposed, along the columns
        images = (images.flatten(1, 2) @ matrix.mT).view(-1, 3, side, side).mT
    return images


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
