"""Two MoCo v2 views of 224 px of photographs in a folder, two workers: from JPEG files to batches."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from bench.harness import CannotMeasureError, Row, alternate, clocked, compare, require, spread_note
from bench.images import photographs
from bench.views import our_epochs
from crosscontext.datasets.subset import Subset
from crosscontext.machine import keep_memory

SIZE, BATCH, WORKERS = 224, 50, 2
COMMAND = "python -m bench photographs"
CLAIMS = {
    "ours": "two MoCo v2 views of 224 px of photographs, photometry included",
    "our crops": "the same, uint8 crops handed over: an accelerator does the photometry",
}
PAIRS = (
    ("ours", "torchvision"),
    ("ours", "torchvision v2"),
    ("ours", "lightly"),
    ("our crops", "torchvision"),
)

Read = TypeVar("Read")


def measure(short: bool) -> list[Row]:
    """Compare with torchvision's two kinds of transforms, and with lightly's."""
    require("lightly")
    keep_memory()  # as `pretrain` does; the peers' processes inherit it
    from bench.peers import lightly_views, torchvision_tensor_view, torchvision_view

    folder = photographs()
    if len(folder.names) < BATCH:
        raise CannotMeasureError(
            f"{folder.root} holds {len(folder.names)} photographs; at least {BATCH} are needed. Add some."
        )
    dataset = Subset(folder, range(len(folder.names))[: 4 * BATCH if short else None])
    num_images = len(dataset.names) // BATCH * BATCH
    paths = [folder.root / name for name in dataset.names]
    by_picture, by_tensor, pair = (
        torchvision_view(SIZE, 0.5),
        torchvision_tensor_view(SIZE),
        lightly_views(SIZE, 0.5),
    )
    works = {
        "ours": our_epochs(dataset, BATCH, SIZE, WORKERS),
        "our crops": our_epochs(dataset, BATCH, SIZE, WORKERS, finish=False),
        "torchvision": peer_epoch(
            paths, read_picture, lambda picture: [by_picture(picture) for _ in range(2)]
        ),
        "torchvision v2": peer_epoch(
            paths, read_tensor, lambda pixels: [by_tensor(pixels) for _ in range(2)]
        ),
        "lightly": peer_epoch(paths, read_picture, pair),
        "limit": lambda: decode_reduced(paths[:num_images]),
    }
    timings = alternate({name: clocked(work) for name, work in works.items()}, 2 if short else 7, warmup=1)
    rate = {name: num_images / timing.seconds for name, timing in timings.items()}
    return [
        compare(
            CLAIMS[ours],
            "images/s",
            rate[ours],
            rate[peer],
            peer,
            COMMAND,
            rate["limit"],
            spread_note(timings[ours], timings[peer]),
        )
        for ours, peer in PAIRS
    ]


class Files(TorchDataset[list[Tensor]]):
    """Image files as the peers read them.

    Args:
        paths: of the files.
        read: path → picture or pixels.
        views: what was read → tensors.
    """

    def __init__(
        self, paths: Sequence[Path], read: Callable[[Path], Any], views: Callable[[Any], list[Tensor]]
    ):
        self._paths, self._read, self._views = paths, read, views

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self._views(self._read(self._paths[index]))


def peer_epoch(
    paths: Sequence[Path], read: Callable[[Path], Read], views: Callable[[Read], list[Tensor]]
) -> Callable[[], None]:
    """A peer: each call starts the worker processes of a DataLoader and takes all batches of an epoch."""
    loader = DataLoader(Files(paths, read, views), BATCH, shuffle=True, drop_last=True, num_workers=WORKERS)

    def work() -> None:
        for _ in loader:
            pass

    return work


def read_picture(path: Path) -> Image.Image:
    """Decode as torchvision's and lightly's folders do."""
    with Image.open(path) as image:
        return image.convert("RGB")


def read_tensor(path: Path) -> Tensor:
    """Decode with torchvision's own decoder."""
    from torchvision.io import ImageReadMode, decode_image

    pixels: Tensor = decode_image(str(path), mode=ImageReadMode.RGB)
    return pixels


def decode_reduced(paths: Sequence[Path]) -> None:
    """The limit: decode the smallest picture above 224 px that each JPEG file offers, and no more."""

    def decode(path: Path) -> None:
        with Image.open(path) as image:
            image.draft("RGB", (SIZE, SIZE))
            image.load()

    with ThreadPoolExecutor(WORKERS) as pool:
        deque(pool.map(decode, paths), maxlen=0)
