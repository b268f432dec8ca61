import argparse
import json
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

import checkpoints_of_others as others
import crosscontext
from crosscontext.backbones import BackboneSettings, ResNetSettings, TimmSettings
from crosscontext.cli import main
from crosscontext.conversion import ConvertSettings, convert
from crosscontext.errors import CheckpointError, RunFolderError, SettingsError
from crosscontext.layouts import LAYOUTS

SMALL = ResNetSettings(depth=10, width=0.125, stem="small")
LARGE = ResNetSettings(depth=50, width=0.125, stem="large")
TINY = TimmSettings(model="vit_tiny_patch16_224", image_size=32)

ResNetLayout = tuple[str, str, Callable[[others.Weights], object], ResNetSettings]
RESNETS: list[ResNetLayout] = [
    ("MoCo v1/v2", "query", others.moco, LARGE),
    ("MoCo v1/v2", "query", others.moco_v2, SMALL),
    ("MoCo v3", "base", others.moco_v3, LARGE),
    ("CGH", "query", others.cgh, SMALL),
    ("ReSSL", "query", others.ressl, LARGE),
    ("eztorch (SCE)", "online", others.eztorch, SMALL),
    ("solo-learn", "online", others.solo_learn, LARGE),
    ("lightly", "online", others.lightly, LARGE),
    ("lightly", "online", others.lightly_own, SMALL),
    ("VISSL", "trunk", others.vissl, LARGE),
    ("VISSL", "trunk", others.vissl_evaluated, LARGE),
    ("MMSelfSup/mmpretrain", "backbone", others.openselfsup, LARGE),
    ("MMSelfSup/mmpretrain", "backbone", others.mmpretrain, LARGE),
    ("Barlow Twins", "network", others.barlow_twins, LARGE),
    ("SwAV", "network", others.swav, LARGE),
    ("Hugging Face", "network", others.hugging_face_resnet, LARGE),
    ("timm/torchvision", "network", others.torchvision, LARGE),
    ("DINO", "teacher", others.dino, LARGE),
]


def weights_of(settings: BackboneSettings) -> dict[str, Tensor]:
    """Weights of which no two tensors are alike, so that none can be mistaken for another."""
    torch.manual_seed(0)
    state = settings.build().model.state_dict()
    return {
        name: torch.rand(value.shape) if value.is_floating_point() else value for name, value in state.items()
    }


def saved(path: Path, content: object) -> ConvertSettings:
    torch.save(content, path / "given.pth")
    return ConvertSettings(file=path / "given.pth", out=path / "made.safetensors")


def assert_same(made: others.Weights, expected: others.Weights) -> None:
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("layout", "twin", "build", "backbone"), RESNETS, ids=[build.__name__ for _, _, build, _ in RESNETS]
)
def test_a_resnet_of_each_layout_is_found_with_all_its_values(
    tmp_path: Path,
    layout: str,
    twin: str,
    build: Callable[[others.Weights], object],
    backbone: ResNetSettings,
) -> None:
    weights = weights_of(backbone)
    done = convert(saved(tmp_path, build(weights)))
    assert (done.record.layout, done.record.twin) == (layout, twin)
    assert done.encoder.backbone_settings == backbone
    assert_same(crosscontext.load(done.record.encoder).backbone.model.state_dict(), weights)


@pytest.mark.parametrize(
    ("layout", "build"),
    [
        ("DINO", others.dino),
        ("Hugging Face", others.hugging_face_vit),
        ("MMSelfSup/mmpretrain", others.mmpretrain_vit),
        ("timm/torchvision", others.timm_training),
    ],
    ids=["dino", "hugging_face", "mmpretrain", "timm"],
)
def test_a_transformer_of_each_layout_is_found_with_all_its_values(
    tmp_path: Path, layout: str, build: Callable[[others.Weights], object]
) -> None:
    weights = weights_of(TINY)
    done = convert(saved(tmp_path, build(weights)))
    assert done.record.layout == layout
    assert done.encoder.backbone_settings == TINY
    assert done.encoder.preprocessing.mean == (
        (0.5,) * 3 if layout == "Hugging Face" else (0.485, 0.456, 0.406)
    )
    assert_same(done.encoder.backbone.model.state_dict(), weights)


def test_every_layout_is_tested() -> None:
    assert {layout for layout, *_ in RESNETS} == {layout.name for layout in LAYOUTS}


def test_a_transformer_of_torchvision_computes_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.VisionTransformer(32, 16, 12, 3, 192, 768).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.05)
    made = convert(saved(tmp_path, theirs.state_dict())).encoder
    tokens: list[Tensor] = []
    theirs.encoder.register_forward_hook(lambda *arguments: tokens.append(arguments[-1]))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        theirs(images)
        torch.testing.assert_close(made(images), tokens[0][:, 1:].mean(1))


def test_a_resnet_of_torchvision_computes_the_same(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18().eval()
    made = convert(saved(tmp_path, theirs.state_dict())).encoder
    theirs.fc = nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(made(images), theirs(images))


@pytest.mark.parametrize("registers", [False, True])
def test_dinov2_is_as_timm_loads_it(tmp_path: Path, registers: bool) -> None:
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    name = f"vit_small_patch14_{'reg4_' if registers else ''}dinov2"
    settings = TimmSettings(model=name, image_size=28)
    weights = weights_of(settings)
    original = {**weights, "mask_token": torch.zeros(1, 384)}
    if registers:
        original["register_tokens"] = original.pop("reg_token")
        original["pos_embed"] = torch.rand(1, 5, 384)
    done = convert(saved(tmp_path, others.dinov2(original) if not registers else original))
    model = settings.build().model
    assert isinstance(model, VisionTransformer)
    expected = checkpoint_filter_fn(dict(original), model)
    assert done.encoder.backbone_settings == settings
    assert_same(done.encoder.backbone.model.state_dict(), expected)


def of_dinov3(weights: others.Weights) -> dict[str, Tensor]:
    """Timm's names → those of the authors: one bias of queries, keys and values, whose middle is masked."""
    made: dict[str, Tensor] = {"mask_token": torch.zeros(1, 384), "rope_embed.periods": torch.zeros(16)}
    for name, value in weights.items():
        if name.endswith("q_bias"):
            block = name.removesuffix("q_bias")
            made[f"{block}qkv.bias"] = torch.cat([value, torch.zeros(384), weights[f"{block}v_bias"]])
            made[f"{block}qkv.bias_mask"] = torch.ones(3 * 384)
        elif not name.endswith("v_bias"):
            made[re.sub(r"gamma_(\d)", r"ls\1.gamma", name).replace("reg_token", "storage_tokens")] = value
    return made


def of_dinov3_at_hugging_face(weights: others.Weights) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {"embeddings.mask_token": torch.zeros(1, 1, 384)}
    renamed = (
        (r"^cls_token", "embeddings.cls_token"),
        (r"^reg_token", "embeddings.register_tokens"),
        (r"^patch_embed\.proj", "embeddings.patch_embeddings"),
        (r"^blocks\.", "layer."),
        (r"gamma_(\d)", r"layer_scale\1.lambda1"),
        (r"attn\.([qv])_bias", r"attention.\1_proj.bias"),
        (r"attn\.proj", "attention.o_proj"),
        (r"mlp\.fc1", "mlp.up_proj"),
        (r"mlp\.fc2", "mlp.down_proj"),
    )
    for name, value in weights.items():
        new = name
        for pattern, replacement in renamed:
            new = re.sub(pattern, replacement, new)
        if new.endswith("attn.qkv.weight"):
            for part, chunk in zip("qkv", value.chunk(3), strict=True):
                made[new.replace("attn.qkv", f"attention.{part}_proj")] = chunk
        else:
            made[new] = value
    return made


@pytest.mark.parametrize("build", [of_dinov3, of_dinov3_at_hugging_face])
def test_dinov3_is_found_with_all_its_values(
    tmp_path: Path, build: Callable[[others.Weights], dict[str, Tensor]]
) -> None:
    settings = TimmSettings(model="vit_small_patch16_dinov3_qkvb", image_size=224)
    weights = weights_of(settings)
    done = convert(saved(tmp_path, build(weights)))
    assert done.encoder.backbone_settings == settings
    assert_same(done.encoder.backbone.model.state_dict(), weights)


def test_convnext_of_dinov3_is_as_timm_loads_it(tmp_path: Path) -> None:
    from timm.models.convnext import checkpoint_filter_fn

    settings = TimmSettings(model="convnext_tiny", image_size=224)
    model = settings.build().model
    original: dict[str, Tensor] = {}
    for name, value in weights_of(settings).items():
        new = re.sub(r"^stem\.", "downsample_layers.0.", name)
        new = re.sub(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", new)
        new = re.sub(r"\.blocks\.(\d+)\.", r".\1.", new).replace("conv_dw", "dwconv")
        original[re.sub(r"mlp\.fc", "pwconv", new).replace("head.norm", "norm")] = value
    last = {f"norms.3.{part}": original[f"norm.{part}"] for part in ("weight", "bias")}
    done = convert(saved(tmp_path, {**original, **last}))
    assert done.encoder.backbone_settings == settings
    expected = checkpoint_filter_fn(original, model)  # type: ignore[no-untyped-call]  # timm's
    assert_same(done.encoder.backbone.model.state_dict(), expected)


def test_the_other_twin_is_taken_when_asked_for(tmp_path: Path) -> None:
    weights = weights_of(SMALL)
    settings = saved(tmp_path, others.moco(weights)).model_copy(update={"twin": "key"})
    done = convert(settings)
    assert done.record.twin == "key"
    assert_same(done.encoder.backbone.model.state_dict(), others.twin(weights))
    with pytest.raises(SettingsError, match=r"MoCo v1/v2 has no twin 'teacher'; it has query, key"):
        convert(settings.model_copy(update={"twin": "teacher", "overwrite": True}))


def test_what_is_left_out_is_said_with_its_number_of_tensors(tmp_path: Path) -> None:
    done = convert(saved(tmp_path, others.moco(weights_of(SMALL))))
    num_tensors = len(weights_of(SMALL))
    assert done.record.dropped == {
        "head": 4,
        "key twin": num_tensors,
        "queue": 2,
        "optimiser and schedule": 1,
    }
    assert "left out: head (4), key twin" in str(done.record)


def test_one_wide_tensor_does_not_make_a_huge_network(tmp_path: Path) -> None:
    weights = weights_of(SMALL)
    wide = weights | {"conv1.weight": torch.zeros(6400, 3, 3, 3)}  # of a network of 200 GB
    with pytest.raises(CheckpointError, match="those of another architecture"):
        convert(saved(tmp_path, wide))
    with pytest.raises(CheckpointError, match=r"the first layer has 0 channels is known\. Say what it is"):
        convert(saved(tmp_path, weights | {"conv1.weight": torch.zeros(0, 3, 3, 3)}))
    shown_often = weights | {"conv1.weight": torch.zeros(1).expand(10**9, 3, 3, 3)}
    with pytest.raises(CheckpointError, match=r"holds 4 bytes for conv1.weight, .* Save contiguous tensors"):
        convert(saved(tmp_path, shown_often))


def test_a_tensor_that_nobody_knows_is_refused_by_name(tmp_path: Path) -> None:
    weights = {**weights_of(SMALL), "adapter.weight": torch.zeros(2)}
    settings = saved(tmp_path, weights)
    with pytest.raises(CheckpointError, match=r"left over: adapter\.weight"):
        convert(settings)
    content = others.moco(weights_of(SMALL))
    assert isinstance(content, dict)
    content["state_dict"]["module.memory.bank"] = torch.zeros(2)
    with pytest.raises(CheckpointError, match=r"MoCo v1/v2, but nothing is known of .*module\.memory\.bank"):
        convert(saved(tmp_path, content))
    assert not (tmp_path / "made.safetensors").exists()


def test_a_missing_tensor_is_refused_by_name(tmp_path: Path) -> None:
    weights = weights_of(SMALL)
    del weights["layer2.0.bn1.weight"]
    with pytest.raises(CheckpointError, match=r"missing: layer2\.0\.bn1\.weight"):
        convert(saved(tmp_path, weights))


def test_networks_without_counters_of_batches_get_them(tmp_path: Path) -> None:
    weights = {name: value for name, value in weights_of(SMALL).items() if "num_batches" not in name}
    assert convert(saved(tmp_path, weights)).encoder.backbone_settings == SMALL


def test_what_shapes_do_not_show_is_refused_unless_the_user_says_so(tmp_path: Path) -> None:
    settings = saved(tmp_path, others.solo_learn(weights_of(SMALL)))
    with pytest.raises(CheckpointError, match=r"3×3 stem of solo-learn pads pictures by 2"):
        convert(settings)
    assert convert(settings.model_copy(update={"backbone": SMALL})).encoder.backbone_settings == SMALL
    (tmp_path / "made.safetensors").unlink()
    small = weights_of(TimmSettings(model="vit_small_patch16_224", image_size=32))
    content = {"state_dict": others.under("module.base_encoder.", small)}
    with pytest.raises(CheckpointError, match=r"MoCo v3 may have 12 attention heads"):
        convert(saved(tmp_path, content))


class Recorder:
    """Of a library that is not here."""


@pytest.mark.parametrize("extra", [Recorder(), np.float64(0.5)], ids=["class", "numpy"])
def test_a_file_that_needs_unpickling_is_refused_with_the_remedy(tmp_path: Path, extra: object) -> None:
    settings = saved(tmp_path, {"state_dict": weights_of(SMALL), "best": extra})
    with pytest.raises(
        CheckpointError, match=r"it would run .*\. Give a \.safetensors file.*weights_only=False"
    ):
        convert(settings)


def test_options_of_a_training_are_no_code(tmp_path: Path) -> None:
    content = {"state_dict": weights_of(SMALL), "args": argparse.Namespace(lr=0.1)}
    assert convert(saved(tmp_path, content)).record.layout == "timm/torchvision"


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_damaged_file_is_refused(tmp_path: Path, kept: int) -> None:
    settings = saved(tmp_path, weights_of(SMALL))
    settings.file.write_bytes(settings.file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        convert(settings)
    assert not (tmp_path / "made.safetensors").exists()


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"architecture cannot be told .*--backbone"):
        convert(saved(tmp_path, nn.Linear(2, 2).state_dict()))


def test_an_output_in_the_way_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    settings = saved(tmp_path, weights_of(SMALL))
    convert(settings)
    with pytest.raises(
        RunFolderError, match=r"made\.safetensors is there already\. Replace it with --overwrite"
    ):
        convert(settings)
    convert(settings.model_copy(update={"overwrite": True}))
    with pytest.raises(RunFolderError, match="is a folder"):
        convert(settings.model_copy(update={"out": tmp_path}))
    with pytest.raises(RunFolderError, match=r"cannot be made: Not a directory"):
        convert(settings.model_copy(update={"out": settings.file / "below" / "e.safetensors"}))


def test_preprocessing_is_that_of_the_network_unless_it_is_given(tmp_path: Path) -> None:
    settings = saved(tmp_path, weights_of(SMALL))
    usual = convert(settings).encoder.preprocessing
    assert (usual.image_size, usual.crop_fraction) == (32, 1)
    told = {
        "image_size": 64,
        "crop_fraction": 0.9,
        "mean": (0.1, 0.2, 0.3),
        "std": (1, 1, 1),
        "overwrite": True,
    }
    given = convert(settings.model_copy(update=told)).encoder.preprocessing
    assert (given.image_size, given.crop_fraction, given.mean) == (64, 0.9, (0.1, 0.2, 0.3))


def test_the_command_writes_what_can_be_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = weights_of(SMALL)
    save_file(OrderedDict(weights), tmp_path / "given.safetensors")
    out = tmp_path / "new" / "e.safetensors"
    assert main(["convert", str(tmp_path / "given.safetensors"), "--out", str(out)]) == 0
    assert f"encoder: {out}" in capsys.readouterr().out
    assert (
        main(["convert", str(tmp_path / "given.safetensors"), "--out", str(out), "--overwrite", "--json"])
        == 0
    )
    printed = json.loads(capsys.readouterr().out)
    assert (printed["encoder"], printed["layout"], printed["dropped"]) == (str(out), "timm/torchvision", {})
    assert printed["backbone"] == SMALL.model_dump(mode="json")
    made = crosscontext.load(out)
    assert made.card.made_by.endswith("from given.safetensors (timm/torchvision, network)")
    assert_same(made.backbone.model.state_dict(), weights)
    assert main(["convert"]) == 2
    assert "Missing FILE" in capsys.readouterr().err
