"""Features are computed once: a model and images → **feature store** → features, kept in a file.

What is kept is found again by all that has a say in it: the weights, their architecture, the preprocessing,
the images, the kind of device and the software. So a score is the same, bitwise, with and without the store.
"""

import json
import zlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from crosscontext.datasets.contract import Dataset
from crosscontext.encoders import Encoder
from crosscontext.errors import RunFolderError
from crosscontext.features import FeatureModel, Features, extract
from crosscontext.results import digest
from crosscontext.run_folder import write_atomically
from crosscontext.shapes import Float32

LARGEST_BYTES = 4 * 10**9
"""Larger features are not kept: writing them takes twice their memory. 4 GB are 500 000 images of a
ResNet-50."""

_FORMAT = 1
_VALUES = "values"


class FeatureStore:
    """Computes features, and keeps those of encoders in a folder.

    Raw pixels are never kept: they would take more room than the images. Features with the wrong content are
    computed again, and a full disk costs the file alone: both are said in a line.

    Args:
        folder: is made when the first features are kept; None: nothing is kept.
        notify: is told in one line each what is being done.
    """

    def __init__(self, folder: Path | None = None, notify: Callable[[str], None] = lambda _: None):
        self._folder, self._notify = folder, notify
        self._fingerprints: dict[Dataset, str | None] = {}

    def features(
        self, name: str, model: FeatureModel, dataset: Dataset, batch_size: int, workers: int
    ) -> Features:
        """Look features up, or compute and keep them.

        Args:
            name: of the model, for the notices.
            model: see `extract`.
            dataset: see `extract`. Its labels may change: what is kept are the vectors and the names of
                unreadable images.
            batch_size: see `extract`.
            workers: see `extract`.

        Raises:
            DataError: not a single image can be read.
            NonFiniteError: the model gives features that are no numbers.
        """
        file = self._file(model, dataset)
        if file is not None and file.exists():
            try:
                features = _read(file, dataset)
            except (SafetensorError, OSError, ValueError) as error:
                cause = str(error).partition("\n")[0]
                self._notify(f"{name}: {file} is not what was kept there ({cause})")
            else:
                self._notify(f"{name}: features of {len(dataset.names)} images were computed before")
                return features
        self._notify(f"{name}: computing features of {len(dataset.names)} images")
        features = extract(model, dataset, batch_size, workers)
        if file is not None:
            self._keep(name, file, features)
        return features

    def _file(self, model: FeatureModel, dataset: Dataset) -> Path | None:
        if self._folder is None or not isinstance(model, Encoder):
            return None
        if dataset not in self._fingerprints:
            self._fingerprints[dataset] = dataset.fingerprint()
        if self._fingerprints[dataset] is None:
            return None
        key = {
            "format": _FORMAT,
            "weights": model.digest,
            "backbone": model.backbone_settings.model_dump(mode="json"),
            "preprocessing": model.preprocessing.model_dump(mode="json"),
            "images": self._fingerprints[dataset],
            "device": next(model.parameters()).device.type,
            "versions": {package: version(package) for package in ("crosscontext", "pillow", "torch")},
        }
        return self._folder / f"{digest(key)}.safetensors"

    def _keep(self, name: str, file: Path, features: Features) -> None:
        if (size := features.values.nbytes) > LARGEST_BYTES:
            limit = f"the limit is {LARGEST_BYTES / 1e9:g} GB"
            self._notify(f"{name}: {size / 1e9:.1f} GB of features are not kept; {limit}")
            return
        metadata = {
            "key": file.stem,
            "checksum": _checksum(features.values),
            "skipped": json.dumps(features.skipped),
        }
        content = save({_VALUES: features.values}, metadata)
        try:
            file.parent.mkdir(exist_ok=True)
            write_atomically(file, lambda opened: opened.write(content))
        except (RunFolderError, OSError) as error:
            self._notify(f"{name}: the features are not kept: {error}")


def _read(file: Path, dataset: Dataset) -> Features:
    """Read what `_keep` wrote.

    Raises:
        SafetensorError: the file is cut short, or none of safetensors.
        ValueError: it has other features, or other bytes than were written.
    """
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata() or {}
        values = opened.get_tensor(
            _VALUES
        ).clone()  # aligned in memory as computed ones: products round alike
    if metadata.get("key") != file.stem:
        raise ValueError("it belongs to other images or another model")
    if metadata.get("checksum") != _checksum(values):
        raise ValueError("its bytes have changed")
    return Features.of(dataset, values, json.loads(metadata["skipped"]))


def _checksum(values: Float32[Tensor, "N D"]) -> str:
    return f"{zlib.crc32(values.contiguous().numpy().data):08x}"
