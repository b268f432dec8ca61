"""Proof that an export computes what the encoder computes: files, pictures → **parity** → differences.

formats → **parity** → exporting
"""

import hashlib
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from crosscontext.datasets import Dataset
from crosscontext.encoders import Encoder
from crosscontext.errors import DataError, ImageError, ParityError
from crosscontext.formats import Format
from crosscontext.settings import Settings

_BATCH = 8


class Difference(Settings):
    """How far two sets of features are apart."""

    absolute: float
    """Largest difference of two numbers."""

    relative: float
    """The same over the largest feature of the encoder."""

    tolerance: float
    """What the relative one may be."""


class Parity(Settings):
    """What was compared, and how large the differences were."""

    format: str
    """What was written."""

    images: int
    """Pictures that were compared."""

    source: str
    """Where the pictures come from."""

    network: Difference
    """Of features from equal inputs."""

    pictures: Difference
    """Of features from pictures, prepared as the files or their library say."""

    encoder_digest: str
    """Identifies the weights of the encoder."""

    versions: dict[str, str]
    """Of the libraries that computed."""

    files: dict[str, str]
    """Files of the export → SHA-256; the card and this record are not among them."""


def spread_pictures(dataset: Dataset, number: int) -> Iterator[Image.Image]:
    """Decode pictures spread evenly over a data set; unreadable ones are left out.

    Raises:
        DataError: none can be read.
    """
    indices = np.linspace(0, len(dataset.names) - 1, min(number, len(dataset.names))).round().astype(int)
    cause, is_empty = "", True
    for index in indices.tolist():
        try:
            picture = dataset.image(index)
        except ImageError as error:
            cause = cause or str(error)
            continue
        is_empty = False
        yield picture
    if is_empty:
        raise DataError(f"None of {len(indices)} pictures can be read: {cause} Give others with --data DIR.")


@torch.no_grad()
def prove(
    form: Format, encoder: Encoder, folder: Path, pictures: Iterable[Image.Image], source: str
) -> Parity:
    """Load an export by the library that it is for, and compare its features with those of the encoder.

    Args:
        form: what was written.
        encoder: in evaluation mode, on the CPU.
        folder: holds the files.
        pictures: in mode RGB, of any size; at least one.
        source: of the pictures, for the record.

    Raises:
        ParityError: the library cannot load the files, or the features differ by more than the tolerance.
    """
    files = sorted(file for file in folder.iterdir() if file.is_file())
    manual = form.manual(encoder)
    try:
        loaded = form.read(encoder, folder)
        inputs, from_pictures = [], []
        for picture in pictures:
            inputs.append(encoder.preprocess(picture))
            from_pictures.append(loaded.pictures(picture))
        batches = torch.stack(inputs).split(_BATCH)
        from_inputs = torch.cat([loaded.network(batch) for batch in batches])
    except (DataError, ImageError):
        raise
    except Exception as error:  # another library may raise anything
        raise ParityError(
            f"{manual.library} does not load what was written as {form.name}: {type(error).__name__}: "
            f"{error}. Nothing is left of it. Try --format onnx or --format safetensors."
        ) from error
    expected = torch.cat([encoder(batch) for batch in batches])
    return Parity(
        format=form.name,
        images=len(inputs),
        source=source,
        network=_difference(form, expected, from_inputs, form.tolerance),
        pictures=_difference(form, expected, torch.cat(from_pictures), form.tolerance_of_pictures),
        encoder_digest=encoder.digest,
        versions={package: version(package) for package in ("crosscontext", *manual.packages)},
        files={file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
    )


def _difference(
    form: Format, expected: Float[Tensor, "N D"], found: Float[Tensor, "N D"], tolerance: float
) -> Difference:
    absolute = float((found - expected).abs().max())
    relative = absolute / max(float(expected.abs().max()), torch.finfo(torch.float32).tiny)
    if not relative <= tolerance:  # nor NaN
        raise ParityError(
            f"The files written as {form.name} do not compute what the encoder computes: the largest "
            f"difference is {relative:.1e} of the largest feature, and {tolerance:.0e} is allowed. Nothing "
            "is left of them. Try again, or another --format."
        )
    return Difference(absolute=absolute, relative=relative, tolerance=tolerance)
