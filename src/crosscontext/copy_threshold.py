"""How similar must two images be to count as copies? A model and its images → **copy threshold**.

That depends on the model and on the images, so it is measured on them and not a constant.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from crosscontext.datasets.altered import AlteredDataset
from crosscontext.datasets.files import ImageFiles
from crosscontext.errors import ImageIndexError
from crosscontext.features import extract
from crosscontext.image_index import ImageIndex
from crosscontext.index_settings import ModelOfIndex
from crosscontext.inference import for_inference
from crosscontext.randomness import permutation, uniforms
from crosscontext.settings import Settings
from crosscontext.shapes import Float
from crosscontext.tasks.copies import CopiesSettings, Distortion, distort
from crosscontext.vector_search import cosines, nearest_rows

SAMPLE = 200
"""Images that copies are made of."""

_MILD = CopiesSettings(crop_area=0.9, jpeg_quality=50, blur=0.01, colour=0.1)
_KINDS: tuple[Distortion, ...] = ("crop", "jpeg", "blur", "colour")
_BATCH_SIZE = 64
_SEED, _STREAM = 0, 3


class CopyThreshold(Settings):
    """A similarity that tells copies from other images, and how well it does."""

    similarity: float
    """Cosine from which on two images count as copies."""

    images: int
    """Images that were tried."""

    found: float
    """Share of their mild copies (a crop of 90 % of the area, JPEG of quality 50, a blur of 1 % of the side,
    colours changed by 10 %) that are at least so similar to the original."""

    mistaken: float
    """Share of these images to which another image of the index is at least so similar. True duplicates count
    here too."""


def measure_threshold(
    index: ImageIndex, settings: ModelOfIndex, notify: Callable[[str], None]
) -> CopyThreshold:
    """Choose the similarity that best tells mild copies of some images from the nearest other images.

    Best is the largest `found - mistaken` (Youden, Cancer 1950), and of equally good ones the highest. Images
    that do have duplicates are mistaken at each of the thresholds in question, so they do not move it.

    Args:
        index: its images must still be there, at least some.
        settings: of the model.
        notify: is told what is being done.

    Raises:
        ImageIndexError: the images are gone, or the model is another one.
        CheckpointError: there is no model.
        DataError: none of the images can be read.
    """
    drawn = permutation(_SEED, 0, len(index.images))[:SAMPLE]
    rows = [row for row in drawn.tolist() if index.file(row).is_file()]
    if not rows:
        raise ImageIndexError(
            f"The images below {index.card.root} are gone, and the threshold is measured on copies of them. "
            "Give a similarity, e.g. --threshold 0.95."
        )
    model = for_inference(settings.load_model(index))
    notify(f"measuring how similar copies of {len(rows)} images are; --threshold sets a number instead")
    dataset = ImageFiles(index.card.root, [index.images[row].path for row in rows])
    copies = []
    for kind in _KINDS:
        features = extract(model, AlteredDataset(dataset, _distorter(kind)), _BATCH_SIZE, settings.workers)
        originals = index.vectors[[index.rows[name] for name in features.names]]
        copies.append(cosines(features.values.numpy(), originals))
    nearest = nearest_rows(index.vectors[rows], index.vectors, 1, np.array(rows)).similarity[:, 0]
    return _best(torch.cat(copies), nearest)


def _best(copies: Float[Tensor, " P"], others: Float[Tensor, " M"]) -> CopyThreshold:
    candidates = copies.unique()  # sorted
    found = (copies >= candidates[:, None]).double().mean(dim=1)
    mistaken = (others >= candidates[:, None]).double().mean(dim=1)
    gain = found - mistaken
    best = int(torch.nonzero(gain == gain.max())[-1])
    return CopyThreshold(
        similarity=float(candidates[best]),
        images=len(others),
        found=float(found[best]),
        mistaken=float(mistaken[best]),
    )


def _distorter(kind: Distortion) -> Callable[[Image.Image, int], Image.Image]:
    def alter(picture: Image.Image, image: int) -> Image.Image:
        (draws,) = uniforms(_SEED, 0, np.array([image]), _KINDS.index(kind), count=3, stream=_STREAM)
        return distort(picture, kind, draws, _MILD)

    return alter
