import pytest
import torch
from torch import nn

from crosscontext.heads import ProjectionSettings, Prototypes, mlp

ROWS = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


def kinds(network: nn.Sequential) -> list[str]:
    return [type(module).__name__ for module in network]


def test_hidden_layers_have_a_norm_instead_of_a_bias_and_the_output_has_a_bias() -> None:
    network = mlp((6, 5, 4, 3), hidden_norm=True)
    assert kinds(network) == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [module.bias is not None for module in network if isinstance(module, nn.Linear)] == [
        False,
        False,
        True,
    ]
    assert network(ROWS).shape == (8, 3)


def test_without_norm_all_layers_have_a_bias() -> None:
    network = mlp((6, 5, 3), hidden_norm=False, activation=nn.GELU)
    assert kinds(network) == ["Linear", "GELU", "Linear"]
    assert all(module.bias is not None for module in network if isinstance(module, nn.Linear))


def test_a_norm_at_the_output_has_no_weights_and_standardises_it() -> None:
    network = mlp((6, 5, 3), hidden_norm=True, output="norm")
    assert not list(network[-1].parameters())
    assert network[-2].bias is None
    output = network(ROWS)
    torch.testing.assert_close(output.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(output.var(dim=0, correction=0), torch.ones(3), atol=1e-2, rtol=0)


def test_a_plain_output_is_linear_without_bias() -> None:
    network = mlp((6, 3), hidden_norm=True, output="plain")
    assert kinds(network) == ["Linear"]
    assert network[0].bias is None


@pytest.mark.parametrize(("layers", "widths"), [(1, [9, 4]), (2, [9, 7, 4]), (3, [9, 7, 7, 4])])
def test_settings_name_the_widths_of_all_layers(layers: int, widths: list[int]) -> None:
    assert ProjectionSettings(layers=layers, hidden_width=7, width=4).widths(9) == widths


def test_prototypes_give_cosines_whatever_the_lengths() -> None:
    prototypes = Prototypes(6, 5)
    cosines = prototypes(ROWS)
    expected = nn.functional.cosine_similarity(ROWS[:, None], prototypes.weight[None], dim=2)
    torch.testing.assert_close(cosines, expected)
    with torch.no_grad():
        prototypes.weight.mul_(7)
    torch.testing.assert_close(prototypes(3 * ROWS), cosines)


def test_prototypes_are_compared_in_full_precision_under_autocast() -> None:
    prototypes = Prototypes(6, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cosines = prototypes(ROWS.bfloat16())
    assert cosines.dtype == torch.float32
    torch.testing.assert_close(cosines, prototypes(ROWS.bfloat16().float()))
