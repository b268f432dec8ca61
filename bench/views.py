"""Two MoCo views of small images, on one thread: whole batches at once, against image by image."""

from collections import deque
from collections.abc import Callable
from itertools import count

import torch
from torch import Tensor

from bench.harness import Row, alternate, clocked, compare, require, spread_note
from bench.images import small_images, small_set
from crosscontext.datasets import Dataset
from crosscontext.loading import Loader
from crosscontext.machine import keep_memory
from crosscontext.views import IMAGENET_MEAN, IMAGENET_STD, ViewsSettings, resolve

SIZE, BATCH, STEPS, SEED = 32, 128, 16, 0  # fewer steps would time the start of the loader
COMMAND = "python -m bench views"


def measure(short: bool) -> list[Row]:
    """Compare with torchvision and with lightly."""
    require("lightly")
    from bench.peers import lightly_views, torchvision_view

    keep_memory()  # as `pretrain` does; here the peers have it too
    torch.set_num_threads(1)
    data = small_set()
    dataset = small_images(data, STEPS * BATCH)
    one_view, lightly_pair = torchvision_view(SIZE, blur=0), lightly_views(SIZE, blur=0)
    works = {
        "ours": our_epochs(dataset, BATCH, SIZE),
        "torchvision": one_by_one(dataset, lambda picture: [one_view(picture), one_view(picture)]),
        "lightly": one_by_one(dataset, lightly_pair),
        "limit": converting(torch.zeros(BATCH, 3, SIZE, SIZE, dtype=torch.uint8)),
    }
    timings = alternate({name: clocked(work) for name, work in works.items()}, 3 if short else 9, warmup=1)
    ours, limit = (STEPS * BATCH / timings["ours"].seconds, BATCH / timings["limit"].seconds)
    return [
        compare(
            f"two MoCo views of 32 px ({data}), one thread",
            "images/s",
            ours,
            BATCH / timings[peer].seconds,
            peer,
            COMMAND,
            limit,
            spread_note(timings["ours"], timings[peer]),
        )
        for peer in ("torchvision", "lightly")
    ]


def our_epochs(
    dataset: Dataset, batch_size: int, size: int, workers: int = 0, finish: bool = True
) -> Callable[[], None]:
    """Ours: each call starts the loader and makes two views of all images of the next epoch.

    Args:
        dataset: of the images.
        batch_size: images a batch.
        size: of the views, in pixels.
        workers: of the loader.
        finish: do the photometry, too, as pretraining on a CPU does.
    """
    settings = resolve(ViewsSettings(), size)
    device = torch.device("cpu") if finish else None
    loader = Loader(dataset, settings, {"strong": 2}, size, batch_size, SEED, workers, device)
    epochs = count()

    def work() -> None:
        start = next(epochs) * loader.steps_per_epoch
        deque(loader.batches(start, start + loader.steps_per_epoch), maxlen=0)

    return work


def one_by_one(dataset: Dataset, pair: Callable[..., list[Tensor]]) -> Callable[[], None]:
    """A peer: each call makes the two views of the next 128 images, and stacks them to batches."""
    batches = count()

    def work() -> None:
        start = next(batches) * BATCH
        views = [pair(dataset.image((start + i) % len(dataset.names))) for i in range(BATCH)]
        for of_one_kind in zip(*views, strict=True):
            torch.stack(of_one_kind)

    return work


def converting(crops: Tensor) -> Callable[[], None]:
    """The limit: no crop, no colour; two batches of bytes only become normalised numbers."""
    mean, deviation = (torch.tensor(c).view(1, 3, 1, 1) for c in (IMAGENET_MEAN, IMAGENET_STD))
    scale, shift = 1 / (255 * deviation), -mean / deviation

    def work() -> None:
        for _ in range(2):
            crops.to(torch.float32).mul_(scale).add_(shift)

    return work
