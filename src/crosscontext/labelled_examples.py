"""A few images with labels, as a table or as folders → **labelled examples** → vectors and classes."""

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crosscontext.datasets.folder import FolderSettings
from crosscontext.errors import DataError
from crosscontext.file_vectors import vectors_of
from crosscontext.image_index import ImageIndex
from crosscontext.index_settings import ModelOfIndex
from crosscontext.shapes import Float32, Int64

_COLUMNS = ("path", "label")
_NAMED_AT_ONCE = 3


class Examples(NamedTuple):
    """Images whose labels are known."""

    class_names: tuple[str, ...]
    """In sorted order, at least two."""

    classes: Int64[np.ndarray, " M"]
    """Indices into the class names."""

    vectors: Float32[np.ndarray, "M D"]

    paths: tuple[str, ...]
    """Below the root of the index, or as they stand in the table."""

    rows: frozenset[int]
    """Rows of the index that are examples themselves."""


def read_examples(
    path: Path, index: ImageIndex, settings: ModelOfIndex, notify: Callable[[str], None]
) -> Examples:
    """Read examples and look up, or compute, their vectors.

    Args:
        path: a CSV file with the columns path and label, where a line without a label counts for nothing, and
            paths begin at the root of the index or at the folder of the file; or a folder with a sub-folder a
            label.
        index: examples may be in it or not.
        settings: of the model, which is needed for those that are not.
        notify: is told what is left out.

    Raises:
        DataError: the file or folder is not like that, an image is missing or has two labels, or there are
            fewer than two labels.
        ImageIndexError: the model is another one than that of the index.
        CheckpointError: there is no model where one is needed.
    """
    pairs = list(_of_folder(path, index) if path.is_dir() else _of_table(path, index))
    labels: dict[int | Path, str] = {}
    for place, label in pairs:
        if labels.setdefault(place, label) != label:
            named = index.images[place].path if isinstance(place, int) else place
            raise DataError(f"{named} has two labels in {path}, {labels[place]!r} and {label!r}. Keep one.")
    rows = [place for place in labels if isinstance(place, int)]
    files = {str(place): place for place in labels if isinstance(place, Path)}
    paths, vectors = [index.images[row].path for row in rows], index.vectors[rows]
    known = [labels[row] for row in rows]
    if files:
        computed = vectors_of(list(files.values()), index, settings, notify)
        paths += [image.path for image in computed.images]
        known += [labels[files[image.path]] for image in computed.images]
        vectors = np.concatenate([vectors, computed.vectors])
    class_names = sorted(set(known))
    if len(class_names) < 2:
        raise DataError(
            f"The examples in {path} have the labels {class_names}, and at least two are needed to choose "
            "from. Add examples of another label."
        )
    classes = np.array([class_names.index(label) for label in known])
    return Examples(tuple(class_names), classes, np.array(vectors), tuple(paths), frozenset(rows))


def _of_folder(path: Path, index: ImageIndex) -> Iterable[tuple[int | Path, str]]:
    dataset = FolderSettings(path=path).open().train
    if dataset.labels is None:
        raise DataError(
            f"The folder {path} has no sub-folder a label: each image has to lie in one of at least two. "
            "Move the examples into such folders, or give a CSV file with the columns path and label."
        )
    for name, number in zip(dataset.names, dataset.labels.classes.tolist(), strict=True):
        row = index.row_of(path / name)
        yield path / name if row is None else row, dataset.labels.class_names[number]


def _of_table(path: Path, index: ImageIndex) -> Iterable[tuple[int | Path, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(
            f"Cannot read examples from {str(path)!r}: {error.strerror}. Give a CSV file with the columns "
            "path and label, or a folder with a sub-folder a label."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}. Save it as CSV in UTF-8.") from error
    table = csv.DictReader(io.StringIO(text, newline=""))
    columns = table.fieldnames or ()
    if lacking := [column for column in _COLUMNS if column not in columns]:
        first = text.partition("\n")[0]
        raise DataError(
            f"{path} lacks the column {' and '.join(lacking)}; its first line is {first!r}. The first "
            "line of a table of examples is: path,label"
        )
    pairs: list[tuple[int | Path, str]] = []
    missing = []
    for line in table:
        name, label = ((line[column] or "").strip() for column in _COLUMNS)
        if not label:
            continue
        file = path.parent / name
        row = index.rows.get(name, index.row_of(file))
        if row is None and not file.is_file():
            missing.append(f"{name!r} (line {table.line_num})")
        pairs.append((file if row is None else row, label))
    if missing:
        raise DataError(
            f"{len(missing)} examples of {path} are neither in the index {index.folder} nor files: "
            f"{', '.join(missing[:_NAMED_AT_ONCE])}. Paths begin at {index.card.root} or at the folder of "
            "the table."
        )
    return pairs
