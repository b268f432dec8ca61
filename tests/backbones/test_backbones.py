import copy
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from pydantic import TypeAdapter
from safetensors.torch import save_file

from crosscontext.backbones import Backbone, BackboneSettings, ResNetSettings, TimmSettings
from crosscontext.contexts import ContextSettings
from crosscontext.errors import CheckpointError, SettingsError

SIZE = 64
RESNETS = [
    ResNetSettings(depth=10, width=0.25, stem="small"),
    ResNetSettings(depth=10, width=0.5, stem="medium"),
    ResNetSettings(depth=10, width=0.5, stem="large"),
    ResNetSettings(depth=18, width=0.25, stem="large"),
    ResNetSettings(depth=18, stem="small"),
    ResNetSettings(depth=18, stem="large"),
    ResNetSettings(depth=50, width=0.25, stem="small"),
    ResNetSettings(depth=50, width=0.5, stem="large"),
    ResNetSettings(depth=50, stem="large"),
]
TIMM_MODELS = [
    "convnext_atto",
    "efficientnet_b0",
    "vit_tiny_patch16_224",
    "regnety_002",
    "mobilenetv3_small_050",
    "swin_tiny_patch4_window7_224",  # made for one image size
    "cait_xxs24_224",  # the same, and takes no other one
]
MEMBERS: list[BackboneSettings] = [*RESNETS, *(TimmSettings(model=name) for name in TIMM_MODELS)]
NARROW = ResNetSettings(depth=10, width=0.125, stem="small")


def name_of(settings: BackboneSettings) -> str:
    if isinstance(settings, TimmSettings):
        return settings.model
    return f"resnet{settings.depth}-{settings.width}-{settings.stem}"


def parse(value: object) -> BackboneSettings:
    adapter: TypeAdapter[BackboneSettings] = TypeAdapter(BackboneSettings)
    return adapter.validate_python(value)


def built(settings: BackboneSettings, image_size: int = SIZE) -> Backbone:
    torch.manual_seed(0)
    return settings.resolve(image_size).build()


@pytest.mark.parametrize("settings", MEMBERS, ids=name_of)
def test_four_maps_are_as_declared_coarse_ones_last_and_train_what_is_before_them(
    settings: BackboneSettings,
) -> None:
    backbone = built(settings).train()
    strides = [stage.stride for stage in backbone.stages]
    assert strides == sorted(strides)
    assert len({stage.name for stage in backbone.stages}) == 4
    maps = backbone(torch.randn(2, 3, SIZE, SIZE))
    assert [tuple(each.shape) for each in maps] == [
        (2, stage.channels, SIZE // stage.stride, SIZE // stage.stride) for stage in backbone.stages
    ]
    assert all(torch.isfinite(each).all() for each in maps)
    torch.stack([each.square().mean() for each in maps]).sum().backward()
    reached = [parameter.grad is not None for parameter in backbone.parameters()]
    assert sum(reached) > 0.9 * len(reached)  # the head of a classifier may lie behind the last stage


@pytest.mark.parametrize(
    "settings", [NARROW, *(TimmSettings(model=name) for name in TIMM_MODELS[:3])], ids=name_of
)
def test_every_backbone_carries_both_contexts(settings: BackboneSettings) -> None:
    network = ContextSettings(hidden_width=16).build(built(settings), {"global", "hyper"})
    embeddings = network(torch.randn(2, 3, SIZE, SIZE))
    assert {name: tuple(rows.shape) for name, rows in embeddings.items()} == {
        "global": (2, 128),
        "hyper": (2, 128),
    }


@pytest.mark.parametrize("settings", [NARROW, TimmSettings(model="convnext_atto")], ids=name_of)
def test_the_seed_decides_the_first_weights(settings: BackboneSettings) -> None:
    one, other = built(settings).state_dict(), built(settings).state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("depth", [18, 50])
def test_key_names_and_shapes_are_those_of_torchvision_without_its_classifier(depth: int) -> None:
    theirs = getattr(torchvision.models, f"resnet{depth}")().state_dict()
    expected = {key: value.shape for key, value in theirs.items() if not key.startswith("fc.")}
    ours = built(ResNetSettings(depth=depth, stem="large")).model.state_dict()
    assert {key: value.shape for key, value in ours.items()} == expected


def test_a_resnet_of_torchvision_gives_the_same_maps() -> None:
    theirs = torchvision.models.resnet18().eval()
    ours = built(ResNetSettings(stem="large")).eval()
    ours.model.load_state_dict(
        {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    )
    images = torch.randn(2, 3, SIZE, SIZE)
    produced = torchvision.models.feature_extraction.create_feature_extractor(
        theirs, [stage.name for stage in ours.stages]
    )(images)
    for mine, reference in zip(ours(images), produced.values(), strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("stem", ["small", "medium", "large"])
def test_all_normalisations_start_as_identities_as_those_of_torchvision(stem: str) -> None:
    backbone = parse({"name": "resnet", "depth": 10, "width": 0.5, "stem": stem}).build()
    norms = [module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(norms) == 12
    assert all(bool((norm.weight == 1).all()) for norm in norms)
    assert not any(norm.bias.any() for norm in norms)


@pytest.mark.parametrize("width", [0.125, 0.25, 0.5, 1.0, 1.5])
def test_the_width_multiplies_all_layers(width: float) -> None:
    stages = built(ResNetSettings(depth=10, width=width)).stages
    assert [stage.channels for stage in stages] == [round(c * width) for c in (64, 128, 256, 512)]


@pytest.mark.parametrize("width", [0.0, -1.0])
def test_a_network_without_width_is_refused(width: float) -> None:
    with pytest.raises(ValueError, match="width"):
        ResNetSettings(width=width)


@pytest.mark.parametrize("settings", [NARROW, TimmSettings(model="convnext_atto")], ids=name_of)
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_backbone_starts_from_the_weights_of_a_file(
    tmp_path: Path, settings: BackboneSettings, ending: str
) -> None:
    source, file = built(settings).model.state_dict(), tmp_path / f"start{ending}"
    if ending == ".safetensors":
        save_file(source, file)
    else:
        torch.save({"state_dict": source, "epoch": 90}, file)
    torch.manual_seed(1)
    loaded = settings.model_copy(update={"weights": file}).build().model.state_dict()
    assert all(torch.equal(loaded[key], source[key]) for key in source)


def test_the_classifier_of_foreign_weights_is_left_out(tmp_path: Path) -> None:
    resnet = torchvision.models.resnet18().state_dict()
    torch.save(resnet, tmp_path / "resnet18.pth")
    ours = ResNetSettings(stem="large", weights=tmp_path / "resnet18.pth").build().model.state_dict()
    assert torch.equal(ours["layer4.1.conv2.weight"], resnet["layer4.1.conv2.weight"])
    for name in ("convnext_atto", "regnety_002", "mobilenetv3_small_050"):
        save_file(timm.create_model(name).state_dict(), tmp_path / f"{name}.safetensors")
        TimmSettings(model=name, weights=tmp_path / f"{name}.safetensors").build()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (ResNetSettings(depth=18, width=0.125, stem="small"), r"missing: layer1\.1\.bn1\.bias"),
        (ResNetSettings(depth=10, width=0.25, stem="small"), r"other shape: .*\(8,\) instead of \(16,\)"),
        (TimmSettings(model="convnext_atto"), r"missing: .*; left over: bn1\.bias"),
    ],
    ids=["deeper", "wider", "another"],
)
def test_weights_of_another_network_are_refused_with_their_keys(
    tmp_path: Path, settings: BackboneSettings, named: str
) -> None:
    save_file(NARROW.build().model.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(
        CheckpointError, match=rf"w\.safetensors are those of another architecture; .*{named}"
    ):
        settings.model_copy(update={"weights": tmp_path / "w.safetensors"}).build()


@pytest.mark.parametrize(
    ("wrong", "near"), [("convnext_atom", "convnext_atto"), ("efficient_net_b0", "efficientnet_b0")]
)
def test_an_unknown_name_says_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(SettingsError, match=rf"no model '{wrong}'\. Did you mean .*{near}"):
        TimmSettings(model=wrong).build()


def test_a_name_like_no_other_says_where_the_names_are() -> None:
    with pytest.raises(SettingsError, match=r"timm\.list_models\(\) lists the names"):
        TimmSettings(model="qqqqqqqqqq").build()


@pytest.mark.parametrize(
    ("image_size", "stem", "stride"), [(32, "small", 1), (63, "small", 1), (64, "large", 4)]
)
def test_images_below_64_pixels_get_the_small_stem(image_size: int, stem: str, stride: int) -> None:
    settled = ResNetSettings(depth=10, width=0.125).resolve(image_size)
    assert settled.stem == stem
    assert settled.build().stages[0].stride == stride


@pytest.mark.parametrize("stem", ["small", "large"])
def test_a_stem_that_is_set_stays(stem: str) -> None:
    settings = parse({"name": "resnet", "stem": stem})
    assert settings.resolve(32) == settings.resolve(224) == settings


@pytest.mark.parametrize("stride", [4, 8])
@pytest.mark.parametrize("settings", [RESNETS[2], RESNETS[6]], ids=name_of)
def test_dilated_stages_keep_the_cells_that_were_there_before(settings: ResNetSettings, stride: int) -> None:
    torch.manual_seed(0)
    plain = settings.build().eval().double()  # values grow from block to block
    dilated = copy.deepcopy(plain)
    dilated.dilate(stride)
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        maps = zip(plain.stages, dilated.stages, plain(images), dilated(images), strict=True)
    for before, after, coarse, fine in maps:
        assert after.stride == min(before.stride, stride)
        assert fine.shape[2:] == (64 // after.stride, 96 // after.stride)
        factor = before.stride // after.stride
        torch.testing.assert_close(fine[:, :, ::factor, ::factor], coarse)


@pytest.mark.parametrize("image_size", [32, 64, 96])
def test_a_transformer_takes_the_images_of_the_run_and_smaller_ones(image_size: int) -> None:
    backbone = built(TimmSettings(model="vit_tiny_patch16_224"), image_size)
    for side in (image_size, 16):
        maps = backbone(torch.randn(1, 3, side, side))
        assert maps[-1].shape == (1, 192, side // 16, side // 16)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("resnet", ResNetSettings()),
        ("resnet50", ResNetSettings(depth=50)),
        ("resnet26", TimmSettings(model="resnet26")),
        ("convnext_tiny", TimmSettings(model="convnext_tiny")),
    ],
)
def test_a_plain_name_stands_for_its_settings(text: str, settings: BackboneSettings) -> None:
    assert parse(text) == settings
