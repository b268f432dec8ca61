"""3×3 convolutions with 2.25 instead of 9 multiplications an output, for inference on a CPU.

Source: Lavin and Gray, arXiv 1509.09308: F(4×4, 3×3), where windows of 6×6 pixels give tiles of 4×4.
Outputs differ from those of a direct convolution by rounding, about 1e-5 of the largest one.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

_TILE = 4
_WINDOW = 6
_LEAST_CHANNELS = 128
_LEAST_TILES = 8

_OF_INPUT = (  # section 4.3 of the paper: Bᵀ, G and Aᵀ
    (4.0, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_OF_WEIGHT = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OF_OUTPUT = (
    (1.0, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


def pays(convolution: nn.Conv2d) -> bool:
    """Tell whether `WinogradConv2d` computes the same as a convolution, and faster.

    With fewer than 128 channels, moving the tiles takes as long as the multiplications that are saved; other
    devices than the CPU have such kernels of their own.
    """
    plain = (
        type(convolution) is nn.Conv2d
        and convolution.kernel_size == (3, 3)
        and convolution.padding in ((1, 1), "same")
        and convolution.stride == convolution.dilation == (1, 1)
        and convolution.groups == 1
        and convolution.padding_mode == "zeros"
    )
    weight = convolution.weight
    return (
        plain
        and min(weight.shape[:2]) >= _LEAST_CHANNELS
        and weight.dtype == torch.float32
        and weight.device.type == "cpu"
    )


class WinogradConv2d(nn.Module):
    """A convolution for which `pays` is true, as a matrix product for each pixel of a tile.

    Args:
        direct: the convolution; it is kept for inputs of so few tiles that reading four times as many weights
            would cost more than is saved.
    """

    weight: Tensor
    of_input: Tensor
    of_output: Tensor

    def __init__(self, direct: nn.Conv2d):
        super().__init__()
        self.direct = direct
        along_one_side = (torch.tensor(rows) for rows in (_OF_INPUT, _OF_WEIGHT, _OF_OUTPUT))
        of_input, of_weight, of_output = (torch.kron(rows, rows) for rows in along_one_side)
        weight = direct.weight.detach().permute(2, 3, 1, 0)
        products = of_weight @ weight.flatten(2).flatten(0, 1)
        self.register_buffer("weight", products.view(_WINDOW**2, *weight.shape[2:]))
        self.register_buffer("of_input", of_input)
        self.register_buffer("of_output", of_output)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Convolve; the output is in channels_last."""
        batch, channels, height, width = images.shape
        rows, columns = -(-height // _TILE), -(-width // _TILE)
        if batch * rows * columns < _LEAST_TILES:
            directly: Tensor = self.direct(images)
            return directly
        margins = (0, 0, 1, _TILE * columns + 1 - width, 1, _TILE * rows + 1 - height)
        padded = F.pad(images.permute(0, 2, 3, 1), margins)
        of_image, of_row, of_column, of_channel = padded.stride()
        windows = padded.as_strided(
            (_WINDOW, _WINDOW, batch, rows, columns, channels),
            (of_row, of_column, of_image, _TILE * of_row, _TILE * of_column, of_channel),
        )
        windows = self.of_input @ windows.reshape(_WINDOW**2, -1)
        products = torch.bmm(windows.view(_WINDOW**2, -1, channels), self.weight)
        tiles = (self.of_output @ products.flatten(1)).view(_TILE, _TILE, batch, rows, columns, -1)
        output = tiles.permute(2, 3, 0, 4, 1, 5).reshape(batch, _TILE * rows, _TILE * columns, -1)
        if self.direct.bias is not None:
            output += self.direct.bias
        return output[:, :height, :width].permute(0, 3, 1, 2)
