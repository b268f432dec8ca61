"""Weights for the ResNets of detectron2, with a YAML file of its settings that belong to them.

detectron2 is not needed here, nor is it installed; its names are those of its documented layout.
"""

import re
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from crosscontext.backbones.resnet import FIRST_BOTTLENECK_DEPTH
from crosscontext.encoders import Encoder
from crosscontext.errors import SettingsError
from crosscontext.formats.contract import Format, Loaded, Manual, read_preprocessing
from crosscontext.formats.torchvision_twins import torchvision_twin
from crosscontext.weights import read_weights

_WEIGHTS, _SETTINGS = "model.pth", "detectron2.yaml"
_DEPTHS = {"resnet18": 18, "resnet34": 34, "resnet50": 50, "resnet101": 101, "resnet152": 152}
_RULES = (
    (r"^(conv1|bn1)\.", r"stem.\1."),
    (r"^layer(\d)\.", lambda found: f"res{int(found[1]) + 1}."),
    (r"\bbn(\d)\.", r"conv\1.norm."),
    (r"\bdownsample\.0\.", "shortcut."),
    (r"\bdownsample\.1\.", "shortcut.norm."),
)


class Detectron2Format(Format):
    """detectron2, ResNets alone: weights and the settings to include."""

    name: Literal["detectron2"] = "detectron2"
    """detectron2, ResNets of full width alone."""

    def check(self, encoder: Encoder) -> None:
        """Refuse what detectron2 does not have."""
        if (name := torchvision_twin(encoder, self.name).name) not in _DEPTHS:
            raise SettingsError(
                f"detectron2 has no {name}, only {', '.join(_DEPTHS)}. Choose --format timm, torchvision, "
                "onnx or safetensors."
            )

    def write(self, encoder: Encoder, folder: Path) -> None:
        """Write tensors by their names in detectron2, and its settings."""
        weights = {
            in_detectron2(name): value.detach().cpu()
            for name, value in encoder.backbone.model.state_dict().items()
            if not name.endswith("num_batches_tracked")  # its frozen BatchNorm has none
        }
        content = {"model": weights, "__author__": "crosscontext", "matching_heuristics": True}
        torch.save(content, folder / _WEIGHTS)
        seen = encoder.preprocessing
        depth = _DEPTHS[torchvision_twin(encoder, self.name).name]
        settings = {
            "MODEL": {
                "WEIGHTS": _WEIGHTS,
                "PIXEL_MEAN": [255 * value for value in seen.mean],
                "PIXEL_STD": [255 * value for value in seen.std],
                "RESNETS": {
                    "DEPTH": depth,
                    "STRIDE_IN_1X1": False,
                    "RES2_OUT_CHANNELS": 256 if depth >= FIRST_BOTTLENECK_DEPTH else 64,
                },
            },
            "INPUT": {"FORMAT": "RGB"},
        }
        (folder / _SETTINGS).write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")

    def read(self, encoder: Encoder, folder: Path) -> Loaded:
        """Rename the tensors back into a ResNet of torchvision, and take the colours from the YAML file."""
        model: Any = torchvision_twin(encoder, self.name).build()
        model.fc = nn.Identity()
        weights = read_weights(folder / _WEIGHTS)
        model.load_state_dict(
            {
                name: value if name.endswith("num_batches_tracked") else weights[in_detectron2(name)]
                for name, value in model.state_dict().items()
            }
        )
        model.eval()
        settings = yaml.safe_load((folder / _SETTINGS).read_text(encoding="utf-8"))["MODEL"]
        mean, std = (torch.tensor(settings[key])[:, None, None] for key in ("PIXEL_MEAN", "PIXEL_STD"))
        plain = read_preprocessing(folder).model_copy(update={"mean": (0.0,) * 3, "std": (1.0,) * 3})

        def pictures(picture: Image.Image) -> Tensor:
            features: Tensor = model(((255 * plain(picture) - mean) / std)[None])
            return features

        return Loaded(model, pictures)

    def manual(self, encoder: Encoder) -> Manual:
        """Say how to load them."""
        code = f'''\
import torch

weights = torch.load("{_WEIGHTS}", weights_only=True)["model"]  # tensors by their names in detectron2
'''
        notes = (
            f'In detectron2: `cfg.merge_from_file("{_SETTINGS}")`, or `_BASE_: {_SETTINGS}`. It sets the '
            "weights, the depth, RGB instead of BGR, the colours for values from 0 to 255, and the stride in "
            f"the 3×3 convolution. Give `MODEL.WEIGHTS` the whole path of {_WEIGHTS}.",
            "detectron2 itself was not run for the proof below: the tensors were renamed back, and the same "
            "network of torchvision computed the features.",
        )
        return Manual("detectron2", ("torch", "torchvision"), code, notes)


def in_detectron2(name: str) -> str:
    """Rename a tensor of torchvision's ResNet as detectron2 does, e.g. ``res2.0.conv1.norm.weight``."""
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name
