"""Every image of a set is looked at once: data set → **scan** → counts, and the names of what is unusual.

Several processes share the images; how many there are changes nothing but the speed.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from torch import Generator
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from crosscontext.datasets import DatasetSettings
from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.datasets.contract import Dataset
from crosscontext.datasets.decoding import decode_pixels
from crosscontext.datasets.file_heads import FileHead, read_head
from crosscontext.errors import ImageError, ShortOfMemoryError
from crosscontext.perceptual_hash import Sketch, near_groups, sketch
from crosscontext.settings import Settings

ELONGATED: Final = 4.0
"""Longer over shorter side, from which on an image counts as elongated."""

_IMAGES_AT_ONCE: Final = 32
_SKETCHED_FROM: Final = 64  # pixels of the shorter side that are decoded at least, if there are so many
_SECONDS_BETWEEN_LINES: Final = 10.0
_DARK: Final = 64  # of 255: a deep picture that stays below uses two bits less than it could


class Unreadable(Settings):
    """An image that cannot be decoded."""

    path: str

    cause: str


class Spread(Settings):
    """How a quantity is distributed over the images."""

    least: float
    low: float
    """5 % quantile."""

    median: float
    high: float
    """95 % quantile."""

    most: float


class Scan(Settings):
    """What was found among the images; all paths are names in the data set, in its order."""

    images: int
    """In the training part of the set."""

    scanned: int
    """Of these; fewer where a limit was set, evenly spread."""

    unreadable: tuple[Unreadable, ...]

    formats: dict[str, int]
    """Format, as Pillow calls it → readable images; ``pixels`` where a set has no files."""

    modes: dict[str, int]
    """Colour mode, as Pillow calls it → readable images."""

    short_side: Spread | None
    """Of the upright images, in pixels; None where none can be read."""

    long_side: Spread | None
    """The same."""

    aspect: Spread | None
    """Longer over shorter side."""

    tiny: tuple[str, ...]
    """Images whose shorter side is below the limit that was set."""

    elongated: tuple[str, ...]
    """Images whose longer side is more than four times the shorter one."""

    blank: tuple[str, ...]
    """Images of one colour, or nearly so."""

    animated: tuple[str, ...]
    """Images with several frames or pages, of which training sees the first one."""

    deep: tuple[str, ...]
    """Images with more than 8 bits a value."""

    dark: tuple[str, ...]
    """Those of the deep ones that use less than a quarter of their range."""

    identical: tuple[tuple[str, ...], ...]
    """Groups of the same content, byte by byte."""

    alike: tuple[tuple[str, ...], ...]
    """Groups of nearly the same picture, e.g. of another size, compression or brightness: the first one, then
    those that resemble it. Of a group of identical images, only the first one is here; blank ones are not."""

    classes: dict[str, int]
    """Class → images of the whole training part; empty where there are no classes."""

    @property
    def readable(self) -> int:
        """Images that can be decoded, of those that were scanned."""
        return self.scanned - len(self.unreadable)

    @property
    def repeated(self) -> int:
        """Images that repeat another one, exactly or nearly."""
        return sum(len(group) - 1 for group in (*self.identical, *self.alike))


def scan(
    data: DatasetSettings,
    dataset: Dataset,
    limit: int,
    tiny: int,
    processes: int,
    notify: Callable[[str], None],
) -> Scan:
    """Look at the images of a data set.

    Args:
        data: what the processes open the set with, each for itself.
        dataset: its training part.
        limit: images to look at; of more, so many are taken at equal distances.
        tiny: side in pixels, below which an image counts as tiny.
        processes: that share the work. Images that lie in memory are looked at in this one.
        notify: is told now and then how far it is.

    Raises:
        ShortOfMemoryError: a process was killed, as a rule because memory was short.
    """
    size = len(dataset.names)
    chosen = np.unique(np.linspace(0, size - 1, min(limit, size)).astype(int)).tolist()
    alone = processes == 1 or isinstance(dataset, ArrayDataset)
    images = _Images(data, chosen, dataset if alone else None)
    loader = DataLoader(
        images,
        _IMAGES_AT_ONCE,
        num_workers=0 if alone else processes,
        collate_fn=list,
        generator=Generator(),  # or else it would draw from that of the caller
    )
    try:
        found = list(_told(loader, len(chosen), notify))
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):  # PyTorch's own words
            raise
        raise ShortOfMemoryError(
            f"A process that looked at images has died: {error}. If nobody killed it, memory was short: set "
            f"--processes to less than {processes}."
        ) from error
    names = [dataset.names[index] for index in chosen]
    return _summary(names, found, size, tiny, _classes(dataset))


class _Look(NamedTuple):
    """What is kept of one image."""

    head: FileHead
    digest: bytes
    """Of its content."""

    sketch: Sketch
    brightest: int


class _Images(TorchDataset[_Look | str]):
    """Index → what is kept of an image, or why it cannot be read; the set is opened where it is read."""

    def __init__(self, data: DatasetSettings, chosen: Sequence[int], dataset: Dataset | None):
        self._data, self._chosen, self._dataset = data, chosen, dataset

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, place: int) -> _Look | str:
        if self._dataset is None:
            self._dataset = self._data.open().train
        try:
            return _look(self._dataset, self._chosen[place])
        except ImageError as error:
            return _cause(str(error))


def _look(dataset: Dataset, index: int) -> _Look:
    content, name = dataset.content(index), dataset.names[index]
    if content is None:
        pixels = dataset.pixels(index)
        height, width, _ = pixels.shape
        head = FileHead("pixels", "RGB", False, width, height, False)
        content = f"{width} {height} ".encode() + pixels.tobytes()
    else:
        pixels = decode_pixels(content, name, _reduction)
        head = read_head(content, name)
    return _Look(head, hashlib.sha256(content).digest(), sketch(pixels), int(pixels.max()))


def _cause(message: str) -> str:
    """Keep of a message what comes between the name of the image and the remedy."""
    return message.partition("': ")[2].partition(". ")[0] or message


def _reduction(width: int, height: int) -> int:
    return next((factor for factor in (8, 4, 2) if min(width, height) >= factor * _SKETCHED_FROM), 1)


def _told(
    batches: Iterable[list[_Look | str]], size: int, notify: Callable[[str], None]
) -> Iterable[_Look | str]:
    began = last = time.monotonic()
    done = 0
    for batch in batches:
        yield from batch
        done += len(batch)
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            notify(f"scanned {done} of {size} images, {done / (now - began):.0f} a second")


def _classes(dataset: Dataset) -> dict[str, int]:
    if dataset.labels is None:
        return {}
    names, classes = dataset.labels
    counts = np.bincount(classes, minlength=len(names)).tolist()
    return dict(zip(names, counts, strict=True))


def _summary(
    names: Sequence[str], found: Sequence[_Look | str], size: int, tiny: int, classes: dict[str, int]
) -> Scan:
    looks = {name: each for name, each in zip(names, found, strict=True) if isinstance(each, _Look)}
    heads = {name: look.head for name, look in looks.items()}
    short = {name: min(head.width, head.height) for name, head in heads.items()}
    long = {name: max(head.width, head.height) for name, head in heads.items()}
    aspect = {name: long[name] / short[name] for name in looks}
    same: dict[bytes, list[str]] = {}
    for name, look in looks.items():
        same.setdefault(look.digest, []).append(name)
    single = [group[0] for group in same.values() if not looks[group[0]].sketch.blank]
    alike = near_groups([looks[name].sketch for name in single])
    deep = [name for name, head in heads.items() if head.is_deep]
    return Scan(
        images=size,
        scanned=len(names),
        unreadable=tuple(
            Unreadable(path=name, cause=each)
            for name, each in zip(names, found, strict=True)
            if isinstance(each, str)
        ),
        formats=dict(Counter(head.format for head in heads.values()).most_common()),
        modes=dict(Counter(head.mode for head in heads.values()).most_common()),
        short_side=_spread(short.values()),
        long_side=_spread(long.values()),
        aspect=_spread(aspect.values()),
        tiny=tuple(name for name, side in short.items() if side < tiny),
        elongated=tuple(name for name, ratio in aspect.items() if ratio > ELONGATED),
        blank=tuple(name for name, look in looks.items() if look.sketch.blank),
        animated=tuple(name for name, head in heads.items() if head.is_animated),
        deep=tuple(deep),
        dark=tuple(name for name in deep if looks[name].brightest < _DARK),
        identical=tuple(tuple(group) for group in same.values() if len(group) > 1),
        alike=tuple(tuple(single[place] for place in group) for group in alike),
        classes=classes,
    )


def _spread(values: Iterable[int] | Iterable[float]) -> Spread | None:
    listed = np.array(list(values), dtype=np.float64)
    if not len(listed):
        return None
    least, low, median, high, most = np.quantile(listed, [0, 0.05, 0.5, 0.95, 1]).round(2).tolist()
    return Spread(least=least, low=low, median=median, high=high, most=most)
