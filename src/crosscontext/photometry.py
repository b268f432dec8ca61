"""What colour, light and sharpness do to a view: batched, on any device, decided by given draws.

decoded crops → **photometry** → views. `retouching` turns draws into decisions; `retouch` carries them out.
"""

from collections.abc import Callable
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
_LANES = 8  # numbers that a vector unit holds
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
    _change(images, decisions.grey, lambda chosen, _: _grey(chosen).expand(-1, 3, -1, -1))
    _change(images, decisions.blurred, lambda chosen, rows: blur(chosen, decisions.sigma[rows]))
    _change(images, decisions.solarized, lambda chosen, _: solarize(chosen))
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
    turn_hue(jittered, factors[:, _HUE])
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
    means = grey.mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)  # at once it would depend on the threads
    other = grey.mul_(of_grey).add_(of_mean * means)
    torch.addcmul(other, images, of_image, out=images).clamp_(0, 1)


def turn_hue(images: Float[Tensor, "B 3 S S"], turns: Float64[np.ndarray, " B"]) -> None:
    """Turn the hue of each image in place, keeping value and saturation of HSV.

    As the hue turns, a channel goes down and up again along straight lines, 6 (highest − lowest) a circle,
    that are cut off at the lowest and at the highest channel. Before the cut, channel c stands at
    2c − middle: the middle one where it is, the others as far beyond their ends as they are away from
    it. Red goes down where green exceeds blue, and so on round. So a turn of up to 1/6, which cannot
    reach past a bend, needs neither the hue nor a division; thirds of a circle exchange the channels.

    Args:
        images: of any range.
        turns: in circles.
    """
    thirds = np.rint(3 * turns).astype(np.int64)
    for third in (1, 2):
        _change(images, thirds % 3 == third, lambda chosen, _: chosen.roll(third, dims=1))  # noqa: B023
    steps = torch.as_tensor(6 * (turns - thirds / 3), dtype=images.dtype).to(images.device)
    steps = steps[:, None, None, None]
    red, green, blue = images.split(1, dim=1)
    higher, lower = torch.maximum(red, green), torch.minimum(red, green)
    highest, lowest = torch.maximum(higher, blue), torch.minimum(lower, blue)
    middle = torch.minimum(higher, blue, out=higher).clamp_(min=lower)
    way = torch.sub(highest, lowest, out=lower).mul_(steps)
    down = torch.empty_like(images)
    for channel, (one, other) in enumerate(((green, blue), (blue, red), (red, green))):
        torch.sub(one, other, out=down[:, channel : channel + 1])
    images.lerp_(middle, -1).addcmul_(down.sign_(), way, value=-1)  # 2c − middle, and on
    torch.clamp(images, lowest, highest, out=images)


def blur(images: Float[Tensor, "B 3 S S"], sigma: Float64[np.ndarray, " B"]) -> Float[Tensor, "B 3 S S"]:
    """Blur each image with its own Gaussian; beyond the edges lies the mirrored image.

    The kernel reaches 4.5 sigma far or further. Images with kernels of one length are blurred together, along
    the rows and then along the columns. So that vector units are filled, without moving a value in memory,
    eight neighbours in a row are the channels of the convolutions: the first one computes all eight
    from the pixels around them, the second one each from those above and below.

    Args:
        images: of any range.
        sigma: standard deviation, in pixels, well below S.
    """
    number, _, side, _ = images.shape
    reaches = np.minimum(3 * np.ceil(4.5 * sigma / 3).astype(np.int64), side - 1)  # few lengths
    if len(lengths := np.unique(reaches)) > 1:
        blurred = images.clone()
        for length in lengths:
            _change(blurred, reaches == length, lambda chosen, rows: blur(chosen, sigma[rows]))
        return blurred
    reach = int(lengths[0])
    distances = np.arange(2 * reach + _LANES) - reach - np.arange(_LANES)[:, None]  # from each of the eight
    weights = np.exp(-0.5 * (distances / sigma[:, None, None]) ** 2) * (np.abs(distances) <= reach)
    weights /= weights.sum(axis=-1, keepdims=True)
    kernels = torch.as_tensor(weights, dtype=images.dtype).to(images.device).flatten(0, 1)[:, None]
    along_rows = kernels[:, :, None]
    along_columns = kernels[::_LANES, :, : 2 * reach + 1, None].repeat_interleave(_LANES, dim=0)
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    if missing := -side % _LANES:
        padded = F.pad(padded, (0, missing))
    planes = padded.movedim(0, -1).contiguous()  # colours, rows, columns, images
    _, height, width, _ = planes.shape
    strides = (height * width * number, width * number, number, 1)
    planes = planes.as_strided(planes.shape, strides)  # says so also where B is 1 and any stride would do
    planes = F.conv2d(planes.movedim(-1, 1), along_rows, stride=(1, _LANES), groups=number)
    planes = F.conv2d(planes, along_columns, groups=_LANES * number)
    lanes: Tensor = planes.unflatten(1, (number, _LANES)).permute(1, 0, 3, 4, 2)
    return lanes.flatten(3)[..., :side]


def solarize(images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 3 S S"]:
    """Invert what is brighter than the middle."""
    return torch.where(images >= 0.5, 1 - images, images)


def _grey(images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 1 S S"]:
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    weights = _GREY_WEIGHTS
    return (red * weights[0]).add_(green, alpha=weights[1]).add_(blue, alpha=weights[2])


def _change(
    images: Float[Tensor, "B 3 S S"],
    chosen: Bool[np.ndarray, " B"],
    change: Callable[[Tensor, Int64[np.ndarray, " chosen"]], Tensor],
) -> None:
    """Change the chosen images in place: on a CPU one after the other, in its cache, else all at once.

    Args:
        images: of which some are changed.
        chosen: which.
        change: images and their rows → the changed images.
    """
    rows = np.flatnonzero(chosen)
    if images.device.type == "cpu":
        for row in rows:
            images[row] = change(images[row : row + 1], rows[rows == row])[0]
    elif len(rows):
        index = _index(chosen, images)
        images.index_copy_(0, index, change(images.index_select(0, index), rows))


def _index(chosen: Bool[np.ndarray, " B"], images: Tensor) -> Tensor:
    """Indices of the chosen images, found on the host so that the device is never waited for."""
    return torch.from_numpy(np.flatnonzero(chosen)).to(images.device, non_blocking=True)
