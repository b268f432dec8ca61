"""3×3 convolutions with 2.25 instead of 9 multiplications an output, on a CPU.

Source: Lavin and Gray, arXiv 1509.09308: F(4×4, 3×3), where windows of 6×6 pixels give tiles of 4×4.
Outputs differ from those of a direct convolution by rounding, about 1e-5 of the largest one.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

_TILE = 4
_WINDOW = 6
_LEAST_CHANNELS = 128
_LEAST_TILES = 8
_LEAST_SAVING = 2

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
    """Tell whether the modules below compute the same as a convolution, and faster.

    With fewer than 128 channels, moving the tiles takes as long as the multiplications that are saved; other
    devices than the CPU have such kernels of their own.
    """
    plain = (
        type(convolution) in (nn.Conv2d, TrainedWinogradConv2d)
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


def train_by_winograd(network: nn.Module) -> None:
    """Let the convolutions of a network for which it pays work by Winograd in training.

    Weights and their names stay, and so does what the network computes in evaluation mode.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and pays(module):
            module.__class__ = TrainedWinogradConv2d


class WinogradConv2d(nn.Module):
    """A convolution for which `pays` is true, for inference: its weights are transformed once.

    Args:
        direct: the convolution; it is kept for inputs too small to gain.
    """

    weight: Tensor

    def __init__(self, direct: nn.Conv2d):
        super().__init__()
        self.direct = direct
        self.register_buffer("weight", _transform_weight(direct.weight.detach()))

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Convolve; the output is in channels_last."""
        if not _suits(images):
            directly: Tensor = self.direct(images)
            return directly
        output = _assemble(torch.bmm(_windows(images), self.weight), images)
        return output if self.direct.bias is None else output + self.direct.bias.view(-1, 1, 1)


class TrainedWinogradConv2d(nn.Conv2d):
    """A convolution for which `pays` is true, in training; in evaluation mode it is the plain one."""

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Convolve; the output is in channels_last."""
        if not self.training or images.dtype != torch.float32 or not _suits(images):
            return super().forward(images)
        output: Tensor = _Winograd.apply(images, self.weight)
        return output if self.bias is None else output + self.bias.view(-1, 1, 1)


class _Winograd(torch.autograd.Function):
    """Images (B, C, H, W) and weights (K, C, 3, 3) → (B, K, H, W), and the three products of its gradient."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        windows = _windows(images)
        ctx.save_for_backward(windows if ctx.needs_input_grad[1] else None, weight)
        return _assemble(torch.bmm(windows, _transform_weight(weight)), images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        windows, weight = ctx.saved_tensors
        of_images = of_weight = None
        if ctx.needs_input_grad[0]:  # the gradient convolved with the weights, turned by half a circle
            turned = _transform_weight(weight.flip(2, 3).transpose(0, 1))
            of_images = _assemble(torch.bmm(_windows(gradient), turned), gradient)
        if ctx.needs_input_grad[1]:
            products = torch.bmm(windows.transpose(1, 2), _tiles(gradient))  # (36, C, K)
            of_weight = _kron(_OF_WEIGHT).T @ products.flatten(1)
            of_weight = of_weight.view(3, 3, *products.shape[1:]).permute(3, 2, 0, 1)
        return of_images, of_weight


def _kron(rows: Sequence[Sequence[float | int]]) -> Tensor:
    """Make one matrix for both sides of a tile out of that for one side."""
    along_one_side = torch.tensor(rows)
    return torch.kron(along_one_side, along_one_side)


def _grid(images: Tensor) -> tuple[int, int]:
    """Rows and columns of tiles that cover the images."""
    height, width = images.shape[2:]
    return -(-height // _TILE), -(-width // _TILE)


def _suits(images: Tensor) -> bool:
    """Tell whether the images fill their tiles, and make enough of them to pay for four times the weights."""
    rows, columns = _grid(images)
    height, width = images.shape[2:]
    multiplications, directly = _WINDOW**2 * rows * columns, 9 * height * width
    return len(images) * rows * columns >= _LEAST_TILES and directly >= _LEAST_SAVING * multiplications


def _transform_weight(weight: Float[Tensor, "K C 3 3"]) -> Float[Tensor, "36 C K"]:
    products = _kron(_OF_WEIGHT) @ weight.permute(2, 3, 1, 0).reshape(9, -1)
    return products.view(_WINDOW**2, weight.shape[1], weight.shape[0])


def _windows(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "36 T C"]:
    """Cut images into overlapping windows, one a tile of the output, and transform these."""
    batch, channels, height, width = images.shape
    rows, columns = _grid(images)
    margins = (0, 0, 1, _TILE * columns + 1 - width, 1, _TILE * rows + 1 - height)
    padded = F.pad(images.permute(0, 2, 3, 1), margins)
    of_image, of_row, of_column, of_channel = padded.stride()
    windows = padded.as_strided(
        (_WINDOW, _WINDOW, batch, rows, columns, channels),
        (of_row, of_column, of_image, _TILE * of_row, _TILE * of_column, of_channel),
    )
    transformed = _kron(_OF_INPUT) @ windows.reshape(_WINDOW**2, -1)
    return transformed.view(_WINDOW**2, -1, channels)


def _assemble(
    products: Float[Tensor, "36 T K"], images: Float[Tensor, "B C H W"]
) -> Float[Tensor, "B K H W"]:
    """Transform the products of all windows into tiles, and lay these out as large as the images."""
    batch, _, height, width = images.shape
    rows, columns = _grid(images)
    tiles = (_kron(_OF_OUTPUT) @ products.flatten(1)).view(_TILE, _TILE, batch, rows, columns, -1)
    output = tiles.permute(2, 3, 0, 4, 1, 5).reshape(batch, _TILE * rows, _TILE * columns, -1)
    return output[:, :height, :width].permute(0, 3, 1, 2)


def _tiles(gradient: Float[Tensor, "B K H W"]) -> Float[Tensor, "36 T K"]:
    """Turn the gradient of the tiles into that of the products: the transpose of `_assemble`."""
    batch, channels, height, width = gradient.shape
    rows, columns = _grid(gradient)
    margins = (0, 0, 0, _TILE * columns - width, 0, _TILE * rows - height)
    padded = F.pad(gradient.permute(0, 2, 3, 1), margins)
    tiles = padded.view(batch, rows, _TILE, columns, _TILE, channels).permute(2, 4, 0, 1, 3, 5)
    return (_kron(_OF_OUTPUT).T @ tiles.reshape(_TILE**2, -1)).view(_WINDOW**2, -1, channels)
