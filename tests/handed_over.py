"""Encoders of random weights, their exports, and the code of a card run as a stranger would run it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from crosscontext.backbones import ResNetSettings, TimmSettings
from crosscontext.encoders import Encoder, Preprocessing, encoder_of, save_encoder
from crosscontext.exporting import Exported, ExportSettings, export

NARROW = ResNetSettings(depth=10, width=0.125, stem="small")
PLAIN = ResNetSettings(depth=18, stem="large")


def encoder(backbone: ResNetSettings | TimmSettings, image_size: int = 64) -> Encoder:
    """An encoder of which every number matters, also the statistics of BatchNorm."""
    torch.manual_seed(0)
    settings = backbone.resolve(image_size)
    built = settings.build()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]  # has it where it has the mean
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    preprocessing = Preprocessing.for_size(image_size).model_copy(update={"mean": (0.5, 0.4, 0.3)})
    return encoder_of(built, settings, preprocessing, step=7).eval()


def saved(folder: Path, which: Encoder) -> Path:
    """Write an encoder, as conversion does."""
    file = folder / "mine.encoder.safetensors"
    save_encoder(file, which)
    return file


def exported(folder: Path, which: Encoder, form: object, **changes: Any) -> Exported:
    """Export an encoder; the proof takes three procedural images."""
    usual = {"run": saved(folder, which), "format": form, "out": folder / "out", "images": 3}
    return export(ExportSettings.model_validate(usual | changes))


def photo(width: int = 91, height: int = 75) -> Image.Image:
    """A picture that is not square, with details and with smooth parts."""
    generator = np.random.default_rng(1)
    coarse = Image.fromarray(generator.integers(0, 256, (9, 11, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noise = generator.integers(-20, 21, smooth.shape)
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


def code_of(card: str) -> str:
    """The only Python on a card."""
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    return str(code)


def run_card(folder: Path) -> dict[str, Any]:
    """Run the code of a card beside a picture; the working directory is that of the export."""
    photo().save("picture.jpg", quality=95)
    names: dict[str, Any] = {}
    exec(compile(code_of((folder / "README.md").read_text()), "README.md", "exec"), names)
    return names


def expected(which: Encoder) -> Tensor:
    """Features of the picture that the card was run beside."""
    with torch.no_grad(), Image.open("picture.jpg") as picture:
        features: Tensor = which(which.preprocess(picture)[None])
    return features


def assert_close(found: object, wanted: Tensor, tolerance: float = 1e-5) -> None:
    """Compare as the proof does."""
    difference = (torch.as_tensor(found) - wanted).abs().max()
    assert difference <= tolerance * wanted.abs().max()
