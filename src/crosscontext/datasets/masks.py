"""Images with a class for each pixel: folders images/ and masks/ → **masks** → images and their masks."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from crosscontext.datasets.contract import IGNORED, MaskDataset, Splits
from crosscontext.datasets.decoding import EXTENSIONS, decode_numbers
from crosscontext.datasets.files import ImageFiles
from crosscontext.errors import DataError, ImageError
from crosscontext.settings import AbsolutePath, Settings
from crosscontext.shapes import UInt8

_TRAIN, _VAL, _TEST = "train", "val", "test"
_IMAGES, _MASKS, _CLASSES = "images", "masks", "classes.txt"
_LINE = re.compile(r"(?P<value>\d+)\s+(?P<name>.*?)(?P<ignore>\s+\(ignore\))?\s*")
_VALUES = 256
_UNKNOWN = -1
_SHOWN = 5

Value = Annotated[int, Field(ge=0, lt=_VALUES)]


class MasksSettings(Settings):
    """Images, each with a mask of the same name: a PNG whose values are classes."""

    name: Literal["masks"] = "masks"
    """Images with masks."""

    path: AbsolutePath
    """The folder. Its sub-folders `train` and, where they exist, `val` and `test` are the parts of the set,
    each with sub-folders `images` and `masks`; or these two lie in the folder itself. `test` is judged, or
    else `val`. A file `classes.txt` has a line `VALUE NAME` a class, ending in `(ignore)` for values that do
    not count; without it each value that occurs is a class."""

    ignored: tuple[Value, ...] = (IGNORED,)
    """Values of pixels that do not count, besides those that `classes.txt` marks."""

    train_on_val: bool = False
    """Learn from the part `val` too."""

    def open(self) -> Splits:
        """List images and masks by name; none is read yet.

        Raises:
            DataError: a folder is missing or empty, an image lacks its mask or a mask its image, two files
                have the same name, or `val` would be both learned from and judged.
        """
        names = [name for name in (_TRAIN, _VAL, _TEST) if (self.path / name).is_dir()]
        pairs = {name: _pairs(self.path, name) for name in (names if _TRAIN in names else [""])}
        train = pairs.get(_TRAIN) or pairs[""]
        if self.train_on_val:
            if not {_VAL, _TEST} <= pairs.keys():
                raise DataError(
                    f"train_on_val is set, but {str(self.path)!r} has no parts {_VAL} and {_TEST}, of which "
                    "one is to be learned from and the other to be judged. Leave train_on_val out."
                )
            train = train + pairs[_VAL]
        meaning = _Meaning(self.path, [mask for part in pairs.values() for _, mask in part], self.ignored)
        test = pairs.get(_TEST) or pairs.get(_VAL)
        return Splits(
            MaskFolder(self.path, train, meaning),
            MaskFolder(self.path, test, meaning) if test else None,
        )


def is_mask_folder(path: Path) -> bool:
    """Tell whether a folder is laid out as `MasksSettings` says."""
    with suppress(OSError):  # such as a name that is too long, for others to complain of
        root = path.expanduser()
        return any(
            (root / part / _IMAGES).is_dir() and (root / part / _MASKS).is_dir() for part in ("", _TRAIN)
        )
    return False


class MaskFolder(ImageFiles, MaskDataset):
    """Image files and their masks, each decoded when it is asked for."""

    def __init__(self, root: Path, pairs: Sequence[tuple[str, str]], meaning: "_Meaning") -> None:
        super().__init__(root, [image for image, _ in pairs])
        self._masks = [mask for _, mask in pairs]
        self._meaning = meaning

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of `classes.txt` that count, in the order of their values; else the values themselves.

        Raises:
            DataError: `classes.txt` cannot be understood, or no class is left.
        """
        return self._meaning.table.class_names

    def mask(self, index: int) -> UInt8[np.ndarray, "H W"]:
        """Decode one mask, and number its classes from 0."""
        name, (class_names, numbers) = self._masks[index], self._meaning.table
        values = decode_numbers(self.root / name, name)
        mask = numbers[values]
        if (unknown := mask == _UNKNOWN).any():
            value, count = Counter(values[unknown].tolist()).most_common(1)[0]
            raise DataError(
                f"mask {name!r} has the value {value} in {count} pixels, which is none of the "
                f"{len(class_names)} classes of {_CLASSES} and not ignored either. Add it to {_CLASSES}, or "
                "to the ignored values (--data.ignored)."
            )
        return np.asarray(mask, dtype=np.uint8)


class _Table(NamedTuple):
    """What each value in a mask file stands for."""

    class_names: tuple[str, ...]
    numbers: np.ndarray
    """Shape (256,): index of the class, `IGNORED`, or `_UNKNOWN`."""


class _Meaning:
    """The table of a set, made when it is first asked for: pretraining does without."""

    def __init__(self, root: Path, masks: Sequence[str], ignored: Collection[int]) -> None:
        self._root, self._masks, self._ignored = root, masks, ignored

    @cached_property
    def table(self) -> _Table:
        file = self._root / _CLASSES
        names, ignored = _listed(file) if file.is_file() else (self._occurring(), set[int]())
        ignored |= set(self._ignored)
        counted = [value for value in sorted(names) if value not in ignored]
        if not counted or len(counted) > IGNORED:
            raise DataError(
                f"{len(counted)} of {len(names)} values of the masks in {str(self._root)!r} are classes, the "
                f"others are ignored; expected 1 to {IGNORED}. Change {_CLASSES}, or the ignored values."
            )
        numbers = np.full(_VALUES, _UNKNOWN, dtype=np.int16)
        numbers[sorted(ignored)] = IGNORED
        numbers[counted] = np.arange(len(counted))
        return _Table(tuple(names[value] for value in counted), numbers)

    def _occurring(self) -> dict[int, str]:
        """Every value that a readable mask has, as its own name."""
        occurs = np.zeros(_VALUES, dtype=bool)
        for name in self._masks:
            with suppress(ImageError):
                occurs[decode_numbers(self._root / name, name)] = True
        return {value: str(value) for value in np.flatnonzero(occurs).tolist()}


def _listed(file: Path) -> tuple[dict[int, str], set[int]]:
    """Read classes.txt: value → name, and the values that are ignored."""
    names: dict[int, str] = {}
    ignored = set()
    for number, line in enumerate(file.read_text("utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        value = int(match["value"]) if match else _VALUES
        if match is None or value >= _VALUES or value in names or match["name"] in names.values():
            raise DataError(
                f"line {number} of {str(file)!r} is {line[:60]!r}; expected a value from 0 to 255 and a "
                "name, as '3 road' or '11 unlabelled (ignore)', each only once. Mend that line."
            )
        names[value] = match["name"]
        if match["ignore"]:
            ignored.add(value)
    return names, ignored


def _pairs(root: Path, part: str) -> list[tuple[str, str]]:
    """Names of the images of a part with those of their masks, below the root, in sorted order."""
    images = _by_stem(root, Path(part, _IMAGES), EXTENSIONS)
    masks = _by_stem(root, Path(part, _MASKS), {".png"})
    where = str(root / part)
    if alone := sorted(images.keys() - masks.keys()):
        raise DataError(
            f"{len(alone)} of {len(images)} images in {where!r} have no mask: {_some(alone, images)}. Put "
            f"a PNG of the same name into {_MASKS}, or move the images away."
        )
    if alone := sorted(masks.keys() - images.keys()):
        raise DataError(
            f"{len(alone)} of {len(masks)} masks in {where!r} have no image: {_some(alone, masks)}. Put an "
            f"image of the same name into {_IMAGES}, or move the masks away."
        )
    return [(images[stem], masks[stem]) for stem in sorted(images)]


def _by_stem(root: Path, folder: Path, endings: Collection[str]) -> dict[str, str]:
    """List files of some endings at any depth: path in the folder, without ending → path below the root."""
    if not (root / folder).is_dir():
        raise DataError(
            f"{str(root / folder)!r} does not exist. Expected {_IMAGES} and {_MASKS} in the folder itself or "
            f"in its parts {_TRAIN}, {_VAL} and {_TEST}; add it, or move the part away."
        )
    found: dict[str, str] = {}
    for file in sorted((root / folder).rglob("*")):
        name = file.relative_to(root / folder)
        if name.suffix.lower() not in endings or any(piece.startswith(".") for piece in name.parts):
            continue
        stem = name.with_suffix("").as_posix()
        if stem in found:
            raise DataError(
                f"{found[stem]!r} and {name.name!r} differ only in their endings, so that it is open which "
                "image belongs to which mask. Rename or remove one of them."
            )
        found[stem] = (folder / name).as_posix()
    if not found:
        raise DataError(
            f"{str(root / folder)!r} holds no file ending in {' '.join(sorted(endings))}. Put images into "
            f"{_IMAGES} and a PNG of the same name for each into {_MASKS}, or move the part away."
        )
    return found


def _some(stems: Sequence[str], names: dict[str, str]) -> str:
    more = f" and {len(stems) - _SHOWN} more" if len(stems) > _SHOWN else ""
    return ", ".join(names[stem] for stem in stems[:_SHOWN]) + more
