"""What an encoder must beat: its raw pixels, and the same backbone at random initialisation.

encoder, training images → **references** → features
"""

import torch
from PIL import Image
from torch import Tensor, nn

from crosscontext.datasets.contract import Dataset
from crosscontext.datasets.subset import Subset
from crosscontext.encoders import Encoder, Preprocessing
from crosscontext.features import load_batches
from crosscontext.randomness import permutation
from crosscontext.shapes import Float

_LARGEST_PIXELS = 32
_STATISTICS_IMAGES = 1024
_STATISTICS_BATCH = 128


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

    def preprocess(self, picture: Image.Image) -> Float[Tensor, "3 S S"]:
        """Turn a picture into an input."""
        return self.preprocessing(picture)

    def forward(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Lay the pixels of an image in one row."""
        return images.flatten(1)


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
    twin = Encoder(backbone, encoder.card.model_copy(update={"step": 0}))
    device = next(encoder.parameters()).device
    twin.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

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
