"""How timm itself builds a network of ours: encoder → name, arguments and call.

formats.timm and formats.hf write what is found here.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crosscontext.backbones import ResNetSettings, described
from crosscontext.backbones.resnet import BLOCKS
from crosscontext.backbones.timm_models import TimmBackbone, size_options
from crosscontext.encoders import Encoder, Preprocessing
from crosscontext.errors import SettingsError
from crosscontext.formats.contract import Manual

_POOLINGS: tuple[dict[str, Any], ...] = ({}, {"global_pool": "avg", "fc_norm": False})
"""Arguments with which a model of timm may give our features by itself: as it is; a transformer that averages
its normalised patches."""

_MAPS: dict[str, Any] = {"global_pool": ""}
_TOLERANCE = 1e-5
_DEPTHS_OF_TIMM = (18, 34, 50, 101)


class TimmTwin(NamedTuple):
    """A model of timm with the tensors of an encoder."""

    name: str

    arguments: dict[str, Any]
    """Of `timm.create_model`, besides the name and ``num_classes=0``."""

    indices: tuple[int, ...] | None
    """None: the model called gives the features. Else they are the average of the last of its maps with these
    indices."""

    def build(self) -> nn.Module:
        """Build it, with random weights."""
        import timm

        model: nn.Module = timm.create_model(self.name, num_classes=0, **self.arguments).eval()
        return model

    def features(self, model: Any, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Compute what `call` writes."""
        if self.indices is None:
            called: Tensor = model(images)
            return called
        maps = model.forward_intermediates(
            images, indices=list(self.indices), norm=True, intermediates_only=True
        )
        averaged: Tensor = maps[-1].mean((2, 3))
        return averaged

    def call(self) -> str:
        """Write the expression that gives the features of ``images``."""
        if self.indices is None:
            return "model(images)"
        return (
            f"model.forward_intermediates(\n        images, indices={list(self.indices)}, norm=True, "
            "intermediates_only=True\n    )[-1].mean((2, 3))"
        )


def timm_twin(encoder: Encoder) -> TimmTwin:
    """Find the model of timm that has the tensors of an encoder and computes the same.

    Raises:
        SettingsError: timm cannot be asked for such a network.
    """
    settings = encoder.backbone_settings
    if isinstance(settings, ResNetSettings):
        if settings.width != 1 or settings.stem != "large":
            raise SettingsError(
                f"timm has no arguments for a {described(settings)}: its ResNets have the large stem, and "
                "the width 1. Choose --format onnx or --format safetensors, which take any backbone."
            )
        if settings.depth in _DEPTHS_OF_TIMM:
            return TimmTwin(f"resnet{settings.depth}", {}, None)
        return TimmTwin("resnet18", {"layers": list(BLOCKS[settings.depth])}, None)
    options = size_options(settings)
    for pooling in _POOLINGS:
        twin = TimmTwin(settings.model, options | pooling, None)
        if _computes_the_same(twin, encoder):
            return twin
    assert isinstance(encoder.backbone, TimmBackbone)
    return TimmTwin(settings.model, options | _MAPS, tuple(encoder.backbone.indices))


def _computes_the_same(twin: TimmTwin, encoder: Encoder) -> bool:
    try:
        model = twin.build()
        model.load_state_dict(encoder.backbone.model.state_dict())
    except (TypeError, RuntimeError):  # it knows no such argument, or its tensors have other names
        return False
    size = encoder.preprocessing.image_size
    noise = torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = encoder(noise), twin.features(model, noise)
    return found.shape == expected.shape and bool(
        (found - expected).abs().max() <= _TOLERANCE * expected.abs().max()
    )


def crop_share(preprocessing: Preprocessing) -> float:
    """Find the ``crop_pct`` from which timm, which rounds down, gets the same short side as we do."""
    size, short = preprocessing.image_size, preprocessing.short_side
    share = preprocessing.crop_fraction
    return share if math.floor(size / share) == short else size / (short + 0.25)


def timm_manual(twin: TimmTwin, width: int, create: str, transform: str) -> Manual:
    """Say how to use a model of timm.

    Args:
        twin: the model.
        width: of its features.
        create: expression that makes the model.
        transform: expression that makes what prepares a picture.
    """
    code = f"""\
import timm
import torch
from PIL import Image

model = {create}.eval()
transform = {transform}
images = transform(Image.open("picture.jpg").convert("RGB"))[None]
with torch.no_grad():
    features = {twin.call()}  # (1, {width})
"""
    return Manual("timm", ("timm", "torch", "torchvision"), code, _notes(twin))


def _notes(twin: TimmTwin) -> tuple[str, ...]:
    if twin.indices is None:
        return ()
    return (
        "Called by itself, this model of timm gives something else than the features that were scored, which "
        "are the average of its last map; the code takes that.",
    )
