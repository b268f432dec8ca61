from typing import Any

import pytest
import torch
from torch import nn

from crosscontext.winograd import TrainedWinogradConv2d, WinogradConv2d, pays, train_by_winograd


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


def trained(bias: bool = True) -> nn.Conv2d:
    network = nn.Sequential(convolution(bias))
    train_by_winograd(network)
    assert type(network[0]) is TrainedWinogradConv2d
    return network[0].train()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(4, 4), (7, 7), (5, 12), (9, 2)], ids=str)
def test_in_training_outputs_and_gradients_are_those_of_the_convolution(
    size: tuple[int, int], bias: bool
) -> None:
    fast, direct = trained(bias), convolution(bias).double()
    images, upstream = torch.randn(8, 128, *size), torch.randn(8, 160, *size)
    mine, theirs = images.clone().requires_grad_(), images.double().requires_grad_()
    output, expected = fast(mine), direct(theirs)
    (output * upstream).sum().backward()
    (expected * upstream.double()).sum().backward()
    pairs = [(output, expected), (mine.grad, theirs.grad), (fast.weight.grad, direct.weight.grad)]
    pairs += [(fast.bias.grad, direct.bias.grad)] if fast.bias is not None and direct.bias is not None else []
    for given, wanted in pairs:
        assert given is not None
        assert wanted is not None
        assert given.shape == wanted.shape
        assert (given - wanted).abs().max() <= 2e-5 * wanted.abs().max()


def test_a_network_that_trains_by_winograd_keeps_its_weights_and_their_names() -> None:
    network = nn.Sequential(convolution(), nn.Conv2d(160, 8, 3, padding=1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    train_by_winograd(network)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert type(network[1]) is nn.Conv2d  # narrow


def test_in_evaluation_mode_it_is_the_plain_convolution() -> None:
    images = torch.randn(8, 128, 8, 8)
    assert torch.equal(trained().eval()(images), convolution()(images))


def test_frozen_weights_and_images_without_gradient_cost_no_gradient() -> None:
    fast = trained()
    fast.weight.requires_grad_(False)
    images = torch.randn(8, 128, 8, 8, requires_grad=True)
    fast(images).sum().backward()
    assert fast.weight.grad is None
    assert images.grad is not None
