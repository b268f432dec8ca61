"""Which images resemble which, by the cosine of their features.

features → **neighbours** → probe, health, tasks. Searches are exact, and go through the queries in chunks: no
matrix of all queries by all images is ever held.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crosscontext.shapes import Float, Float64, Int64

_SIMILARITIES_AT_ONCE = 2**22  # 16 MB of float32


class Neighbours(NamedTuple):
    """The K most similar images of each of M queries, the most similar one first."""

    similarity: Float[Tensor, "M K"]
    """Cosines, in [-1, 1]."""

    rows: Int64[Tensor, "M K"]
    """Which rows of the gallery they are."""


class Ranking(NamedTuple):
    """How well the images of the class of a query stand among all, for each of M queries."""

    average_precision: Float64[Tensor, " M"]
    """In (0, 1]."""

    first: Int64[Tensor, " M"]
    """Rank of the most similar image of the class, from 1."""


def nearest(
    queries: Float[Tensor, "M D"],
    gallery: Float[Tensor, "N D"],
    k: int,
    without: Int64[Tensor, " M"] | None = None,
) -> Neighbours:
    """Find the k images of the gallery that are most similar to each query.

    Args:
        queries: features, of any length; cosines ignore it.
        gallery: features.
        k: in [1, N], or in [1, N - 1] with `without`.
        without: a row of the gallery for each query that is passed over, e.g. the query itself.
    """
    queries, gallery = F.normalize(queries, dim=1), F.normalize(gallery, dim=1)
    similarities, neighbours = [], []
    for rows in _chunks(torch.arange(len(queries)), len(gallery)):
        similarity = queries[rows] @ gallery.T
        if without is not None:
            similarity.scatter_(1, without[rows, None], -torch.inf)
        largest = similarity.topk(k, dim=1)
        similarities.append(largest.values)
        neighbours.append(largest.indices)
    return Neighbours(torch.cat(similarities), torch.cat(neighbours))


def rank_by_class(
    queries: Float[Tensor, "M D"],
    query_classes: Int64[Tensor, " M"],
    gallery: Float[Tensor, "N D"],
    gallery_classes: Int64[Tensor, " N"],
) -> Ranking:
    """Rank the whole gallery by similarity to each query, and see where the images of its class stand.

    For one query::

        right = [cosine(query, image) for image in gallery if its class is that of the query]
        all = [cosine(query, image) for image in gallery]
        average_precision = mean(count(right >= mark) / count(all >= mark) for mark in right)
        first = 1 + count(all >= max(right)) - count(right >= max(right))

    This is the average precision of scikit-learn. Equal similarities count against the query, so that the
    order of the images does not matter, and features that are all alike find nothing.

    Args:
        queries: features, of any length.
        query_classes: each is the class of at least one image of the gallery.
        gallery: features.
        gallery_classes: of the images of the gallery.
    """
    queries, gallery = F.normalize(queries, dim=1), F.normalize(gallery, dim=1)
    average_precision = torch.empty(len(queries), dtype=torch.float64)
    first = torch.empty(len(queries), dtype=torch.int64)
    for label in torch.unique(query_classes):
        of_class = gallery_classes == label
        for rows in _chunks(torch.nonzero(query_classes == label).flatten(), len(gallery)):
            similarity = queries[rows] @ gallery.T  # (B, N)
            right, every = _sorted(similarity[:, of_class]), _sorted(similarity)  # (B, P), (B, N)
            standing, standing_right = _at_least(right, every), _at_least(right, right)  # (B, P)
            average_precision[rows] = (standing_right / standing.double()).mean(dim=1)
            first[rows] = 1 + standing[:, -1] - standing_right[:, -1]
    return Ranking(average_precision, first)


def _sorted(rows: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Sort each row, the smallest value first; NumPy is several times as fast as PyTorch here."""
    return torch.from_numpy(np.sort(rows.numpy(), axis=1))


def _at_least(marks: Float[Tensor, "B P"], values: Float[Tensor, "B N"]) -> Int64[Tensor, "B P"]:
    """Count, for each mark of a row, the values of that row that are not below it; both are sorted."""
    return values.shape[1] - torch.searchsorted(values, marks)


def _chunks(rows: Int64[Tensor, " M"], num_images: int) -> tuple[Tensor, ...]:
    return torch.split(rows, max(1, _SIMILARITIES_AT_ONCE // num_images))
