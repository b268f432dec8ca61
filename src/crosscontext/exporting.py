"""A run or an encoder → a folder for another library: weights, preprocessing, card and proof.

encoders → formats → parity → model_card → **exporting**
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, ValidationError

from crosscontext.datasets import Dataset, DatasetSettings, ShapesSettings
from crosscontext.encoders import load_encoder
from crosscontext.formats import PREPROCESSING, FormatSettings
from crosscontext.model_card import CARD, Origin, model_card, origin_of, told
from crosscontext.parity import Parity, prove, spread_pictures
from crosscontext.settings import AbsolutePath, Settings
from crosscontext.whole_folders import written_whole

PARITY = "parity.json"
"""File of the proof, by which a folder is known to be an export."""

_PROCEDURAL_SIZE = 64


class ExportSettings(Settings):
    """What is handed over, in which format, and where to."""

    run: AbsolutePath
    """Run folder, or file of an encoder; of a file, the card can say less."""

    format: FormatSettings
    """timm, torchvision, hf (Hugging Face Hub), onnx, detectron2 or safetensors. ONNX has options of its own:
    --format.preprocessing, --format.outputs features hypercolumn, --format.hyper-stages."""

    out: Path
    """Folder to write."""

    data: DatasetSettings | None = None
    """Images of the proof; by default those of the run, and procedural ones where these are not there."""

    images: Annotated[int, Field(ge=1, le=1000)] = 32
    """How many images the proof takes."""

    licence: str = "not stated"
    """Of the weights, for the card, e.g. apache-2.0 or cc-by-nc-4.0."""

    overwrite: bool = False
    """Replace an earlier export."""

    threads: int | None = Field(None, ge=1)
    """CPU threads of the mathematics; by default all cores."""


class Exported(Settings):
    """What was written."""

    out: Path
    """The folder."""

    files: tuple[str, ...]
    """In it."""

    parity: Parity
    """The proof, as it stands in the folder."""

    def __str__(self) -> str:
        """Say it in a few lines."""
        network, pictures = self.parity.network, self.parity.pictures
        return (
            f"format: {self.parity.format}; {', '.join(self.files)}\n"
            f"parity: {self.parity.images} images ({self.parity.source}); largest difference over the "
            f"largest feature: {network.relative:.1e} from equal inputs (allowed {network.tolerance:.0e}), "
            f"{pictures.relative:.1e} from pictures (allowed {pictures.tolerance:.0e})\n"
            f"export: {self.out}"
        )


def export(settings: ExportSettings, notify: Callable[[str], None] = lambda _: None) -> Exported:
    """Write an encoder for another library, load it there, and compare the features.

    The folder appears when all of it is written and proven. It has the weights in the files of the format,
    the preprocessing, a card in README.md, and the proof in parity.json.

    Args:
        settings: see there.
        notify: is told in one line each what is being done, and what is not known.

    Raises:
        SettingsError: the format has no such network, or its package is not installed.
        CheckpointError: there is no encoder, or it cannot be read.
        ParityError: the other library does not load the files, or computes something else.
        DataError: images were asked for that are not there.
        RunFolderError: the folder is not empty, or cannot be written.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    encoder = load_encoder(settings.run)
    settings.format.check(encoder)
    before = _files_of_an_export(settings.out)
    with written_whole(settings.out, overwrite=settings.overwrite, is_ours=before.__contains__) as folder:
        origin = origin_of(settings.run, encoder, notify)
        dataset, source = _images(settings, origin, notify)
        settings.format.write(encoder, folder)
        seen = encoder.preprocessing.model_dump_json(indent=1)
        (folder / PREPROCESSING).write_text(seen + "\n", encoding="utf-8")
        notify(f"comparing features of {min(settings.images, len(dataset.names))} images")
        pictures = spread_pictures(dataset, settings.images)
        parity = prove(settings.format, encoder, folder, pictures, source)
        card = model_card(encoder, origin, settings.format.manual(encoder), parity, settings.licence)
        (folder / CARD).write_text(card, encoding="utf-8")
        (folder / PARITY).write_text(parity.model_dump_json(indent=1) + "\n", encoding="utf-8")
        files = tuple(sorted(file.name for file in folder.iterdir()))
    return Exported(out=settings.out, files=files, parity=parity)


def _files_of_an_export(folder: Path) -> frozenset[str]:
    """Name the files that an earlier export wrote into a folder; none where it is something else."""
    try:
        parity = Parity.model_validate_json((folder / PARITY).read_bytes())
    except (OSError, ValidationError):
        return frozenset()
    return frozenset((*parity.files, PARITY, CARD))


def _images(settings: ExportSettings, origin: Origin, notify: Callable[[str], None]) -> tuple[Dataset, str]:
    """Open the images of the proof, and name them."""
    if settings.data is not None:
        return settings.data.open().train, told(settings.data)
    if origin.images is not None and origin.settings is not None:
        return origin.images, f"training images, {told(origin.settings.data)}"
    notify("the proof takes procedural images; --data DIR takes yours")
    procedural = ShapesSettings(num_train=settings.images, num_test=0, image_size=_PROCEDURAL_SIZE)
    return procedural.open().train, "procedural images"
