from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file

from crosscontext.backbones import ResNetSettings, TimmSettings
from crosscontext.errors import SettingsError
from handed_over import NARROW, PLAIN, assert_close, encoder, expected, exported, run_card


@pytest.mark.parametrize(
    "backbone",
    [
        PLAIN,
        ResNetSettings(depth=10, stem="large"),
        pytest.param(ResNetSettings(depth=50, stem="large"), marks=pytest.mark.slow),
        pytest.param(TimmSettings(model="wide_resnet50_2"), marks=pytest.mark.slow),
    ],
    ids=["resnet18", "resnet10", "resnet50", "wide"],
)
def test_torchvision_computes_the_features_by_the_code_of_the_card(
    backbone: ResNetSettings | TimmSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = encoder(backbone)
    out = exported(tmp_path, which, "torchvision").out
    monkeypatch.chdir(out)
    assert_close(run_card(out)["features"], expected(which))


def test_a_strict_load_finds_every_tensor_and_a_classifier_of_zeros(tmp_path: Path) -> None:
    out = exported(tmp_path, encoder(PLAIN), "torchvision").out
    model = torchvision.models.resnet18()
    model.load_state_dict(load_file(out / "model.safetensors"), strict=True)
    assert not torch.any(model.fc.weight)
    assert "`fc`, the classifier of 1000 classes" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("backbone", "told"),
    [
        (NARROW, r"resnet10, width 0\.125, small stem\. Choose --format onnx"),
        (ResNetSettings(depth=18, stem="small"), "resnet18, width 1, small stem"),
        (TimmSettings(model="vit_tiny_patch16_224"), "This is vit_tiny_patch16_224"),
    ],
)
def test_what_torchvision_does_not_have_is_refused(
    backbone: ResNetSettings | TimmSettings, told: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=told):
        exported(tmp_path, encoder(backbone, 32), "torchvision")
