"""Image files → **file vectors** → index, search: each content goes through the network once.

Files with the same content have the same vector, so whatever is in an index already is not computed again,
wherever it lies now.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crosscontext.datasets.files import ImageFiles
from crosscontext.datasets.folder import whole_folder
from crosscontext.encoders import Encoder
from crosscontext.errors import DataError
from crosscontext.features import load_batches, refuse_non_finite
from crosscontext.heartbeat import EVERY
from crosscontext.image_index import ImageIndex
from crosscontext.index_formats import IndexedImage
from crosscontext.index_settings import ModelOfIndex
from crosscontext.inference import for_inference
from crosscontext.prefetching import ahead, in_batches
from crosscontext.shapes import Float32

_BATCH_SIZE = 64
_HASHED_AT_ONCE = 64

Notify = Callable[[str], None]


class Files(NamedTuple):
    """Files that could be read, in the order of their names, and those that could not."""

    images: tuple[IndexedImage, ...]

    skipped: dict[str, str]
    """Name → cause."""


class FileVectors(NamedTuple):
    """Files with their vectors."""

    images: tuple[IndexedImage, ...]

    vectors: Float32[np.ndarray, "N D"]

    skipped: dict[str, str]
    """Name of each unreadable file → cause."""


def identify(root: Path, names: Sequence[str], known: Mapping[str, IndexedImage], workers: int) -> Files:
    """Find out what is in files.

    Args:
        root: where the names begin.
        names: of the files.
        known: what was found out before, by name: a file with the same size and time of change is not read.
        workers: threads that read; 0 counts as 1.
    """

    def look(name: str) -> IndexedImage | str:
        try:
            name.encode()
            status = (root / name).stat()
            size, modified_ns = status.st_size, status.st_mtime_ns
            before = known.get(name)
            if before is not None and (before.size, before.modified_ns) == (size, modified_ns):
                return before
            with (root / name).open("rb") as file:
                sha = hashlib.file_digest(file, "sha256").hexdigest()
        except UnicodeEncodeError:
            return "its name is not UTF-8; rename it"
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        return IndexedImage(name, sha, size, modified_ns)

    batches = (names[batch.start : batch.stop] for batch in in_batches(len(names), _HASHED_AT_ONCE))
    found = [each for batch in ahead(look, batches, workers) for each in batch]
    return Files(
        tuple(image for image in found if isinstance(image, IndexedImage)),
        {printable(name): why for name, why in zip(names, found, strict=True) if isinstance(why, str)},
    )


def compute(
    model: Encoder,
    files: Sequence[Path],
    workers: int,
    batch_size: int,
    skipped: dict[str, str],
    notify: Notify,
) -> Iterator[tuple[list[int], Float32[np.ndarray, "B D"]]]:
    """Compute the vectors of files, batch by batch, in order.

    Args:
        model: a faster copy of it is used, on the same device.
        files: are decoded once each.
        workers: threads that decode; 0 counts as 1.
        batch_size: files decoded at once.
        skipped: receives the path and the cause of each file that cannot be decoded.
        notify: is told now and then how far it is.

    Yields:
        Which files were read, and their vectors.

    Raises:
        NonFiniteError: the model gives vectors that are no numbers.
    """
    dataset = ImageFiles(Path(), [str(file) for file in files])
    fast = for_inference(model)
    began = told = time.monotonic()
    for images, indices in load_batches(fast, dataset, batch_size, workers, skipped):
        vectors = fast(images).float().cpu()
        refuse_non_finite(vectors, [dataset.names[index] for index in indices])
        yield indices, vectors.numpy()
        now, done = time.monotonic(), indices[-1] + 1
        if now - told > EVERY and done < len(files):
            told = now
            left = round((now - began) / done * (len(files) - done))
            notify(f"{done} of {len(files)} images, {left // 60}:{left % 60:02d} min left")


def vectors_of(
    files: Sequence[Path], index: ImageIndex, settings: ModelOfIndex, notify: Notify
) -> FileVectors:
    """Look the vectors of files up in an index, or compute them with its model.

    Args:
        files: wherever they lie; each is known by its path as it stands here.
        index: the model is loaded only for what is not in it.
        settings: of the model.
        notify: is told how far it is.

    Raises:
        DataError: not a single file can be read.
        ImageIndexError: the model is another one than that of the index.
        CheckpointError: there is no model.
        NonFiniteError: the model gives vectors that are no numbers.
    """
    found, skipped = identify(Path(), [str(file) for file in files], {}, settings.workers)
    known = index.rows_of_content
    vectors = np.zeros((len(found), index.card.width), np.float32)
    readable = np.ones(len(found), bool)
    unknown = []
    for place, image in enumerate(found):
        if image.sha256 in known:
            vectors[place] = index.vectors[known[image.sha256]]
        else:
            unknown.append(place)
    if unknown:
        readable[unknown] = False
        model, paths = settings.load_model(index), [Path(found[place].path) for place in unknown]
        for indices, part in compute(model, paths, settings.workers, _BATCH_SIZE, skipped, notify):
            places = [unknown[i] for i in indices]
            vectors[places], readable[places] = part, True
    if not readable.any():
        causes_of_some = "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:3])
        raise DataError(f"None of {len(files)} images can be read: {causes_of_some}. Give other files.")
    if skipped:
        notify(f"{len(skipped)} unreadable images are left out: {', '.join(list(skipped)[:5])}")
    kept = tuple(image for image, is_readable in zip(found, readable, strict=True) if is_readable)
    return FileVectors(kept, vectors[readable], skipped)


def files_below(paths: Sequence[Path]) -> list[Path]:
    """Replace folders by the images below them; each file counts once.

    Raises:
        DataError: a path does not exist, or a folder holds no image.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += [path / name for name in whole_folder(path).names]
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(
                f"There is no image {str(path)!r}. Give the path of an image file or of a folder."
            )
    return list(dict.fromkeys(files))


def printable(name: str) -> str:
    """Replace the bytes of a file name that are not UTF-8, so that it can be written anywhere."""
    return os.fsencode(name).decode("utf-8", "replace")
