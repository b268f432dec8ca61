"""Weights for `torchvision.models.resnet50().load_state_dict(…, strict=True)` and its kin."""

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import nn

from crosscontext.encoders import Encoder
from crosscontext.formats.contract import WEIGHTS, Format, Loaded, Manual, read_preprocessing, write_weights
from crosscontext.formats.torchvision_twins import torchvision_twin

_CLASSES = 1000


class TorchvisionFormat(Format):
    """torchvision, ResNets alone: `torchvision.models.resnet50().load_state_dict(…, strict=True)`."""

    name: Literal["torchvision"] = "torchvision"
    """torchvision, ResNets of full width alone."""

    def check(self, encoder: Encoder) -> None:
        """Refuse what torchvision does not have."""
        torchvision_twin(encoder, self.name)

    def write(self, encoder: Encoder, folder: Path) -> None:
        """Write the weights: names are torchvision's already; a classifier of zeros is added."""
        weights = encoder.backbone.model.state_dict()
        empty = {"fc.weight": torch.zeros(_CLASSES, encoder.width), "fc.bias": torch.zeros(_CLASSES)}
        write_weights(folder, weights | empty)

    def read(self, encoder: Encoder, folder: Path) -> Loaded:
        """Load them into the network of torchvision."""
        from torchvision import transforms

        model: Any = torchvision_twin(encoder, self.name).build()
        model.load_state_dict(load_file(folder / WEIGHTS), strict=True)
        model.fc = nn.Identity()
        model.eval()
        seen = read_preprocessing(folder)
        transform = transforms.Compose(
            [
                transforms.Resize(seen.short_side),
                transforms.CenterCrop(seen.image_size),
                transforms.ToTensor(),
                transforms.Normalize(seen.mean, seen.std),
            ]
        )
        return Loaded(model, lambda picture: model(transform(picture)[None]))

    def manual(self, encoder: Encoder) -> Manual:
        """Say how to load them."""
        seen = encoder.preprocessing
        code = f'''\
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torchvision import transforms

model = {torchvision_twin(encoder, self.name).expression}
model.load_state_dict(load_file("{WEIGHTS}"), strict=True)
model.fc = torch.nn.Identity()
model.eval()
transform = transforms.Compose(
    [
        transforms.Resize({seen.short_side}),
        transforms.CenterCrop({seen.image_size}),
        transforms.ToTensor(),
        transforms.Normalize({seen.mean}, {seen.std}),
    ]
)
with torch.no_grad():
    features = model(transform(Image.open("picture.jpg").convert("RGB"))[None])  # (1, {encoder.width})
'''
        note = (
            f"`fc`, the classifier of {_CLASSES} classes that a strict load asks for, holds zeros: it was "
            "never trained."
        )
        return Manual("torchvision", ("torch", "torchvision"), code, (note,))
