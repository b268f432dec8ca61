"""What a network sees, stage by stage: stage maps → **stage pictures** → colours.

Equal colours are equal features: over all images of a stage the three strongest principal components become
red, green and blue.
"""

import torch
from PIL import Image
from torch import Tensor

from crosscontext.layout import principal
from crosscontext.shapes import Float

_CUT = 0.01  # of the values at either end; single extremes would leave the rest grey


def stage_pictures(stage_map: Float[Tensor, "B C h w"]) -> list[Image.Image]:
    """Paint the maps of one stage.

    Args:
        stage_map: of all the images that are painted in the same colours; constant maps become grey.

    Returns:
        A picture an image, a pixel a cell.
    """
    num_images, channels, height, width = stage_map.shape
    cells = stage_map.permute(0, 2, 3, 1).reshape(-1, channels).double().cpu()
    found = principal(cells - cells.mean(dim=0), 3)
    colours = torch.zeros(len(cells), 3, dtype=torch.float64)
    colours[:, : found.shape[1]] = found
    ends = torch.tensor([_CUT, 1 - _CUT], dtype=torch.float64)
    low, high = torch.stack([_quantiles(colour, ends) for colour in colours.T], dim=1)
    span = high - low
    shares = torch.where(span > 1e-9, (colours - low) / span.clamp_min(1e-9), 0.5).clamp(0, 1)
    pixels = shares.mul(255).round().to(torch.uint8).reshape(num_images, height, width, 3)
    return [Image.fromarray(image.numpy()) for image in pixels]


def _quantiles(values: Float[Tensor, " M"], ends: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """As torch.quantile, which refuses more than 16 million values."""
    places = (ends * (len(values) - 1)).round().long()
    return values.sort().values[places]
