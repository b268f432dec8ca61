"""A folder of feature vectors and the paths of their images: embed → **image index** → search, dedupe, label.

`index.json` names the files that hold them, and is replaced last: a reader finds the old index or the new
one, whole, also after a crash.
"""

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError

from crosscontext.encoders import Encoder, Preprocessing, load_encoder
from crosscontext.errors import ImageIndexError, SettingsError
from crosscontext.index_formats import FORMATS, UNREADABLE, Content, Format, IndexedImage
from crosscontext.locking import Use, held
from crosscontext.neighbours import Neighbours
from crosscontext.run_folder import write_atomically
from crosscontext.settings import Settings
from crosscontext.shapes import Float32, Int64
from crosscontext.vector_search import Graph, nearest_rows

_CARD = "index.json"
_WRITING = Use("the folder of an index", "Another process is writing the index", "--out")
_OF_A_GENERATION = re.compile(r"\.?(images|vectors)-[0-9a-f]{8}\.[a-z]+(\.\d+)?")  # and what a crash left


class ModelCard(Settings):
    """Which model made the vectors."""

    path: Path
    """Run folder or encoder file, where it lay."""

    digest: str
    """Identifies its weights: 16 hexadecimal digits."""

    preprocessing: Preprocessing
    """Of the pictures."""


class IndexCard(Settings):
    """What stands in `index.json`."""

    format_version: Literal[1] = 1
    """Of this layout."""

    made_by: str
    """Version of the library."""

    format: Format
    """How the files are written."""

    files: dict[str, str]
    """What they hold → their names in the folder."""

    images: int = Field(ge=1)
    """Number N of images: rows of the vectors."""

    width: int = Field(ge=1)
    """Length D of a vector."""

    root: Path
    """Folder of the images, absolute; their paths begin there."""

    model: ModelCard
    """What made the vectors."""

    skipped: dict[str, str]
    """Path of each unreadable image → the cause."""


class ImageIndex:
    """Vectors of images and where these lie.

    Args:
        folder: of the index.
        card: what stands in its `index.json`.
        content: of its files.
    """

    def __init__(self, folder: Path, card: IndexCard, content: Content):
        self.folder, self.card, self.content = folder, card, content

    @property
    def images(self) -> tuple[IndexedImage, ...]:
        """One a row, in the order of their paths."""
        return self.content.images

    @property
    def vectors(self) -> Float32[np.ndarray, "N D"]:
        """As the model gives them, of any length; perhaps mapped from the disk, and not to be written to."""
        return self.content.vectors

    @cached_property
    def rows(self) -> dict[str, int]:
        """Path of each image → its row."""
        return {image.path: row for row, image in enumerate(self.images)}

    @cached_property
    def rows_of_content(self) -> dict[str, int]:
        """SHA-256 of each file → its row; of equal files the last one."""
        return {image.sha256: row for row, image in enumerate(self.images)}

    def file(self, row: int) -> Path:
        """Where an image lies, if it is still there."""
        return self.card.root / self.images[row].path

    def row_of(self, file: Path) -> int | None:
        """Find a file among the images of the index, by its place."""
        for place, root in ((file.absolute(), self.card.root), (file.resolve(), self.card.root.resolve())):
            if (
                place.is_relative_to(root)
                and (row := self.rows.get(place.relative_to(root).as_posix())) is not None
            ):
                return row
        return None

    def missing(self, paths: Iterable[str]) -> list[str]:
        """Pick, of some images by their paths, those that are no longer there."""
        return [path for path in dict.fromkeys(paths) if not (self.card.root / path).is_file()]

    def nearest(
        self,
        queries: Float32[np.ndarray, "M D"],
        k: int,
        without: Int64[np.ndarray, " M"],
        approximate: bool,
    ) -> Neighbours:
        """Find the k most similar images of each query: exactly, or by a graph that is kept in the folder.

        Arguments, result and errors as of `nearest_rows` and `Graph`.
        """
        if not approximate:
            return nearest_rows(queries, self.vectors, k, without)
        generation = Path(self.card.files["images"]).stem.removeprefix("images-")
        graph = Graph(self.vectors, self.folder / f"vectors-{generation}.usearch")
        return graph.nearest_rows(queries, k, without)

    def load_model(self, path: Path | None) -> Encoder:
        """Load the encoder that made the vectors.

        Args:
            path: run folder or encoder file; None: where it lay when the index was made.

        Raises:
            ImageIndexError: it is another model.
            CheckpointError: there is none.
        """
        encoder = load_encoder(path or self.card.model.path)
        if encoder.digest != self.card.model.digest:
            raise ImageIndexError(
                f"{path or self.card.model.path} is not the model of the index {self.folder}: it has the "
                f"digest {encoder.digest} and gives {encoder.width} numbers an image, the index was made by "
                f"{self.card.model.digest} and holds {self.card.width}. Give the right one with --run, or "
                "make the index anew: crosscontext embed, with --overwrite."
            )
        return encoder.seeing(self.card.model.preprocessing)


def open_index(folder: Path | str) -> ImageIndex:
    """Open an index; in the format npy, vectors are read when they are used.

    Raises:
        ImageIndexError: there is none, it is damaged, or of a newer format.
        SettingsError: it is in the format parquet and pyarrow is not installed.
    """
    folder = Path(folder)
    card = _read_card(folder)
    again = "Make the index again: crosscontext embed, with --overwrite."
    try:
        content = FORMATS[card.format].read(folder, card.files)
    except SettingsError:
        raise
    except UNREADABLE as error:
        cause = str(error).partition("\n")[0]
        raise ImageIndexError(
            f"The index {folder} is damaged: {type(error).__name__}: {cause}. {again}"
        ) from error
    vectors, expected = content.vectors, (card.images, card.width)
    if vectors.shape != expected or vectors.dtype != np.float32 or len(content.images) != card.images:
        raise ImageIndexError(
            f"The index {folder} does not fit together: {_CARD} says {card.images} vectors of {card.width} "
            f"float32 numbers, and there are {vectors.dtype} numbers of shape {vectors.shape} for "
            f"{len(content.images)} images. {again}"
        )
    return ImageIndex(folder, card, content)


def has_index(folder: Path) -> bool:
    """Whether a folder holds an index, whatever its state."""
    return (folder / _CARD).exists()


@contextmanager
def claimed(
    folder: Path, tell: Callable[[str], None]
) -> Iterator[Callable[[IndexCard, Content], ImageIndex]]:
    """Keep others from writing an index, before anything is computed.

    Args:
        folder: of the index.
        tell: is told in one line if the file system has no locks.

    Yields:
        A function that writes the index; until it is called, an earlier one stays as it is. A folder that was
        made for nothing is removed.

    Raises:
        ImageIndexError: the folder holds something else.
        RunFolderError: another process writes there, or the folder cannot be written.
    """
    with held(folder, _WRITING, tell):
        _refuse_foreign(folder)
        try:
            yield lambda card, content: _write(folder, card, content)
        finally:
            if not has_index(folder):
                _remove(folder, keep=())


def _refuse_foreign(folder: Path) -> None:
    foreign = sorted(entry.name for entry in folder.iterdir() if not _is_ours(entry))
    if foreign and not has_index(folder):
        raise ImageIndexError(
            f"{folder} is no index, and holds {', '.join(foreign[:3])}. Choose a new folder with --out."
        )


def _write(folder: Path, card: IndexCard, content: Content) -> ImageIndex:
    """Write the files of a new generation, then the card that names them; then remove the old ones."""
    listed = zlib.crc32(repr(content.images).encode())
    generation = f"{zlib.crc32(np.ascontiguousarray(content.vectors).data, listed):08x}"
    files = FORMATS[card.format].write(folder, generation, content, card.model.digest)
    card = card.model_copy(update={"files": files})
    write_atomically(folder / _CARD, lambda file: file.write(card.model_dump_json(indent=1).encode() + b"\n"))
    _remove(folder, keep=tuple(files.values()))
    return ImageIndex(folder, card, content)


def _remove(folder: Path, keep: tuple[str, ...]) -> None:
    for entry in folder.iterdir():
        if _OF_A_GENERATION.fullmatch(entry.name) and entry.name not in keep:
            with suppress(OSError):
                entry.unlink()


def _is_ours(entry: Path) -> bool:
    return entry.name.startswith(".") or _OF_A_GENERATION.fullmatch(entry.name) is not None


def _read_card(folder: Path) -> IndexCard:
    try:
        text = (folder / _CARD).read_text(encoding="utf-8")
    except OSError as error:
        raise ImageIndexError(
            f"There is no index in {folder}: {_CARD} cannot be read ({error.strerror}). Make one: "
            "crosscontext embed RUN --data DIR --out INDEX."
        ) from error
    except UnicodeDecodeError as error:
        raise ImageIndexError(
            f"{folder / _CARD} is not UTF-8 text: {error}. Make the index again."
        ) from error
    try:
        return IndexCard.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"]) or "its text"
        raise ImageIndexError(
            f"{folder / _CARD} is not the card of an index that this version can read: {place}: "
            f"{first['msg']}. Make the index again with crosscontext embed and --overwrite, or install a "
            "newer crosscontext."
        ) from error
