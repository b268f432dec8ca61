"""The door for scikit-learn: images → `fit` pretrains → `transform` gives features.

pretraining, features → **estimator** → pipelines
"""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from pydantic import TypeAdapter
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from crosscontext.datasets import Dataset, DatasetSettings
from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.datasets.files import ImageFiles
from crosscontext.encoders import Encoder, load_encoder, save_encoder
from crosscontext.errors import DataError, ImageError
from crosscontext.features import extract
from crosscontext.layers import Layer, resolve
from crosscontext.machine import Device, choose_device
from crosscontext.planning import PretrainSettings
from crosscontext.pretraining import pretrain
from crosscontext.shapes import Float32
from crosscontext.tracking import Silence, console_progress

Images: TypeAlias = "str | PathLike[str] | np.ndarray | Sequence[Image.Image | str | PathLike[str]]"
"""Path of an image folder or name of a data set; or bytes of shape (N, H, W) or (N, H, W, 3); or pictures of
any sizes; or paths of image files."""

_TAKEN = (
    "expected the path of an image folder, an array of bytes (N, H, W) or (N, H, W, 3), a list of PIL "
    "images, or a list of paths of image files"
)


class CrossContextEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """A visual backbone that is pretrained on the images it is fitted to, without labels.

    What is not among the parameters goes into `settings`, under the names of the command line; those that are
    None are left to their defaults.

    Args:
        method: objective: cgh, or one of its relatives.
        backbone: network to train, e.g. ``resnet18``, or settings of one.
        image_size: side of the views, in pixels; by default it suits the images.
        batch_size: images in a step.
        epochs: length of training in passes over the images; 200 if no length is given.
        steps: the same in steps.
        minutes: the same in minutes of training.
        random_state: decides the first weights, the order of the images and all augmentations.
        device: where to train and to compute features; by default the first GPU, else the CPU.
        workers: threads that decode images.
        settings: further settings of `crosscontext pretrain`, nested as in a recipe; they win over
            the others.
        out: run folder to keep; by default the run is thrown away once the encoder is there. Images that are
            given as an array or as pictures are never kept in it.
        verbose: show how training goes on.

    Attributes:
        encoder_: the trained `crosscontext.Encoder`.
    """

    def __init__(
        self,
        *,
        method: str | Mapping[str, object] | None = None,
        backbone: str | Mapping[str, object] | None = None,
        image_size: int | None = None,
        batch_size: int | None = None,
        epochs: float | None = None,
        steps: int | None = None,
        minutes: float | None = None,
        random_state: int | None = None,
        device: Device | None = None,
        workers: int = 2,
        settings: Mapping[str, object] | None = None,
        out: str | PathLike[str] | None = None,
        verbose: bool = False,
    ):
        self.method = method
        self.backbone = backbone
        self.image_size = image_size
        self.batch_size = batch_size
        self.epochs = epochs
        self.steps = steps
        self.minutes = minutes
        self.random_state = random_state
        self.device = device
        self.workers = workers
        self.settings = settings
        self.out = out
        self.verbose = verbose

    def fit(self, X: Images, y: object = None) -> "CrossContextEncoder":  # noqa: ARG002, N803 (of scikit-learn)
        """Pretrain on images.

        Args:
            X: the images.
            y: not used.

        Raises:
            SettingsError: a parameter does not fit.
            DataError: X is something else, or too few of its images can be read.
        """
        with tempfile.TemporaryDirectory(prefix="crosscontext-") as scratch:
            data: object = (
                X if isinstance(X, str | PathLike) else _written(_dataset(X), Path(scratch) / "images")
            )
            named = {
                "method": self.method,
                "backbone": self.backbone,
                "image_size": self.image_size,
                "batch_size": self.batch_size,
                "epochs": self.epochs,
                "steps": self.steps,
                "minutes": self.minutes,
                "seed": self.random_state,
                "device": self.device,
                "workers": self.workers,
                "out": self.out or Path(scratch) / "run",
                "data": data,
                "report": self.out is not None,  # else nobody would see it
            }
            given = {name: value for name, value in named.items() if value is not None}
            layers = [Layer("the parameters", given), Layer("settings", self.settings or {})]
            with console_progress() if self.verbose else nullcontext(Silence()) as progress:
                folder = pretrain(resolve(PretrainSettings, layers), progress)
            self.encoder_: Encoder = load_encoder(folder.path)
        return self

    def transform(self, X: Images) -> Float32[np.ndarray, "N D"]:  # noqa: N803 (of scikit-learn)
        """Compute one feature vector an image, in their order; of a data set in parts, of its training part.

        Args:
            X: the images; of any sizes, whatever those of `fit` were.

        Raises:
            NotFittedError: `fit` comes first.
            DataError: X is something else.
            ImageError: an image cannot be read, so that rows would be missing.
        """
        check_is_fitted(self)
        encoder = self.encoder_.to(choose_device(self.device or "auto"))
        features = extract(encoder, _dataset(X), batch_size=256, workers=self.workers)
        if features.skipped:
            raise ImageError(next(iter(features.skipped.values())))
        return features.values.numpy()

    @property
    def _n_features_out(self) -> int:
        return self.encoder_.width

    def __getstate__(self) -> dict[str, Any]:
        """Hold the encoder as the content of an encoder file, which holds no code."""
        state = dict(super().__getstate__())
        if "encoder_" in state:
            with tempfile.TemporaryDirectory(prefix="crosscontext-") as scratch:
                file = Path(scratch) / "encoder.safetensors"
                save_encoder(file, state["encoder_"])
                state["encoder_"] = file.read_bytes()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load the encoder from the content of its file."""
        if "encoder_" in state:
            with tempfile.TemporaryDirectory(prefix="crosscontext-") as scratch:
                file = Path(scratch) / "encoder.safetensors"
                file.write_bytes(state["encoder_"])
                state = {**state, "encoder_": load_encoder(file)}
        super().__setstate__(state)

    def __sklearn_tags__(self) -> Tags:
        """Say that images are taken, not tables."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.no_validation = True
        return tags


class _Pictures(Dataset):
    """Pictures in memory, of any sizes and modes."""

    labels = None

    def __init__(self, pictures: Sequence[Image.Image]):
        self._pictures = pictures
        self.names = _numbers(len(pictures))

    def image(self, index: int) -> Image.Image:
        """Look up one picture, as RGB."""
        return self._pictures[index].convert("RGB")


def _dataset(images: Images) -> Dataset:
    """Look at images of any kind as a data set.

    Raises:
        DataError: they are of no such kind, or there are none.
    """
    if isinstance(images, str | PathLike):
        return TypeAdapter[Any](DatasetSettings).validate_python(images).open().train  # type: ignore[no-any-return]
    if len(images) == 0:
        raise DataError(f"There is no image; {_TAKEN}.")
    if isinstance(images, np.ndarray):
        shape, kind = images.shape, images.dtype
        if kind != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and shape[3] != 3):
            raise DataError(f"The images are an array of {kind} of shape {shape}; {_TAKEN}.")
        return ArrayDataset(images, _numbers(len(images)), None)
    pictures = [image for image in images if isinstance(image, Image.Image)]
    paths = [str(image) for image in images if isinstance(image, str | PathLike)]
    if len(pictures) == len(images):
        return _Pictures(pictures)
    if len(paths) == len(images):
        return ImageFiles(Path(), paths)
    kinds = ", ".join(sorted({type(image).__name__ for image in images}))
    raise DataError(f"The images are a {type(images).__name__} of {kinds}; {_TAKEN}.")


def _written(dataset: Dataset, folder: Path) -> Path:
    """Write images, without loss, where `pretrain` finds them; files are not copied but linked to."""
    folder.mkdir()
    for number, name in zip(_numbers(len(dataset.names)), dataset.names, strict=True):
        if isinstance(dataset, ImageFiles):
            (folder / f"{number}{Path(name).suffix}").symlink_to(Path(name).expanduser().absolute())
        else:
            dataset.image(int(number)).save(folder / f"{number}.ppm")
    return folder


def _numbers(count: int) -> list[str]:
    return [f"{number:09d}" for number in range(count)]
