"""Our own bundle in one file: weights with the names of timm and torchvision, and the card of the encoder."""

from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from crosscontext.contexts import pool
from crosscontext.encoders import Encoder, save_encoder
from crosscontext.formats.contract import WEIGHTS, Format, Loaded, Manual, read_preprocessing
from crosscontext.weights import load_exactly


class SafetensorsFormat(Format):
    """safetensors, any backbone: plain names of tensors, without code; `crosscontext.load` reads it."""

    name: Literal["safetensors"] = "safetensors"
    """safetensors, any backbone."""

    def check(self, encoder: Encoder) -> None:
        """Take any encoder."""

    def write(self, encoder: Encoder, folder: Path) -> None:
        """Write weights and card."""
        save_encoder(folder / WEIGHTS, encoder)

    def read(self, encoder: Encoder, folder: Path) -> Loaded:
        """Load the tensors by safetensors' own reader into a new network."""
        backbone: Any = encoder.backbone_settings.build().eval()
        load_exactly(backbone.model, load_file(folder / WEIGHTS), WEIGHTS)
        preprocess = read_preprocessing(folder)

        def network(images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
            return pool(backbone(images)[-1])

        return Loaded(network, lambda picture: network(preprocess(picture)[None]))

    def manual(self, encoder: Encoder) -> Manual:
        """Say how to load them."""
        code = f'''\
import crosscontext
import torch
from PIL import Image

encoder = crosscontext.load("{WEIGHTS}")
with torch.no_grad():
    features = encoder(encoder.preprocess(Image.open("picture.jpg"))[None])  # (1, {encoder.width})
'''
        note = (
            f"Any reader of safetensors reads {WEIGHTS}: names of tensors are those of timm, without prefix, "
            "and of ResNets also those of torchvision. The metadata holds the settings of the network."
        )
        return Manual("pytorch", ("safetensors", "torch", "timm"), code, (note,))
