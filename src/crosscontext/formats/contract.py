"""What a format offers: an encoder → files of another library, and what that library makes of them.

encoders → **formats** → exporting
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple

from jaxtyping import Float
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from crosscontext.encoders import Encoder, Preprocessing
from crosscontext.settings import Settings

PREPROCESSING = "preprocessing.json"
"""File that every export has: the settings of `Preprocessing`."""


WEIGHTS = "model.safetensors"
"""File of the weights, where the library reads safetensors."""


class Loaded(NamedTuple):
    """What the format's own library makes of the files that were written."""

    network: Callable[[Float[Tensor, "B 3 S S"]], Float[Tensor, "B D"]]
    """Inputs, as `Preprocessing` makes them, → features."""

    pictures: Callable[[Image.Image], Float[Tensor, "1 D"]]
    """A picture of any size, in mode RGB, → its features, by what the files say of the preprocessing."""


class Manual(NamedTuple):
    """What a person is told of an export."""

    library: str
    """Whose format it is, as the Hugging Face Hub calls it."""

    packages: tuple[str, ...]
    """Whose versions belong to the proof."""

    code: str
    """Python that computes ``features`` of ``picture.jpg``; it runs in the folder of the export."""

    notes: tuple[str, ...] = ()
    """What should be known besides, a sentence or more each."""


class Format(Settings, ABC):
    """The settings of a way to write an encoder, and the way itself."""

    name: str
    """Tells the members apart."""

    tolerance: ClassVar[float] = 1e-5
    """Largest difference of features, over the largest feature, that counts as equal."""

    @property
    def tolerance_of_pictures(self) -> float:
        """The same where the library, or the file, has prepared the pictures, too."""
        return self.tolerance

    @abstractmethod
    def check(self, encoder: Encoder) -> None:
        """Make sure that this encoder can be written, before anything is.

        Raises:
            SettingsError: the format has no such network, or a package is missing.
        """

    @abstractmethod
    def write(self, encoder: Encoder, folder: Path) -> None:
        """Write the weights into a folder, with all that the library needs to load them."""

    @abstractmethod
    def read(self, encoder: Encoder, folder: Path) -> Loaded:
        """Load what was written, the way a user of the library does.

        Args:
            encoder: tells what to build; the weights come from the files.
            folder: holds what `write` wrote, and the file `PREPROCESSING`.
        """

    @abstractmethod
    def manual(self, encoder: Encoder) -> Manual:
        """Say how to load it."""


def read_preprocessing(folder: Path) -> Preprocessing:
    """Read what an export says of the pictures."""
    return Preprocessing.model_validate_json((folder / PREPROCESSING).read_bytes())


def write_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors with the mark by which Hugging Face knows them to be PyTorch's."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
