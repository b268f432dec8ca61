"""Names and shapes of tensors → the settings of the backbone that they fit into.

namings → **architectures** → backbones. Tensors bear the names of timm here.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from crosscontext.backbones import BackboneSettings, ResNetSettings, TimmSettings
from crosscontext.backbones.resnet import BLOCKS, FIRST_BOTTLENECK_DEPTH
from crosscontext.errors import CheckpointError

_BOTTLENECK_OF_TIMM = {(3, 8, 36, 3): "resnet152"}
_WIDTHS_OF_TRANSFORMERS = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge", 1536: "giant"}
_DINOV3 = {
    (384, False): "small",
    (384, True): "small_plus",
    (768, False): "base",
    (1024, False): "large",
    (1280, True): "huge_plus",
    (4096, True): "7b",
}
_CONVNEXTS = {
    (40, (2, 2, 6, 2)): "atto",
    (48, (2, 2, 6, 2)): "femto",
    (64, (2, 2, 6, 2)): "pico",
    (80, (2, 2, 8, 2)): "nano",
    (96, (3, 3, 9, 3)): "tiny",
    (96, (3, 3, 27, 3)): "small",
    (128, (3, 3, 27, 3)): "base",
    (192, (3, 3, 27, 3)): "large",
    (256, (3, 3, 27, 3)): "xlarge",
}
_IMAGE_SIZE = 224
_REMEDY = "Say what it is with --backbone, e.g. --backbone resnet50 or --backbone efficientnet_b0."


def infer_backbone(weights: Mapping[str, Tensor]) -> BackboneSettings:
    """Find the backbone whose names and shapes these are. Loading the weights proves it.

    Raises:
        CheckpointError: no known architecture is meant.
    """
    if "conv1.weight" in weights and "layer4.0.conv1.weight" in weights:
        return _resnet(weights)
    if "patch_embed.proj.weight" in weights and "blocks.0.norm1.weight" in weights:
        return _transformer(weights)
    if "stem.0.weight" in weights and "stages.0.blocks.0.conv_dw.weight" in weights:
        return _convnext(weights)
    raise CheckpointError(
        f"The architecture cannot be told from the names {', '.join(list(weights)[:6])}, … {_REMEDY}"
    )


def _resnet(weights: Mapping[str, Tensor]) -> BackboneSettings:
    blocks = tuple(_count(weights, rf"layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    is_bottleneck = "layer1.0.conv3.weight" in weights
    channels, _, kernel, _ = weights["conv1.weight"].shape
    if is_bottleneck and weights["layer1.0.conv1.weight"].shape[0] == 2 * channels:
        names = {BLOCKS[50]: "wide_resnet50_2", BLOCKS[101]: "wide_resnet101_2"}
    else:
        names = _BOTTLENECK_OF_TIMM if is_bottleneck else {}
    if blocks in names:
        return TimmSettings(model=names[blocks], image_size=_IMAGE_SIZE)
    for depth, expected in BLOCKS.items():
        if blocks == expected and is_bottleneck == (depth >= FIRST_BOTTLENECK_DEPTH):
            stem = "large" if kernel > 3 else "small"
            try:
                return ResNetSettings.model_validate({"depth": depth, "width": channels / 64, "stem": stem})
            except ValidationError as error:
                raise CheckpointError(
                    f"No ResNet of which the first layer has {channels} channels is known. {_REMEDY}"
                ) from error
    raise CheckpointError(f"No ResNet of {blocks} blocks is known. {_REMEDY}")


def _transformer(weights: Mapping[str, Tensor]) -> TimmSettings:
    width, _, patch, _ = weights["patch_embed.proj.weight"].shape
    is_gated = "blocks.0.mlp.fc1_g.weight" in weights
    if "pos_embed" not in weights:
        size = _known(_DINOV3, (width, is_gated), f"DINOv3 transformer of width {width}")
        bias = "_qkvb" if "blocks.0.attn.q_bias" in weights else ""
        return TimmSettings(model=f"vit_{size}_patch{patch}_dinov3{bias}", image_size=_IMAGE_SIZE)
    size = _known(_WIDTHS_OF_TRANSFORMERS, width, f"transformer of width {width}")
    if "reg_token" in weights:
        model, prefix = f"vit_{size}_patch{patch}_reg4_dinov2", 0
    else:
        scaled = "blocks.0.ls1.gamma" in weights
        model, prefix = f"vit_{size}_patch{patch}_{'dinov2' if scaled else '224'}", 1
    side = math.isqrt(weights["pos_embed"].shape[1] - prefix)
    return TimmSettings(model=model, image_size=side * patch)


def _convnext(weights: Mapping[str, Tensor]) -> TimmSettings:
    width = weights["stem.0.weight"].shape[0]
    blocks = tuple(_count(weights, rf"stages\.{stage}\.blocks\.(\d+)\.") for stage in range(4))
    version = "convnextv2" if "stages.0.blocks.0.mlp.grn.weight" in weights else "convnext"
    size = _known(_CONVNEXTS, (width, blocks), f"ConvNeXt of width {width} and {blocks} blocks")
    return TimmSettings(model=f"{version}_{size}", image_size=_IMAGE_SIZE)


def _known(table: Mapping[Any, str], key: object, what: str) -> str:
    if key not in table:
        raise CheckpointError(f"No {what} is known. {_REMEDY}")
    return table[key]


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[1] for name in weights if (found := re.match(pattern, name))})
