"""Which vectors are near which: vectors of any number, perhaps on disk → **vector search** → rows.

The exact search goes through queries and vectors by blocks, so that a million vectors on disk fit any memory.
The approximate one, usearch, is for millions.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crosscontext.errors import SettingsError
from crosscontext.neighbours import Neighbours
from crosscontext.run_folder import write_atomically
from crosscontext.shapes import Bool, Float, Float32, Int64

NONE = -1
"""Stands for no row."""

_QUERIES_AT_ONCE = 512
_VECTORS_AT_ONCE = 2**14  # 32 MB of similarities


def nearest_rows(
    queries: Float32[np.ndarray, "M D"],
    vectors: Float32[np.ndarray, "N D"],
    k: int,
    without: Int64[np.ndarray, " M"],
) -> Neighbours:
    """Find the k vectors that are most similar to each query by cosine, exactly.

    Args:
        queries: of any length; cosines ignore it.
        vectors: perhaps mapped from a file; they are read once for each 512 queries.
        k: at least 1; min(k, N) are found.
        without: a row for each query that is passed over, or `NONE`.

    Returns:
        Where a row was passed over and none is left, the last similarity is −∞.
    """
    found = []
    parts = _blocks(queries, _QUERIES_AT_ONCE)
    for part, skip in zip(parts, torch.from_numpy(without).split(_QUERIES_AT_ONCE), strict=True):
        best = torch.empty(len(part), 0)
        rows = torch.empty(len(part), 0, dtype=torch.int64)
        start = 0
        for block in _blocks(vectors, _VECTORS_AT_ONCE):
            similarity = part @ block.T  # (512, 2¹⁴)
            inside = torch.nonzero((skip >= start) & (skip < start + len(block))).flatten()
            similarity[inside, skip[inside] - start] = -torch.inf
            largest = similarity.topk(min(k, len(block)), dim=1)
            best = torch.cat([best, largest.values], dim=1)
            rows = torch.cat([rows, largest.indices + start], dim=1)
            order = best.sort(dim=1, descending=True, stable=True).indices[:, :k]
            best, rows = best.gather(1, order), rows.gather(1, order)
            start += len(block)
        found.append(Neighbours(best.clamp(max=1), rows))  # rounding may exceed 1
    return Neighbours(
        torch.cat([part.similarity for part in found]), torch.cat([part.rows for part in found])
    )


def at_least(
    queries: Float32[np.ndarray, "M D"], vectors: Float32[np.ndarray, "N D"], threshold: float
) -> Bool[np.ndarray, "M N"]:
    """Tell which vectors are at least so similar to each of a few queries, by cosine.

    Args:
        queries: as many as M · N bytes allow.
        vectors: perhaps mapped from a file.
        threshold: in [−1, 1].
    """
    normalised = F.normalize(torch.from_numpy(np.array(queries)), dim=1)
    blocks = [(normalised @ block.T >= threshold).numpy() for block in _blocks(vectors, _VECTORS_AT_ONCE)]
    return np.concatenate(blocks, axis=1)


def cosines(one: Float32[np.ndarray, "M D"], other: Float32[np.ndarray, "#M D"]) -> Float[Tensor, " M"]:
    """Compare row by row; in [−1, 1]."""
    first, second = (torch.from_numpy(np.array(part)) for part in (one, other))
    return F.cosine_similarity(first, second).clamp(-1, 1)


class Graph:
    """The approximate search: a graph of neighbours (HNSW: Malkov and Yashunin, arXiv 1603.09320) by usearch.

    Args:
        vectors: to search.
        file: keeps the graph; without it, the graph is built, which takes longer than many exact searches.

    Raises:
        SettingsError: usearch is not installed.
        RunFolderError: the graph cannot be written.
    """

    def __init__(self, vectors: Float32[np.ndarray, "N D"], file: Path):
        index_class = require_usearch()
        self._vectors = vectors
        if not file.exists():
            graph = index_class(ndim=vectors.shape[1], metric="cos", dtype="f32")
            for start in range(0, len(vectors), _VECTORS_AT_ONCE):
                block = np.ascontiguousarray(vectors[start : start + _VECTORS_AT_ONCE])
                graph.add(np.arange(start, start + len(block)), block)
            content = graph.save()
            write_atomically(file, lambda opened: opened.write(content))
        self._graph = index_class.restore(str(file), view=True)

    def nearest_rows(
        self, queries: Float32[np.ndarray, "M D"], k: int, without: Int64[np.ndarray, " M"]
    ) -> Neighbours:
        """Find nearly the k most similar vectors; arguments and result as of the exact search.

        Where the graph finds fewer, the last similarities are −∞.
        """
        k = min(k, len(self._vectors))
        asked = min(k + 1, len(self._vectors))  # one may be passed over
        at_least_two = np.concatenate([queries, queries[:1]])  # one alone is answered in another form
        found = self._graph.search(at_least_two, asked)
        parts = []
        for query, keys, count, skip in zip(queries, found.keys, found.counts, without, strict=False):
            rows = keys[:count].astype(np.int64)
            similarity = cosines(self._vectors[rows], query[None])
            similarity[torch.from_numpy(rows == skip)] = -torch.inf
            padding = (0, asked - len(rows))
            order = similarity.argsort(descending=True, stable=True)
            parts.append(
                (
                    F.pad(similarity[order], padding, value=-torch.inf)[:k],
                    F.pad(torch.from_numpy(rows)[order], padding)[:k],
                )
            )
        return Neighbours(torch.stack([part for part, _ in parts]), torch.stack([part for _, part in parts]))


def require_usearch() -> Any:
    """Import the class of an approximate index.

    Raises:
        SettingsError: usearch is not installed.
    """
    try:
        from usearch.index import Index
    except ImportError as error:
        raise SettingsError(
            "The approximate search needs usearch, which is not installed: pip install "
            '"crosscontext[usearch]". Without --approximate the search is exact.'
        ) from error
    return Index


def _blocks(vectors: Float32[np.ndarray, "N D"], size: int) -> Iterator[Float[Tensor, "B D"]]:
    """Normalise vectors, a block after the other; the array itself may be mapped from a file, read only."""
    for start in range(0, len(vectors), size):
        yield F.normalize(torch.from_numpy(np.array(vectors[start : start + size])), dim=1)
