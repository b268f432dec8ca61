"""Pictures → **searching** → the images of an index that resemble them."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from crosscontext.file_vectors import files_below, vectors_of
from crosscontext.gallery import Section, Tile, write_gallery
from crosscontext.image_index import ImageIndex
from crosscontext.index_settings import ModelOfIndex
from crosscontext.settings import Settings
from crosscontext.vector_search import NONE, require_usearch


class SearchSettings(ModelOfIndex):
    """What is looked for, and where."""

    queries: tuple[Path, ...] = Field(min_length=1)
    """Images, or folders of images, each of which is looked for by itself."""

    k: int = Field(10, ge=1)
    """Images to find for each."""

    approximate: bool = False
    """Search a graph of neighbours, which is much faster among millions of images and misses a few; its first
    use builds and keeps it. Needs usearch."""


class Hit(Settings):
    """One image that was found."""

    path: str
    """Below the root of the index."""

    similarity: float
    """Cosine of the two vectors, in [−1, 1]."""


class Hits(Settings):
    """What was found for one query."""

    query: str
    """Its path, as it was given."""

    hits: tuple[Hit, ...]
    """The most similar one first."""


class SearchResult(Settings):
    """What was found."""

    root: Path
    """Folder where the paths begin."""

    results: tuple[Hits, ...]
    """One for each query that could be read."""

    skipped: dict[str, str]
    """Query that cannot be read → the cause."""

    missing: tuple[str, ...]
    """Images that were found, but are no longer there: `embed` would drop them."""


def search(settings: SearchSettings, notify: Callable[[str], None] = lambda _: None) -> SearchResult:
    """Find the images of an index that are most similar to pictures; a file does not find itself.

    Args:
        settings: see there.
        notify: is told in one line each what is being done.

    Raises:
        DataError: a query is missing, or none can be read.
        ImageIndexError: there is no index, it is damaged, or of another model.
        CheckpointError: there is no encoder where one is needed.
        SettingsError: usearch is needed and not installed.
        RunFolderError: the page cannot be written.
    """
    if settings.approximate:
        require_usearch()
    index = settings.open()
    files = files_below(settings.queries)
    found = vectors_of(files, index, settings, notify)
    paths = [Path(image.path) for image in found.images]
    own = [index.row_of(path) for path in paths]
    without = np.array([NONE if row is None else row for row in own], np.int64)
    neighbours = index.nearest(found.vectors, settings.k, without, settings.approximate)
    results = tuple(
        Hits(query=str(path), hits=_hits(index, similarities, rows))
        for path, similarities, rows in zip(
            paths, neighbours.similarity.tolist(), neighbours.rows.tolist(), strict=True
        )
    )
    missing = index.missing(hit.path for result in results for hit in result.hits)
    result = SearchResult(
        root=index.card.root, results=results, skipped=found.skipped, missing=tuple(missing)
    )
    if settings.gallery is not None:
        facts = [
            f"{len(index.images)} images below {index.card.root}",
            "Similarity: cosine of the features, at most 1.",
        ]
        write_gallery(settings.gallery, "Most similar images", facts, _sections(result))
    return result


def _hits(index: ImageIndex, similarities: Sequence[float], rows: Sequence[int]) -> tuple[Hit, ...]:
    return tuple(
        Hit(path=index.images[row].path, similarity=similarity)
        for similarity, row in zip(similarities, rows, strict=True)
        if math.isfinite(similarity)  # else there is no such image
    )


def _sections(result: SearchResult) -> Sequence[Section]:
    return [
        Section(
            hits.query,
            "",
            (
                Tile(Path(hits.query).absolute(), hits.query, "", "query"),
                *(
                    Tile(result.root / hit.path, hit.path, f"similarity {hit.similarity:.3f}", "")
                    for hit in hits.hits
                ),
            ),
        )
        for hits in result.results
    ]
