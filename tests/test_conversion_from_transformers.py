"""Checkpoints that transformers itself has written are converted to what it computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from crosscontext.conversion import ConvertSettings, convert
from crosscontext.encoders import load_encoder

Features = Callable[[Any, Tensor], Tensor]
TINY = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
SMALL = {"hidden_size": 384, "num_attention_heads": 6}


def pooled(model: Any, images: Tensor) -> Tensor:
    features: Tensor = model(images).pooler_output.flatten(1)
    return features


def average_of_patches(others: int) -> Features:
    def features(model: Any, images: Tensor) -> Tensor:
        tokens: Tensor = model(images).last_hidden_state[:, others:]
        return tokens.mean(1)

    return features


@pytest.mark.parametrize(
    ("kind", "config", "features"),
    [
        ("ResNet", {"layer_type": "bottleneck"}, pooled),
        ("ResNet", {"layer_type": "basic", "depths": [2] * 4, "hidden_sizes": [64, 128, 256, 512]}, pooled),
        ("ViT", TINY, average_of_patches(1)),
        ("Dinov2WithRegisters", SMALL | {"patch_size": 14, "image_size": 518}, average_of_patches(5)),
        ("DINOv3ViT", SMALL | {"intermediate_size": 1536, "num_register_tokens": 4}, average_of_patches(5)),
    ],
    ids=["resnet50", "resnet18", "vit", "dinov2", "dinov3"],
)
def test_a_saved_model_is_converted_to_the_same_features(
    kind: str, config: dict[str, Any], features: Features, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**config)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1)
    model.save_pretrained(tmp_path)
    convert(ConvertSettings(file=tmp_path / "model.safetensors", out=tmp_path / "mine.encoder.safetensors"))
    encoder = load_encoder(tmp_path / "mine.encoder.safetensors")
    images = torch.randn(2, 3, encoder.preprocessing.image_size, encoder.preprocessing.image_size)
    with torch.no_grad():
        found, expected = encoder(images), features(model, images)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
