"""What an encoder must beat: raw pixels, the same backbone untrained or as it started, and other encoders.

encoder, training images → **references** → features. All see pictures of the size and the cut of the encoder;
colours are normalised as each network was trained for.
"""

import difflib
from pathlib import Path
from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from crosscontext.datasets.contract import Dataset
from crosscontext.datasets.subset import Subset
from crosscontext.encoders import Encoder, Preprocessing, encoder_of, load_encoder, load_timm
from crosscontext.errors import SettingsError
from crosscontext.features import load_batches
from crosscontext.randomness import permutation
from crosscontext.run_folder import RunFolder
from crosscontext.shapes import Float

_OF_THE_ENCODER = ("pixels", "random", "start")
_TIMM = "timm:"
_TIMM_PARTS = 3
_LARGEST_PIXELS = 32
_STATISTICS_IMAGES = 1024
_STATISTICS_BATCH = 128


def _checked(text: str) -> str:
    if text in _OF_THE_ENCODER:
        return text
    if text.startswith(_TIMM):
        parts = text.split(":", _TIMM_PARTS - 1)
        if len(parts) < _TIMM_PARTS or not all(parts):
            raise ValueError(
                f"{text!r} is no timm model with weights; write timm:MODEL:FILE, e.g. "
                "timm:resnet18:/weights/resnet18.safetensors"
            )
        return ":".join([*parts[:-1], str(Path(parts[-1]).expanduser().absolute())])
    meant = difflib.get_close_matches(text.lower(), _OF_THE_ENCODER, n=1, cutoff=0.8)
    if not text or (meant and not Path(text).exists()):
        known = f"{', '.join(_OF_THE_ENCODER)}, timm:MODEL:FILE, or the path of an encoder"
        hint = f"; did you mean {meant[0]!r}?" if meant else ""
        raise ValueError(f"{text!r} is no reference; there are {known}{hint}")
    return str(Path(text).expanduser().absolute())


Reference = Annotated[str, AfterValidator(_checked)]
"""``pixels``, ``random``, ``start``, path of an encoder, or ``timm:MODEL:FILE``; paths become absolute."""


class Pixels(nn.Module):
    """Pictures → their normalised pixels, row by row.

    Args:
        preprocessing: of the encoder; above 32 px the picture is made 32 × 32, else too many values.
    """

    def __init__(self, preprocessing: Preprocessing):
        super().__init__()
        size = min(preprocessing.image_size, _LARGEST_PIXELS)
        self.preprocessing = preprocessing.model_copy(update={"image_size": size})

    @property
    def width(self) -> int:
        """Values of an image: three colours a pixel."""
        return 3 * self.preprocessing.image_size**2

    @property
    def digest(self) -> str:
        """Names the model, which has no weights."""
        return f"pixels{self.preprocessing.image_size}"

    def forward(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Lay the pixels of an image in one row."""
        return images.flatten(1)


def name_of(reference: Reference) -> str:
    """Name a reference in scores: a run by its folder, weights of timm by model and file."""
    if reference.startswith(_TIMM):
        model, file = reference.removeprefix(_TIMM).split(":", 1)
        return f"{_TIMM}{model}:{Path(file).name}"
    path = Path(reference)
    in_run = path.name == RunFolder(path.parent).encoder.name
    return path.parent.name if in_run else path.name.removesuffix(".safetensors")


def build_reference(
    reference: Reference, encoder: Encoder, train: Dataset, started_from: Path | None, seed: int, workers: int
) -> Encoder | Pixels:
    """Build what an encoder is compared with.

    Args:
        reference: which one.
        encoder: gives the size and the cut of the pictures, and the device.
        train: training images, for the BatchNorm statistics of the untrained twin.
        started_from: weights file that the pretraining of the encoder started from; None: random weights.
        seed: of the untrained weights.
        workers: threads that decode.

    Raises:
        SettingsError: the start is asked for and was random, or timm has no such model.
        CheckpointError: an encoder or its weights are missing, damaged, or of another architecture.
    """
    if reference == "pixels":
        return Pixels(encoder.preprocessing)
    if reference == "random":
        return random_twin(encoder, train, seed, workers)
    if reference == "start":
        other = _start(encoder, started_from)
    elif reference.startswith(_TIMM):
        model, file = reference.removeprefix(_TIMM).split(":", 1)
        other = load_timm(model, Path(file), encoder.preprocessing)
    else:
        other = load_encoder(Path(reference))
    return _beside(encoder, other.seeing(encoder.preprocessing))


def random_twin(encoder: Encoder, dataset: Dataset, seed: int, workers: int) -> Encoder:
    """Build the same backbone with fresh weights, and with BatchNorm statistics of real images.

    With the statistics that a new BatchNorm starts from, random features would be unfairly weak.

    Args:
        encoder: gives architecture and preprocessing.
        dataset: training images; statistics are averaged over 1024 of them, in batches of 128.
        seed: of the weights and of the choice of images; the global generator is left as it was.
        workers: threads that decode.

    Returns:
        The twin, in evaluation mode, on the device of the encoder.
    """
    settings = encoder.backbone_settings.model_copy(update={"weights": None})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = settings.build()
    twin = _beside(encoder, Encoder(backbone, encoder.card.model_copy(update={"step": 0})))
    norms = [module for module in twin.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    num_images = min(_STATISTICS_IMAGES, len(dataset.names))
    whole_batches = num_images - num_images % _STATISTICS_BATCH or num_images
    some = Subset(dataset, permutation(seed, 0, len(dataset.names))[:whole_batches].tolist())
    with torch.no_grad():
        for images, _ in load_batches(twin, some, _STATISTICS_BATCH, workers, skipped={}):
            twin(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return twin.eval()


def _start(encoder: Encoder, started_from: Path | None) -> Encoder:
    if started_from is None:
        raise SettingsError(
            "The reference start needs the weights that the run started from, and config.yaml names no "
            "backbone.weights: it started from random ones. Take random instead of start."
        )
    settings = encoder.backbone_settings.model_copy(update={"weights": started_from})
    return encoder_of(settings.build(), settings, encoder.preprocessing, step=0)


def _beside(encoder: Encoder, other: Encoder) -> Encoder:
    """Put another encoder onto the device of the first one, in evaluation mode."""
    device = next(encoder.parameters()).device
    return other.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]
