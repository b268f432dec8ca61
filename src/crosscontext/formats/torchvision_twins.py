"""ResNets that torchvision has too: encoder → its name and its network there.

formats.torchvision and formats.detectron2 write what is found here.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import nn

from crosscontext.backbones import ResNetSettings, described
from crosscontext.backbones.resnet import BLOCKS
from crosscontext.encoders import Encoder
from crosscontext.errors import SettingsError

_ALSO_IN_TORCHVISION = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("wide_resnet50_2", "wide_resnet101_2"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
)


class TorchvisionTwin(NamedTuple):
    """A network of torchvision with the tensors of an encoder."""

    name: str
    """E.g. resnet50."""

    expression: str
    """Builds it in Python."""

    build: Callable[[], nn.Module]
    """Builds it with random weights, and with a classifier ``fc`` of 1000 classes."""


def torchvision_twin(encoder: Encoder, format_name: str) -> TorchvisionTwin:
    """Find the network of torchvision that has the tensors of an encoder.

    Args:
        encoder: of any backbone.
        format_name: for the message.

    Raises:
        SettingsError: there is none.
    """
    import torchvision

    settings = encoder.backbone_settings
    if isinstance(settings, ResNetSettings):
        is_plain = settings.width == 1 and settings.stem == "large"
        name = f"resnet{settings.depth}"
    else:
        name = settings.model.partition(".")[0]  # what follows the dot names weights
        is_plain = name in _ALSO_IN_TORCHVISION
    if not is_plain:
        raise SettingsError(
            f"--format {format_name} takes ResNets of torchvision: the large stem, and the width 1. This is "
            f"{described(settings)}. Choose --format onnx or --format safetensors, which take any backbone."
        )
    if isinstance(settings, ResNetSettings) and name not in _ALSO_IN_TORCHVISION:
        models, blocks = torchvision.models.resnet, list(BLOCKS[settings.depth])
        expression = f"torchvision.models.resnet.ResNet(torchvision.models.resnet.BasicBlock, {blocks})"
        return TorchvisionTwin(name, expression, partial(models.ResNet, models.BasicBlock, blocks))
    return TorchvisionTwin(
        name, f"torchvision.models.{name}()", partial(torchvision.models.get_model, name, weights=None)
    )
