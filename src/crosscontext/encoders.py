"""A backbone with its preprocessing: what pretraining leaves, and what everything after it takes.

pretrain → **encoders** → features, export
"""

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from crosscontext.backbones import Backbone, BackboneSettings, TimmSettings
from crosscontext.contexts import pool
from crosscontext.errors import CheckpointError
from crosscontext.run_folder import RunFolder, write_atomically
from crosscontext.settings import Settings
from crosscontext.views import IMAGENET_MEAN, IMAGENET_STD
from crosscontext.weights import Shape, cause_of, load_exactly, read_shapes, read_weights, refuse_misfit

FORMAT_VERSION: Final = 1
_METADATA_KEY = "crosscontext"
_CROPPED_FROM = 64


class Preprocessing(Settings):
    """How a picture becomes the input of an encoder: short side resized, centre cut out, normalised."""

    image_size: int = Field(ge=8)
    """Side of the input, in pixels."""

    crop_fraction: float = Field(gt=0, le=1)
    """Side of the centre crop over the short side that the picture is resized to."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Of the colours, for values in [0, 1]."""

    std: tuple[float, float, float] = IMAGENET_STD
    """Of the colours, for values in [0, 1]."""

    @property
    def short_side(self) -> int:
        """Pixels of the short side of the resized picture, of which the centre is cut out."""
        return round(self.image_size / self.crop_fraction)

    @classmethod
    def for_size(cls, image_size: int) -> "Preprocessing":
        """The field's standard: 224 px out of 256, and small images whole."""
        return cls(image_size=image_size, crop_fraction=0.875 if image_size >= _CROPPED_FROM else 1.0)

    def __call__(self, picture: Image.Image) -> Float[Tensor, "3 S S"]:
        """Preprocess one picture of any size and mode."""
        return self.normalise(torch.from_numpy(self.pixels(picture)).permute(2, 0, 1).contiguous())

    def pixels(self, picture: Image.Image) -> UInt8[np.ndarray, "S S 3"]:
        """Resize and cut one picture of any size and mode; `normalise` does the rest, for a batch at once."""
        from torchvision.transforms.v2 import functional as transforms

        picture = picture if picture.mode == "RGB" else picture.convert("RGB")
        if min(picture.size) != self.short_side:
            picture = transforms.resize(picture, [self.short_side])
        if picture.size != (self.image_size, self.image_size):
            picture = transforms.center_crop(picture, [self.image_size])
        return np.array(picture)

    def normalise(self, pixels: UInt8[Tensor, "*batch 3 S S"]) -> Float[Tensor, "*batch 3 S S"]:
        """Turn bytes into values in [0, 1], less the mean and over the deviation of their colour."""
        from torchvision.transforms.v2 import functional as transforms

        values: Tensor = pixels.float().div_(255)
        transforms.normalize(values, list(self.mean), list(self.std), inplace=True)
        return values


class EncoderCard(Settings):
    """What is written into the file beside the weights."""

    format_version: Literal[1] = FORMAT_VERSION
    """Of this layout."""

    backbone: BackboneSettings
    """Builds the network that the weights fit into; it is resolved."""

    preprocessing: Preprocessing
    """Of the pictures."""

    made_by: str
    """Version of the library."""

    step: int
    """Steps of pretraining."""


class Encoder(nn.Module):
    """Pictures → feature vectors: the global average of the last stage map."""

    def __init__(self, backbone: Backbone, card: EncoderCard):
        super().__init__()
        self.backbone = backbone
        self.card = card

    @property
    def backbone_settings(self) -> BackboneSettings:
        """What builds such a backbone."""
        return self.card.backbone

    @property
    def preprocessing(self) -> Preprocessing:
        """What `preprocess` does, as settings."""
        return self.card.preprocessing

    @property
    def width(self) -> int:
        """Length D of a feature vector."""
        return self.backbone.stages[-1].channels

    @property
    def digest(self) -> str:
        """Identifies the weights: 16 hexadecimal digits of SHA-256 over names and values."""
        sha = hashlib.sha256()
        for name, value in sorted(self.backbone.model.state_dict().items()):
            sha.update(name.encode())
            sha.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return sha.hexdigest()[:16]

    def seeing(self, other: Preprocessing) -> "Encoder":
        """Take the same network, no copy, with another's size and cut of pictures; colours stay its own."""
        cut = {"image_size": other.image_size, "crop_fraction": other.crop_fraction}
        preprocessing = self.preprocessing.model_copy(update=cut)
        return Encoder(self.backbone, self.card.model_copy(update={"preprocessing": preprocessing}))

    def preprocess(self, picture: Image.Image) -> Float[Tensor, "3 S S"]:
        """Turn a picture into an input; stack several to a batch."""
        return self.preprocessing(picture)

    def forward(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Compute one feature vector an image."""
        return pool(self.backbone(images)[-1])


def save_encoder(path: Path, encoder: Encoder) -> None:
    """Write an encoder: weights with the key names of their framework, and its card in the metadata."""
    weights = {
        name: value.detach().cpu().contiguous() for name, value in encoder.backbone.model.state_dict().items()
    }
    content = save(weights, metadata={_METADATA_KEY: encoder.card.model_dump_json()})
    write_atomically(path, lambda file: file.write(content))


def load_encoder(path: Path | str) -> Encoder:
    """Load an encoder, in evaluation mode, on the CPU.

    Args:
        path: of a run folder, or of an encoder file.

    Raises:
        CheckpointError: there is none, the file is damaged, it was written by something else, or its card
            asks for another network than its weights are of.
    """
    path = Path(path)
    file = RunFolder(path).encoder if path.is_dir() else path
    card = read_card(file)
    encoder = Encoder(build_to_fit(card.backbone, read_shapes(file), str(file)), card)
    load_exactly(encoder.backbone.model, read_weights(file), str(file))
    return encoder.eval()


def build_to_fit(settings: BackboneSettings, shapes: Mapping[str, Shape], source: str) -> Backbone:
    """Build the network that weights are of; no more memory is taken than they take themselves.

    Settings that come out of a file may ask for a network of any size. So it is built without memory first,
    on PyTorch's device meta, and compared.

    Args:
        settings: resolved, without weights.
        shapes: of the weights, by name.
        source: where they come from, for the message.

    Raises:
        CheckpointError: the network has other tensors, or cannot be.
    """
    try:
        with torch.device("meta"):
            sketch = settings.build()
    except (ArithmeticError, AssertionError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"The weights of {source} are said to be of {settings.model_dump(exclude_none=True)}, and there "
            f"can be no such network: {cause_of(error)}. Give a file that crosscontext has written."
        ) from error
    refuse_misfit(sketch.model, shapes, source)
    return settings.build()


def read_card(file: Path) -> EncoderCard:
    """Read what an encoder file says beside the weights.

    Raises:
        CheckpointError: there is none, the file is damaged, or it was written by something else.
    """
    if not file.is_file():
        raise CheckpointError(
            f"There is no encoder {file}. Give a run folder that `crosscontext pretrain` has written, "
            "or a file encoder.safetensors."
        )
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(f"{file} is not a whole safetensors file: {error}. Write it again.") from error
    try:
        card = EncoderCard.model_validate_json(metadata.get(_METADATA_KEY, ""))
        if card.backbone.weights is not None:
            raise ValueError(f"its card names another file of weights, {card.backbone.weights}")
        return card
    except ValueError as error:
        raise CheckpointError(
            f"{file} has weights, but not the card of an encoder of format {FORMAT_VERSION}. "
            "Give a file that crosscontext has written; to start training from other weights, "
            "set backbone.weights."
        ) from error


def load_timm(model: str, weights: Path, preprocessing: Preprocessing) -> Encoder:
    """Load a model of timm, with the colours that its pretrained weights are known to expect.

    Args:
        model: name in timm.
        weights: file (.safetensors, or a PyTorch state dict); a classifier is left out.
        preprocessing: gives the size and the cut of the pictures.

    Raises:
        SettingsError: timm has no such model.
        CheckpointError: the weights are missing, damaged, or of another architecture.
    """
    import timm

    settings = TimmSettings(model=model, weights=weights).resolve(preprocessing.image_size)
    backbone = settings.build()
    about = timm.get_pretrained_cfg(model)
    mean, std = (about.mean, about.std) if about is not None else (IMAGENET_MEAN, IMAGENET_STD)
    return encoder_of(backbone, settings, preprocessing.model_copy(update={"mean": mean, "std": std}), step=0)


def encoder_of(
    backbone: Backbone, settings: BackboneSettings, preprocessing: Preprocessing, step: int
) -> Encoder:
    """Wrap a backbone that is being trained; the weights are shared, not copied."""
    return Encoder(
        backbone,
        EncoderCard(
            backbone=settings.model_copy(update={"weights": None}),  # a path of this machine is no one else's
            preprocessing=preprocessing,
            made_by=f"crosscontext {version('crosscontext')}",
            step=step,
        ),
    )
