"""A few labelled images and an index → **labelling** → a suggestion for each of the other images."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from crosscontext.gallery import Section, Tile, write_gallery
from crosscontext.image_index import ImageIndex
from crosscontext.index_settings import ModelOfIndex
from crosscontext.labelled_examples import Examples, read_examples
from crosscontext.neighbours import Neighbours
from crosscontext.run_folder import check_writable, write_atomically
from crosscontext.settings import Settings
from crosscontext.shapes import Float, Int64
from crosscontext.vector_search import NONE, nearest_rows

_ROWS_AT_ONCE = 2**16
_SHOWN_OF_EACH = 12


class LabelSettings(ModelOfIndex):
    """What the examples are, and how they vote."""

    examples: Path
    """CSV file with the columns path and label (lines without label are passed over), or a folder with a
    sub-folder a label."""

    out: Path | None = None
    """CSV file to write: path, label, confidence, margin, nearest example and its similarity; by
    default none."""

    k: int = Field(5, ge=1)
    """Examples that vote on each image: the most similar ones; at most all."""

    temperature: float = Field(0.07, gt=0)
    """A vote counts exp(cosine / temperature)."""


class Suggestion(Settings):
    """What one image might be."""

    path: str
    """Below the root of the index."""

    label: str
    """The label with most votes."""

    confidence: float
    """Its share of the votes, in (0, 1]. It ranks suggestions; it is no probability of being right."""

    margin: float
    """Its share less that of the second label: small where the examples disagree."""

    nearest: str
    """Path of the most similar example."""

    similarity: float
    """Cosine to that example: small where no example is like the image."""


class Suggestions(Settings):
    """What was found."""

    root: Path
    """Folder where the paths begin."""

    examples: dict[str, int]
    """Label → number of examples."""

    right: float
    """Share of the examples whose label the other examples find: how far the suggestions can be trusted."""

    suggestions: tuple[Suggestion, ...]
    """By label, the surest first; for all images but the examples."""

    missing: tuple[str, ...]
    """Images that are no longer there: `embed` would drop them."""


def label(settings: LabelSettings, notify: Callable[[str], None] = lambda _: None) -> Suggestions:
    """Suggest a label for each image of an index by a vote of the most similar examples.

    Source: the weighted vote of Wu et al., arXiv 1805.01978, section 3.4.

    Args:
        settings: see there.
        notify: is told in one line each what is being done.

    Raises:
        DataError: the examples are not as described, missing, or of a single label.
        ImageIndexError: there is no index, it is damaged, or of another model.
        CheckpointError: there is no encoder where one is needed.
        RunFolderError: the table or the page cannot be written.
    """
    if settings.out is not None:
        check_writable(settings.out)
    index = settings.open()
    examples = read_examples(settings.examples, index, settings, notify)
    size = len(examples.paths)
    alone = nearest_rows(examples.vectors, examples.vectors, min(settings.k, size - 1), np.arange(size))
    winners = _vote(alone, examples, settings.temperature).winner
    found = _suggest(index, examples, settings)
    result = Suggestions(
        root=index.card.root,
        examples=dict(zip(examples.class_names, np.bincount(examples.classes).tolist(), strict=True)),
        right=float(np.mean(winners.numpy() == examples.classes)),
        suggestions=tuple(sorted(found, key=lambda each: (each.label, -each.confidence, each.path))),
        missing=tuple(index.missing(each.path for each in found)),
    )
    if settings.out is not None:
        content = _table(result).encode()
        write_atomically(settings.out, lambda file: file.write(content))
    if settings.gallery is not None:
        write_gallery(settings.gallery, "Suggested labels", [explanation(result)], _sections(result))
    return result


def explanation(result: Suggestions) -> str:
    """Say in a sentence or two how far the suggestions can be trusted."""
    return (
        f"{len(result.suggestions)} suggestions from {sum(result.examples.values())} examples of "
        f"{len(result.examples)} labels. With each example hidden in turn, the others find its label in "
        f"{result.right:.0%} of the cases."
    )


class _Votes(NamedTuple):
    """What the examples say, a row an image."""

    winner: Int64[Tensor, " M"]
    confidence: Float[Tensor, " M"]
    margin: Float[Tensor, " M"]


def _vote(neighbours: Neighbours, examples: Examples, temperature: float) -> _Votes:
    """Count exp(cosine / temperature) for the class of each neighbour."""
    similarity, rows = neighbours
    weights = ((similarity - similarity[:, :1]) / temperature).exp()  # relative to the nearest: no overflow
    votes = weights.new_zeros(len(rows), len(examples.class_names))
    votes.scatter_add_(1, torch.from_numpy(examples.classes)[rows], weights)
    best = (votes / votes.sum(dim=1, keepdim=True)).topk(2, dim=1)
    first, second = best.values.unbind(dim=1)
    return _Votes(best.indices[:, 0], first, first - second)


def _suggest(index: ImageIndex, examples: Examples, settings: LabelSettings) -> list[Suggestion]:
    found = []
    rows = np.array([row for row in range(len(index.images)) if row not in examples.rows], np.int64)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE]
        nobody = np.full(len(part), NONE)
        neighbours = nearest_rows(index.vectors[part], examples.vectors, settings.k, nobody)
        votes = _vote(neighbours, examples, settings.temperature)
        nearest, similarity = neighbours.rows[:, 0].tolist(), neighbours.similarity[:, 0].tolist()
        columns = [part.tolist(), *(column.tolist() for column in votes), nearest, similarity]
        for row, winner, confidence, margin, example, cosine in zip(*columns, strict=True):
            suggestion = Suggestion(
                path=index.images[row].path,
                label=examples.class_names[winner],
                confidence=confidence,
                margin=margin,
                nearest=examples.paths[example],
                similarity=cosine,
            )
            found.append(suggestion)
    return found


def _table(result: Suggestions) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Suggestion.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(suggestion.model_dump() for suggestion in result.suggestions)
    return text.getvalue()


def _sections(result: Suggestions) -> list[Section]:
    sections = []
    for name, number in result.examples.items():
        found = [suggestion for suggestion in result.suggestions if suggestion.label == name]
        sure, others = found[:_SHOWN_OF_EACH], found[_SHOWN_OF_EACH:]
        unsure = sorted(others, key=lambda each: each.margin)[:_SHOWN_OF_EACH]
        note = f"{len(found)} suggestions from {number} examples; the surest and the least sure are shown."
        tiles = [
            *(_tile(result, each, "") for each in sure),
            *(_tile(result, each, "check") for each in unsure),
        ]
        sections.append(Section(name, note, tuple(tiles)))
    return sections


def _tile(result: Suggestions, suggestion: Suggestion, mark: str) -> Tile:
    caption = (
        f"confidence {suggestion.confidence:.2f}, margin {suggestion.margin:.2f}; like {suggestion.nearest}"
    )
    return Tile(result.root / suggestion.path, suggestion.path, caption, mark)
