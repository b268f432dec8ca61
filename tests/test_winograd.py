from typing import Any

import pytest
import torch
from torch import nn

from crosscontext.winograd import WinogradConv2d, pays


def convolution(bias: bool = True, **changes: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    options = {"in_channels": 128, "out_channels": 160, "kernel_size": 3, "padding": 1} | changes
    return nn.Conv2d(bias=bias, **options)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(4, 4), (7, 7), (1, 1), (5, 12), (9, 2)], ids=str)
@pytest.mark.parametrize("batch", [1, 8])
def test_outputs_are_those_of_the_convolution(batch: int, size: tuple[int, int], bias: bool) -> None:
    direct = convolution(bias)
    images = torch.randn(batch, 128, *size)
    with torch.no_grad():
        given = WinogradConv2d(direct)(images)
        expected = direct.double()(images.double())
    assert given.shape == expected.shape
    assert (given - expected).abs().max() <= 2e-5 * expected.abs().max()


def test_the_layout_of_the_images_changes_nothing() -> None:
    fast, images = WinogradConv2d(convolution()), torch.randn(2, 128, 8, 8)
    with torch.no_grad():
        assert torch.equal(fast(images), fast(images.contiguous(memory_format=torch.channels_last)))


def test_a_wide_3x3_convolution_is_worth_it() -> None:
    assert pays(convolution())
    assert pays(convolution(padding="same"))


@pytest.mark.parametrize(
    "changes",
    [
        {"in_channels": 64},
        {"out_channels": 64},
        {"kernel_size": 1, "padding": 0},
        {"padding": 0},
        {"stride": 2},
        {"dilation": 2},
        {"groups": 2},
        {"padding_mode": "circular"},
        {"dtype": torch.float64},
        {"device": "meta"},
    ],
    ids=str,
)
def test_other_convolutions_are_not(changes: dict[str, Any]) -> None:
    assert not pays(convolution(**changes))


def test_a_convolution_with_a_forward_of_its_own_is_not() -> None:
    class Other(nn.Conv2d):
        pass

    assert not pays(Other(128, 128, 3, padding=1))
