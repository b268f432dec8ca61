import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from agreement import assert_agrees
from crosscontext.backbones import ResNetSettings
from crosscontext.contexts import ContextNetwork, ContextSettings, HypercolumnContext, hypercolumn, pool
from crosscontext.errors import SettingsError

REFERENCE = Path(__file__).parent / "reference"
STORED = load_file(REFERENCE / "hypercolumn.safetensors")
CASES = json.loads((REFERENCE / "hypercolumn.json").read_text())["cases"]
OUR_NAMES = {"reg_conv": "mix", "projector": "project"}
BACKBONE = ResNetSettings(depth=10, width=0.125, stem="small")
IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def named(case: dict[str, Any], prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The stored tensors below a prefix, by our names."""
    prefix = f"case{case['case']}.{prefix}."
    found = {name.removeprefix(prefix): value for name, value in STORED.items() if name.startswith(prefix)}
    for theirs, ours in OUR_NAMES.items():
        found = {name.replace(theirs, ours): value for name, value in found.items()}
    return {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in found.items()
        if name != "scale"  # a parameter that their forward never uses
    }


def context_of(case: dict[str, Any], dtype: torch.dtype) -> HypercolumnContext:
    context = HypercolumnContext(
        case["channels"], case["feat_dim"], case["hid_dim"], case["out_dim"], range(len(case["channels"]))
    ).to(dtype)
    context.load_state_dict(context.state_dict() | named(case, "init", dtype))
    return context


def maps_of(case: dict[str, Any], number: int, dtype: torch.dtype) -> list[Tensor]:
    inputs = named(case, f"input{number}", dtype)
    return [inputs[layer] for layer in case["layers"]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case{case['case']}")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_hypercolumn_embeds_as_that_of_the_authors(
    case: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    context = context_of(case, dtype)
    kind = "f64." if dtype == torch.float64 else ""
    for mode in ("train", "eval"):
        context.train(mode == "train")
        for number in (0, 1):
            expected = STORED[f"case{case['case']}.{kind}{mode}{number}.output"]
            output = context(maps_of(case, number, dtype))
            assert_agrees(output, expected, f"{mode}{number}.output", atol=tolerance)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case{case['case']}")
def test_gradients_and_batch_statistics_agree_with_those_of_the_authors(case: dict[str, Any]) -> None:
    context = context_of(case, torch.float32)
    for number in (0, 1):
        maps = [each.requires_grad_() for each in maps_of(case, number, torch.float32)]
        context.zero_grad()
        (context(maps) * STORED[f"case{case['case']}.upstream"]).sum().backward()
        theirs = named(case, f"train{number}.grad", torch.float32)
        ours = dict(context.named_parameters())
        assert ours.keys() == theirs.keys()
        pairs = [(ours[name].grad, theirs[name]) for name in theirs]
        inputs = named(case, f"train{number}.grad_input", torch.float32)
        pairs += [(each.grad, inputs[layer]) for each, layer in zip(maps, case["layers"], strict=True)]
        for mine, reference in pairs:
            assert mine is not None
            assert_agrees(mine, reference, "gradient", atol=1e-4 * float(reference.abs().max()))
        buffers = named(case, f"train{number}.buffer", torch.float32)
        assert dict(context.named_buffers()).keys() == buffers.keys()
        for name, value in context.named_buffers():
            assert_agrees(value, buffers[name], name, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case{case['case']}")
def test_stacked_maps_agree_with_those_of_the_authors(case: dict[str, Any]) -> None:
    for number in (0, 1):
        stacked = hypercolumn(maps_of(case, number, torch.float32))
        theirs = STORED[f"case{case['case']}.train{number}.hypercolumn"]
        assert_agrees(stacked, theirs, "hypercolumn", atol=1e-5)


def test_halving_a_map_takes_means_of_four_cells_and_quartering_those_of_the_central_ones() -> None:
    fine, coarse = torch.randn(2, 3, 8, 8), torch.randn(2, 1, 2, 2)
    middle = torch.randn(2, 2, 4, 4)
    stacked = hypercolumn([fine, middle, coarse])
    central = fine.unfold(2, 4, 4).unfold(3, 4, 4)[..., 1:3, 1:3].mean(dim=(-1, -2))
    halved = middle.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(-1, -2))
    torch.testing.assert_close(stacked, torch.cat([central, halved, coarse], dim=1), atol=1e-6, rtol=0)


def test_pooling_is_the_mean_of_all_cells() -> None:
    stage_map = torch.arange(12.0).reshape(1, 2, 2, 3)
    assert pool(stage_map).tolist() == [[2.5, 8.5]]


def test_embeddings_of_all_contexts_are_unit_rows_of_the_chosen_widths() -> None:
    settings = ContextSettings(global_width=24, hyper_width=40, hidden_width=32)
    embeddings = settings.build(BACKBONE.build(), {"global", "hyper"})(IMAGES)
    widths = settings.widths({"global", "hyper"})
    assert {name: tuple(rows.shape) for name, rows in embeddings.items()} == {
        name: (4, width) for name, width in widths.items()
    }
    for rows in embeddings.values():
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(4), atol=1e-6, rtol=0)


def test_a_norm_in_the_projections_stands_between_its_layers_and_makes_the_bias_idle() -> None:
    heads = (
        ContextSettings(hidden_norm=True, hidden_width=32).build(BACKBONE.build(), {"global", "hyper"}).heads
    )
    for head in heads.values():
        project = head.get_submodule("project")
        kinds = [type(module).__name__ for module in project.children()]
        assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
        assert project.get_submodule("0").bias is None
        assert project.get_submodule("1").weight.shape == (32,)


@pytest.mark.parametrize("only", ["global", "hyper"])
def test_only_the_contexts_asked_for_are_computed_and_their_values_stay(only: str) -> None:
    network = ContextSettings().build(BACKBONE.build(), {"global", "hyper"})
    everything, part = network(IMAGES), network(IMAGES, only={only})
    assert part.keys() == {only}
    assert torch.equal(part[only], everything[only])


def test_a_context_that_is_not_named_has_no_head() -> None:
    network = ContextSettings().build(BACKBONE.build(), {"global"})
    assert isinstance(network, ContextNetwork)
    assert list(network.heads) == ["global"]
    assert ContextSettings().widths({"global"}) == {"global": 128}


@pytest.mark.parametrize("stages", [(-1,), (0, 3), (-4, -3, -2, -1), (1, -1)])
def test_any_stages_make_a_hypercolumn(stages: tuple[int, ...]) -> None:
    network = ContextSettings(hyper_stages=stages).build(BACKBONE.build(), {"hyper"})
    assert network(IMAGES)["hyper"].shape == (4, 128)


@pytest.mark.parametrize("stages", [(-5, -1), (4,), ()])
def test_absent_stages_are_refused_with_the_list_of_those_that_exist(stages: tuple[int, ...]) -> None:
    with pytest.raises(SettingsError, match=r"hyper_stages is .*-4: layer1, .*-1: layer4\. Name"):
        ContextSettings(hyper_stages=stages).build(BACKBONE.build(), {"global", "hyper"})
