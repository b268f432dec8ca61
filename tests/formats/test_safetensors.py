from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import crosscontext
from crosscontext.backbones import ResNetSettings, TimmSettings
from handed_over import NARROW, assert_close, encoder, expected, exported, run_card


@pytest.mark.parametrize("backbone", [NARROW, TimmSettings(model="vit_tiny_patch16_224")])
def test_any_backbone_is_one_file_that_loads_again(
    backbone: ResNetSettings | TimmSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = encoder(backbone, 32)
    out = exported(tmp_path, which, "safetensors").out
    monkeypatch.chdir(out)
    assert_close(run_card(out)["features"], expected(which))
    assert crosscontext.load(out / "model.safetensors").digest == which.digest


def test_tensors_have_plain_names(tmp_path: Path) -> None:
    which = encoder(NARROW, 16)
    tensors = load_file(exported(tmp_path, which, "safetensors").out / "model.safetensors")
    assert torch.equal(tensors["conv1.weight"], which.backbone.model.state_dict()["conv1.weight"])
    assert tensors.keys() == which.backbone.model.state_dict().keys()
