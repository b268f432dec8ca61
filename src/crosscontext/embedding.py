"""Images below a folder → **embedding** → an index of their vectors, brought up to date file by file."""

import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from crosscontext.datasets import known_names
from crosscontext.datasets.folder import whole_folder
from crosscontext.encoders import Encoder, Preprocessing, load_encoder
from crosscontext.errors import DataError, ImageIndexError
from crosscontext.file_vectors import Files, compute, identify
from crosscontext.image_index import ImageIndex, IndexCard, ModelCard, claimed, has_index, open_index
from crosscontext.index_formats import Content, Format, require_pyarrow
from crosscontext.machine import Device, choose_device, keep_memory
from crosscontext.settings import AbsolutePath, Settings
from crosscontext.shapes import Float32, Int64

_SAVED_EVERY = 300.0  # seconds: what a crash can cost


class EmbedSettings(Settings):
    """Which images get vectors, by which model, and where these go."""

    run: AbsolutePath
    """Run folder, or file of an encoder."""

    data: AbsolutePath
    """Folder of images, at any depth; all of them, whatever its sub-folders mean."""

    out: Path
    """Folder of the index. One that is there is brought up to date: only new and changed files are computed,
    and removed ones disappear."""

    format: Format | None = None
    """npy: vectors for NumPy, paths as JSON lines. safetensors: the same with another file of vectors.
    parquet: one table. By default that of the index, and npy for a new one."""

    image_size: int | None = Field(None, ge=8)
    """Side of the images in pixels; by default that of the index, or else of the run."""

    overwrite: bool = False
    """Compute everything anew, also where the index is of another model or of other images."""

    batch_size: int = Field(64, ge=1)
    """Images loaded at once; it does not change the vectors by more than rounding."""

    device: Device = "auto"
    """Where vectors are computed; auto: the first GPU, else the CPU."""

    threads: int | None = Field(None, ge=1)
    """CPU threads of the mathematics; by default all cores."""

    workers: int = Field(2, ge=0)
    """Threads that read and decode images; 0 counts as 1."""


def embed(settings: EmbedSettings, notify: Callable[[str], None] = lambda _: None) -> ImageIndex:
    """Compute a vector for each image of a folder, and write them as an index.

    Files are recognised by path, size and time of change, and what was moved or copied by its content. A long
    computation is saved every five minutes, so that the same command goes on where it was broken off. The
    memory holds the vectors twice.

    Args:
        settings: see there.
        notify: is told in one line each what is being done.

    Raises:
        DataError: the folder is missing or holds no image that can be read.
        CheckpointError: there is no encoder, or it cannot be read.
        ImageIndexError: the index that is there is damaged, or of another model, folder or image size; or
            the folder holds something else.
        RunFolderError: the index cannot be written, or another process is writing it.
        SettingsError: the format parquet needs pyarrow, which is not installed.
        NonFiniteError: the model gives vectors that are no numbers.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if settings.format == "parquet":
        require_pyarrow()
    keep_memory()
    encoder = load_encoder(settings.run)
    names = _image_files(settings.data)
    with claimed(settings.out, notify) as write:
        old = None if settings.overwrite or not has_index(settings.out) else open_index(settings.out)
        encoder = _seeing(encoder, settings, old)
        card = IndexCard(
            made_by=f"crosscontext {version('crosscontext')}",
            format=settings.format or (old.card.format if old else "npy"),
            files={},
            images=1,
            width=encoder.width,
            root=settings.data,
            model=ModelCard(path=settings.run, digest=encoder.digest, preprocessing=encoder.preprocessing),
            skipped={},
        )
        if old is not None:
            _refuse_another(old, card)
        before = {image.path: image for image in old.images} if old else {}
        files = identify(settings.data, names, before, settings.workers)
        growing = _Growing(card, old, files)
        notify(growing.plan())
        causes = _compute(growing, encoder, settings, write, notify)
        card, content = growing.index(causes)
        if card.skipped:
            notify(f"{len(card.skipped)} unreadable images are left out: {', '.join(list(card.skipped)[:5])}")
        if old is not None and (content.images, card) == (
            old.images,
            old.card.model_copy(update={"files": {}}),
        ):
            return old
        return write(card, content)


def _image_files(folder: Path) -> Sequence[str]:
    if folder.name in known_names() and not folder.exists():
        raise DataError(
            f"{folder.name} is a data set by name, and an index is made of image files: no folder {folder} "
            "exists. Write its images into a folder first (docs/image-index.md has the lines), or compute "
            "their features alone with crosscontext.extract in Python."
        )
    return whole_folder(folder).names


def _compute(
    growing: "_Growing",
    encoder: Encoder,
    settings: EmbedSettings,
    write: Callable[[IndexCard, Content], ImageIndex],
    notify: Callable[[str], None],
) -> dict[str, str]:
    """Add the vectors that are missing, and save now and then; return why contents have none."""
    if not growing.unknown:
        return {}
    paths = [settings.data / image.path for image in growing.unknown]
    skipped: dict[str, str] = {}
    encoder.to(choose_device(settings.device))
    saved = time.monotonic()
    for indices, vectors in compute(encoder, paths, settings.workers, settings.batch_size, skipped, notify):
        growing.add(indices, vectors)
        if time.monotonic() - saved > _SAVED_EVERY:
            write(*growing.index({}))
            saved = time.monotonic()
    contents = {str(path): image.sha256 for path, image in zip(paths, growing.unknown, strict=True)}
    return {contents[path]: cause for path, cause in skipped.items()}


class _Growing:
    """Vectors that were there, and those that are added.

    Attributes:
        unknown: one image of each content that has no vector yet.
    """

    def __init__(self, card: IndexCard, old: ImageIndex | None, files: Files):
        self._card, self._old, self._files = card, old, files
        # content → row, first those of the old vectors, then those of the new
        self._place = dict(old.rows_of_content) if old else {}
        self._num_old = len(old.images) if old else 0
        new = {image.sha256: image for image in files.images if image.sha256 not in self._place}
        self.unknown = list(new.values())
        self._new = np.empty((len(new), card.width), np.float32)

    def plan(self) -> str:
        """Say what there is to do."""
        known = len(self._files.images) - len(self.unknown)
        before = self._old.rows.keys() if self._old else set()
        gone = before - {image.path for image in self._files.images}
        return f"{len(self.unknown)} images to compute, {known} are known, {len(gone)} are gone"

    def add(self, indices: Sequence[int], vectors: Float32[np.ndarray, "B D"]) -> None:
        """Keep vectors of some of the unknown images."""
        self._new[indices] = vectors
        self._place |= {self.unknown[index].sha256: self._num_old + index for index in indices}

    def index(self, causes: dict[str, str]) -> tuple[IndexCard, Content]:
        """Put together what there is so far, in the order of the paths.

        Args:
            causes: content of files that could not be decoded → why.

        Raises:
            DataError: there is nothing.
        """
        images = tuple(image for image in self._files.images if image.sha256 in self._place)
        failed = {i.path: causes[i.sha256] for i in self._files.images if causes.get(i.sha256)}
        skipped = dict(sorted((self._files.skipped | failed).items()))
        if not images:
            shown = "; ".join(f"{path}: {why}" for path, why in list(skipped.items())[:3])
            raise DataError(f"None of {len(skipped)} images can be read: {shown}. Check the data folder.")
        places = np.array([self._place[image.sha256] for image in images])
        card = self._card.model_copy(update={"images": len(images), "skipped": skipped})
        return card, Content(images, self._gathered(places))

    def _gathered(self, places: Int64[np.ndarray, " N"]) -> Float32[np.ndarray, "N D"]:
        vectors = np.empty((len(places), self._card.width), np.float32)
        is_old = places < self._num_old
        if self._old is not None:
            vectors[is_old] = self._old.vectors[places[is_old]]
        vectors[~is_old] = self._new[places[~is_old] - self._num_old]
        return vectors


def _seeing(encoder: Encoder, settings: EmbedSettings, old: ImageIndex | None) -> Encoder:
    if settings.image_size is not None:
        return encoder.seeing(Preprocessing.for_size(settings.image_size))
    return encoder if old is None else encoder.seeing(old.card.model.preprocessing)


def _refuse_another(old: ImageIndex, card: IndexCard) -> None:
    """Make sure that new vectors can stand beside the old ones, and that no other folder is meant.

    Raises:
        ImageIndexError: they cannot.
    """
    model, was = card.model, old.card.model
    if model.digest != was.digest:
        found = (
            f"of the model {was.digest} ({was.path}; {old.card.width} numbers an image), not of "
            f"{model.digest} ({model.path}; {card.width} numbers)"
        )
    elif model.preprocessing != was.preprocessing:
        found = f"of images of {was.preprocessing.image_size} pixels, not {model.preprocessing.image_size}"
    elif card.root != old.card.root and old.card.root.is_dir():
        found = f"of the images below {old.card.root}, which is still there, not {card.root}"
    else:
        return
    raise ImageIndexError(
        f"The index {old.folder} holds vectors {found}. Choose another --out, or replace them all with "
        "--overwrite."
    )
