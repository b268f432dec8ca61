from pathlib import Path

import pytest
import timm
import torch

from crosscontext.backbones import ResNetSettings, TimmSettings
from crosscontext.errors import SettingsError
from crosscontext.formats.timm import TimmFormat
from crosscontext.formats.timm_twins import crop_share
from handed_over import NARROW, PLAIN, assert_close, encoder, expected, exported, photo, run_card


@pytest.mark.parametrize(
    "backbone",
    [PLAIN, ResNetSettings(depth=10, stem="large"), TimmSettings(model="vit_tiny_patch16_224")],
    ids=["resnet18", "resnet10", "vit"],
)
def test_timm_computes_the_features_by_the_code_of_the_card(
    backbone: ResNetSettings | TimmSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = encoder(backbone)
    out = exported(tmp_path, which, "timm").out
    monkeypatch.chdir(out)
    found = run_card(out)
    assert_close(found["features"], expected(which))
    assert "forward_intermediates" not in (out / "README.md").read_text()


def test_weights_load_with_no_more_than_a_checkpoint_path(tmp_path: Path) -> None:
    which = encoder(PLAIN)
    out = exported(tmp_path, which, "timm").out
    model = timm.create_model("resnet18", num_classes=0, checkpoint_path=str(out / "model.safetensors"))
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert_close(model.eval()(images), which.backbone(images)[-1].mean((2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["convnext_atto", "efficientnet_b0"])
def test_where_timm_gives_something_else_the_card_takes_the_last_map(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = encoder(TimmSettings(model=model))
    out = exported(tmp_path, which, "timm").out
    monkeypatch.chdir(out)
    assert_close(run_card(out)["features"], expected(which))
    assert "Called by itself, this model of timm gives something else" in (out / "README.md").read_text()


@pytest.mark.parametrize("image_size", [32, 64, 96, 160, 224])
def test_timm_resizes_to_the_same_short_side(
    image_size: int,
) -> None:
    which = encoder(ResNetSettings(depth=10, stem="large"), image_size)
    manual = TimmFormat().manual(which)
    assert f"crop_pct={crop_share(which.preprocessing)!r}" in manual.code
    transform = timm.data.create_transform(  # type: ignore[attr-defined]  # timm does not say what it exports
        input_size=(3, image_size, image_size),
        interpolation="bilinear",
        crop_pct=crop_share(which.preprocessing),
        mean=which.preprocessing.mean,
        std=which.preprocessing.std,
    )
    for picture in (photo(300, 411), photo(50, 33)):
        torch.testing.assert_close(transform(picture), which.preprocess(picture))


def test_a_network_that_timm_has_no_arguments_for_is_refused_with_the_remedy(tmp_path: Path) -> None:
    which = encoder(NARROW, 16)
    for form in ("timm", "hf"):
        with pytest.raises(SettingsError, match=r"resnet10, width 0\.125, small stem: .* --format onnx or"):
            exported(tmp_path, which, form)
    assert not (tmp_path / "out").exists()
