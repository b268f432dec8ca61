"""detectron2 does not install here: its ResNet is written down again from its documented names of tensors."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from crosscontext.backbones import ResNetSettings, TimmSettings
from crosscontext.errors import SettingsError
from handed_over import PLAIN, assert_close, encoder, exported, run_card


class Convolution(nn.Conv2d):
    """Knows its normalisation."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1):
        super().__init__(before, after, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(super().forward(x))
        return normed


class Block(nn.Module):
    """A basic block without an inner width, else a bottleneck with the stride in its 3×3 convolution."""

    def __init__(self, before: int, after: int, stride: int, inner: int | None):
        super().__init__()
        self.shortcut = Convolution(before, after, 1, stride) if before != after else nn.Identity()
        self.conv3: nn.Module | None = None
        if inner is None:
            self.conv1, self.conv2 = Convolution(before, after, 3, stride), Convolution(after, after, 3)
        else:
            self.conv1, self.conv2 = Convolution(before, inner, 1), Convolution(inner, inner, 3, stride)
            self.conv3 = Convolution(inner, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        if self.conv3 is not None:
            y = self.conv3(F.relu(y))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """stem.conv1, res2 … res5."""

    def __init__(self, blocks: tuple[int, ...], res2_channels: int):
        super().__init__()
        self.stem = nn.Module()
        self.stem.conv1 = Convolution(3, 64, 7, 2)
        before = 64
        for stage, number in enumerate(blocks):
            after = res2_channels * 2**stage
            inner = 64 * 2**stage if res2_channels == 256 else None
            made = [
                Block(before if place == 0 else after, after, 2 if stage and not place else 1, inner)
                for place in range(number)
            ]
            self.add_module(f"res{stage + 2}", nn.Sequential(*made))
            before = after

    def forward(self, x: Tensor) -> Tensor:
        stem: Any = self.stem
        x = F.max_pool2d(F.relu(stem.conv1(x)), 3, 2, 1)
        for stage in (2, 3, 4, 5):
            x = self.get_submodule(f"res{stage}")(x)
        return x.mean((2, 3))


@pytest.mark.parametrize(
    ("backbone", "blocks", "channels"),
    [
        (PLAIN, (2, 2, 2, 2), 64),
        pytest.param(ResNetSettings(depth=50, stem="large"), (3, 4, 6, 3), 256, marks=pytest.mark.slow),
    ],
    ids=["resnet18", "resnet50"],
)
def test_a_network_of_detectron2s_names_computes_the_features(
    backbone: ResNetSettings, blocks: tuple[int, ...], channels: int, tmp_path: Path
) -> None:
    which = encoder(backbone)
    out = exported(tmp_path, which, "detectron2").out
    content = torch.load(out / "model.pth", weights_only=True)
    assert content["matching_heuristics"] is True
    settings = yaml.safe_load((out / "detectron2.yaml").read_text())
    assert settings["MODEL"]["RESNETS"] == {
        "DEPTH": backbone.depth,
        "STRIDE_IN_1X1": False,
        "RES2_OUT_CHANNELS": channels,
    }
    assert settings["INPUT"] == {"FORMAT": "RGB"}
    model = ResNet(blocks, channels).eval()
    missing, left_over = model.load_state_dict(content["model"], strict=False)
    assert not left_over
    assert all(name.endswith("num_batches_tracked") for name in missing)
    pixels = torch.randint(0, 256, (2, 3, 64, 64)).float()
    mean, std = (torch.tensor(settings["MODEL"][key])[:, None, None] for key in ("PIXEL_MEAN", "PIXEL_STD"))
    with torch.no_grad():
        assert_close(model((pixels - mean) / std), which(which.preprocessing.normalise(pixels.byte())))


def test_the_card_says_that_detectron2_was_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = exported(tmp_path, encoder(PLAIN), "detectron2").out
    monkeypatch.chdir(out)
    assert "res5.1.conv2.norm.running_var" in run_card(out)["weights"]
    assert "detectron2 itself was not run" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("backbone", "told"),
    [
        (ResNetSettings(depth=10, stem="large"), "detectron2 has no resnet10, only resnet18"),
        (ResNetSettings(depth=18, stem="small"), "--format detectron2 takes ResNets of torchvision"),
        (TimmSettings(model="convnext_atto"), "This is convnext_atto"),
    ],
)
def test_what_detectron2_does_not_have_is_refused(
    backbone: ResNetSettings | TimmSettings, told: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=told):
        exported(tmp_path, encoder(backbone, 32), "detectron2")
