"""A map of images: features → **layout** → points in the plane, neighbours beside each other."""

import numpy as np
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits
from torch import Tensor

from crosscontext.shapes import Float, Float32

_COMPONENTS = 50  # t-SNE works on so many principal components, as its authors advise
_PERPLEXITY = 30.0
_ITERATIONS = 500
_FEWEST = 8  # images; fewer are laid out by their principal components
_COLLAPSED = 1e-4  # spread of directions below which rounding is all that is left to show


def layout(features: Float[Tensor, "N D"]) -> Float32[np.ndarray, "N 2"]:
    """Lay images out by the cosines of their features.

    Source: van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 2008, in scikit-learn, from the
    two first principal components; it preserves who is near, not how far away the others are. Nothing is
    drawn at random, and one thread adds in one order, so that equal features give equal maps.

    Args:
        features: of any length.

    Returns:
        Coordinates that fill [0, 1] along both sides; all 0.5 where the features are collapsed.
    """
    directions = F.normalize(features.double(), dim=1)
    centred = directions - directions.mean(dim=0)
    if float(centred.norm()) <= _COLLAPSED * len(features) ** 0.5:
        return np.full((len(features), 2), 0.5, dtype=np.float32)
    points = principal(centred, _COMPONENTS).numpy()
    start = points[:, :2] if points.shape[1] > 1 else np.pad(points, ((0, 0), (0, 1)))
    return _fill(_tsne(points, start) if len(features) >= _FEWEST else start)


def principal(centred: Float[Tensor, "N D"], number: int) -> Float[Tensor, "N E"]:
    """Project centred rows on their principal directions; the largest coordinate along each is positive."""
    left, singular, _ = torch.linalg.svd(centred, full_matrices=False)
    projected: Tensor = (left * singular)[:, :number]
    largest = projected.gather(0, projected.abs().argmax(dim=0, keepdim=True))
    return projected.mul_(torch.where(largest < 0, -1.0, 1.0))


def _tsne(points: Float[np.ndarray, "N E"], start: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 2"]:
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(points) - 1) / 3)
    small = (start / start[:, 0].std() * 1e-4).astype(np.float32)  # as scikit-learn scales its own start
    with threadpool_limits(1):
        return np.asarray(TSNE(perplexity=perplexity, init=small, max_iter=_ITERATIONS).fit_transform(points))


def _fill(points: Float[np.ndarray, "N 2"]) -> Float32[np.ndarray, "N 2"]:
    low, high = points.min(axis=0), points.max(axis=0)
    return np.asarray((points - low) / np.where(high > low, high - low, 1.0), dtype=np.float32)
