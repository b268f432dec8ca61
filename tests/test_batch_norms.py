import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crosscontext.backbones import ResNetSettings
from crosscontext.batch_norms import (
    LocalSettings,
    SharedBatchNorm2d,
    SplitSettings,
    SyncSettings,
    settle_batch_norms,
)
from crosscontext.errors import SettingsError

BATCH, GROUPS, CHANNELS = 12, 3, 4


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, CHANNELS, 3), nn.BatchNorm2d(CHANNELS), nn.ReLU())


def split(module: nn.Module, groups: int = GROUPS) -> nn.Module:
    settle_batch_norms(module, SplitSettings(groups=groups), BATCH)
    return module


def images(count: int = BATCH) -> Tensor:
    torch.manual_seed(1)
    return 2 + 3 * torch.randn(count, 3, 6, 6).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("settings", [SyncSettings(), LocalSettings()])
def test_one_process_keeps_the_layers_of_pytorch(settings: SyncSettings | LocalSettings) -> None:
    module = network()
    settle_batch_norms(module, settings, BATCH)
    assert [type(layer) for layer in module.children()] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_groups_are_normalised_as_if_each_were_a_batch() -> None:
    ours, plain = split(network()), network()
    assert ours.state_dict().keys() == plain.state_dict().keys()
    batch = images()
    twins = [copy.deepcopy(plain) for _ in range(GROUPS)]
    result = ours(batch)
    expected = torch.cat([twin(part) for twin, part in zip(twins, batch.chunk(GROUPS), strict=True)])
    assert torch.equal(result, expected)
    assert result.is_contiguous(memory_format=torch.channels_last)
    for name, buffer in ours.named_buffers():
        others = torch.stack([twin.get_buffer(name).float() for twin in twins])
        torch.testing.assert_close(buffer.float(), others.mean(dim=0))
    result.square().sum().backward()
    expected.square().sum().backward()
    for name, weight in ours.named_parameters():
        assert weight.grad is not None
        total = torch.stack(
            [w.grad for t in (plain, *twins) if (w := t.get_parameter(name)).grad is not None]
        )
        torch.testing.assert_close(weight.grad, total.sum(dim=0), msg=name)


def test_several_views_of_an_image_fall_into_its_group() -> None:
    ours, plain = split(network()), network()
    first, second = images(2 * BATCH).chunk(2)
    expected = [
        plain(torch.cat([one, other]))
        for one, other in zip(first.chunk(GROUPS), second.chunk(GROUPS), strict=True)
    ]
    of_views = [torch.cat(parts) for parts in zip(*(each.chunk(2) for each in expected), strict=True)]
    torch.testing.assert_close(ours(torch.cat([first, second])), torch.cat(of_views))


def test_in_evaluation_a_split_network_is_the_plain_one() -> None:
    ours, plain = split(network()).eval(), network().eval()
    assert torch.equal(ours(images()), plain(images()))


def test_synchronised_statistics_have_the_gradient_of_batch_norm() -> None:
    """In one process, where the sums over all processes are those at hand."""
    from crosscontext.batch_norms import _SyncedNorm

    torch.manual_seed(0)
    rows = torch.randn(6, CHANNELS, 3, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(2, CHANNELS, dtype=torch.float64).requires_grad_().unbind(0)

    def ours(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        result: Tensor = _SyncedNorm.apply(rows, weight, bias, 1e-5)[0]
        return result

    assert torch.autograd.gradcheck(ours, (rows, weight, bias))
    expected = F.batch_norm(rows, None, None, weight, bias, True, 0.0, 1e-5)
    torch.testing.assert_close(ours(rows, weight, bias), expected)
    (unweighted,) = torch.autograd.grad(_SyncedNorm.apply(rows, None, None, 1e-5)[0].pow(3).sum(), rows)
    plainly = F.batch_norm(rows, None, None, None, None, True, 0.0, 1e-5)
    torch.testing.assert_close(unweighted, torch.autograd.grad(plainly.pow(3).sum(), rows)[0])


def test_the_layer_of_timm_keeps_its_activation() -> None:
    from timm.layers.norm_act import BatchNormAct2d

    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, CHANNELS, 3), BatchNormAct2d(CHANNELS))
    ours = split(copy.deepcopy(plain), groups=2)
    expected = torch.cat([plain(part) for part in images().chunk(2)])
    assert torch.equal(ours(images()), expected)
    assert expected.min() == 0


def test_a_split_network_is_folded_for_inference_as_the_plain_one() -> None:
    from crosscontext.encoders import Preprocessing, encoder_of
    from crosscontext.inference import for_inference

    settings = ResNetSettings(depth=10, width=0.125, stem="small")
    backbone = settings.build()
    settle_batch_norms(backbone, SplitSettings(groups=GROUPS), BATCH)
    assert any(isinstance(module, SharedBatchNorm2d) for module in backbone.modules())
    fast = for_inference(encoder_of(backbone, settings, Preprocessing.for_size(16), step=0))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())


@pytest.mark.parametrize(("groups", "batch"), [(5, 12), (12, 12)])
def test_groups_that_do_not_fit_are_refused(groups: int, batch: int) -> None:
    with pytest.raises(SettingsError, match=rf"groups is {groups}, but 1 processes share a batch of {batch}"):
        settle_batch_norms(network(), SplitSettings(groups=groups), batch)


def test_statistics_of_a_whole_batch_cannot_come_from_parts() -> None:
    with pytest.raises(SettingsError, match="accumulate is 2, but with batch_norm sync"):
        settle_batch_norms(network(), SyncSettings(), BATCH, accumulate=2)
    settle_batch_norms(nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4)), SyncSettings(), BATCH, 2)


def test_a_layer_that_nobody_knows_here_is_refused() -> None:
    class Special(nn.BatchNorm2d):
        pass

    with pytest.raises(SettingsError, match=r"^0 is a Special, whose statistics cannot be shared"):
        split(nn.Sequential(Special(3)))
