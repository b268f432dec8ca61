"""Indexes without a network behind them, and a network so small that an index is made in no time."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from conftest import quiet
from crosscontext.backbones import ResNetSettings
from crosscontext.embedding import EmbedSettings
from crosscontext.encoders import Preprocessing, encoder_of, save_encoder
from crosscontext.image_index import ImageIndex, IndexCard, ModelCard, claimed
from crosscontext.index_formats import Content, Format, IndexedImage
from crosscontext.run_folder import RunFolder

NARROW = ResNetSettings(depth=10, width=0.125, stem="small")


def content(
    vectors: Sequence[Sequence[float]], names: Sequence[str] = (), sizes: Sequence[int] = ()
) -> Content:
    """Vectors with the paths 0.jpg, 1.jpg, … or others."""
    names = names or [f"{number}.jpg" for number in range(len(vectors))]
    sizes = sizes or [100] * len(vectors)
    images = (
        IndexedImage(name, hashlib.sha256(name.encode()).hexdigest(), size, 7)
        for name, size in zip(names, sizes, strict=True)
    )
    return Content(tuple(images), np.array(vectors, np.float32))


def card(content: Content, root: Path, form: Format = "npy", digest: str = "0123456789abcdef") -> IndexCard:
    """What such an index says of itself; its model is nowhere."""
    preprocessing = Preprocessing.for_size(16)
    return IndexCard(
        made_by="a test",
        format=form,
        files={},
        images=len(content.images),
        width=content.vectors.shape[1],
        root=root,
        model=ModelCard(path=root / "nowhere", digest=digest, preprocessing=preprocessing),
        skipped={},
    )


def handmade_index(
    folder: Path,
    vectors: Sequence[Sequence[float]],
    names: Sequence[str] = (),
    sizes: Sequence[int] = (),
    root: Path | None = None,
) -> ImageIndex:
    """Write an index of given vectors."""
    held = content(vectors, names, sizes)
    with claimed(folder, quiet) as write:
        return write(card(held, root or folder.parent), held)


def small_encoder(folder: Path, seed: int = 0, width: float = 0.125) -> Path:
    """Write an untrained encoder of 16-pixel images into a new folder, as a run has it."""
    folder.mkdir()
    file = RunFolder(folder).encoder
    torch.manual_seed(seed)
    settings = NARROW.model_copy(update={"width": width})
    save_encoder(file, encoder_of(settings.build(), settings, Preprocessing.for_size(16), step=0).eval())
    return file


def embedding(run: Path, data: Path, out: Path, **changes: object) -> EmbedSettings:
    """Settings of an index, with whatever a test wants to be different."""
    usual = {"run": run, "data": data, "out": out, "batch_size": 8, "threads": 1, "workers": 1}
    return EmbedSettings.model_validate(usual | changes)
