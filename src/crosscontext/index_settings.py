"""What all commands on an index can be told: which index, which model, and where a page of pictures goes."""

from pathlib import Path

import torch
from pydantic import Field

from crosscontext.encoders import Encoder
from crosscontext.image_index import ImageIndex, open_index
from crosscontext.machine import Device, choose_device
from crosscontext.run_folder import check_writable
from crosscontext.settings import Settings


class IndexSettings(Settings):
    """An index, and what becomes of what is found in it."""

    index: Path
    """Folder that `crosscontext embed` wrote."""

    gallery: Path | None = None
    """Page of pictures to write, e.g. found.html: one file, which needs nothing else; by default none."""

    threads: int | None = Field(None, ge=1)
    """CPU threads of the mathematics; by default all cores."""

    def open(self) -> ImageIndex:
        """Open the index, once it is certain that the page can be written.

        Raises:
            ImageIndexError: as of `open_index`.
            RunFolderError: there is no place for the page.
        """
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.gallery is not None:
            check_writable(self.gallery)
        return open_index(self.index)


class ModelOfIndex(IndexSettings):
    """An index with the model that made it, for images that are not in it."""

    run: Path | None = None
    """Run folder, or file of the encoder, that the index was made with; by default where it lay then. It is
    only needed for images that are not in the index."""

    device: Device = "auto"
    """Where vectors are computed; auto: the first GPU, else the CPU."""

    workers: int = Field(2, ge=0)
    """Threads that decode images; 0 counts as 1."""

    def load_model(self, index: ImageIndex) -> Encoder:
        """Load the model; errors as of `ImageIndex.load_model`."""
        return index.load_model(self.run).to(choose_device(self.device))
