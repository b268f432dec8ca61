"""Sets in the layout of Pascal VOC: JPEGImages, Annotations, ImageSets/Main → **voc** → images and boxes.

Source: Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, and its devkit.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree import ElementTree

import numpy as np

from crosscontext.datasets.boxed import BoxedFiles, inside, is_file
from crosscontext.datasets.contract import Boxes, Splits
from crosscontext.datasets.decoding import EXTENSIONS
from crosscontext.errors import DataError
from crosscontext.settings import AbsolutePath, Settings
from crosscontext.shapes import Float64

_IMAGES, _ANNOTATIONS, _LISTS = "JPEGImages", "Annotations", "ImageSets/Main"
_TRAIN_BEFORE_TEST, _TRAIN_BEFORE_VAL = ("trainval", "train"), ("train",)
_NAMED_AT_MOST = 5
_LARGEST_ANNOTATION = 2**24  # bytes
_LARGEST_SIDE = 2**20  # pixels


class VocSettings(Settings):
    """A folder in the layout of Pascal VOC: JPEGImages, Annotations and, for the parts, ImageSets/Main."""

    name: Literal["voc"] = "voc"
    """A folder in the layout of Pascal VOC."""

    path: AbsolutePath
    """The folder."""

    train: str = "auto"
    """List of the training images, a file in ImageSets/Main without its ending, e.g. trainval; auto: beside
    the list test trainval or else train, beside the list val train, and without lists all images."""

    test: str = "auto"
    """List of the test images; auto: test, or else val unless trainval is learned from, or else none."""

    class_names: tuple[str, ...] = ()
    """What the boxes may show; by default whatever the annotations of both parts name."""

    def open(self) -> Splits:
        """Read the lists and all annotations of both parts; no image is read yet.

        In the files, pixels are counted from 1, and a box ends with its last pixel; here the top left corner
        of the image is (0, 0), and a box ends behind its last pixel.

        Raises:
            DataError: a folder, a list, an annotation or an image is missing or damaged, a box shows what is
                not among the class names, or an image is in both parts.
        """
        train_list, test_list = self._lists()
        files = _image_files(self.path)
        train = _read(self.path, _listed(self.path, train_list, files))
        test = None if test_list is None else _read(self.path, _listed(self.path, test_list, files))
        if test is not None and (both := sorted({a.stem for a in train} & {a.stem for a in test})):
            raise DataError(
                f"{len(both)} images of {self.path} are in both lists, {train_list} and {test_list}: "
                f"{', '.join(both[:_NAMED_AT_MOST])}. Take them out of one: no image may be judged that was "
                "learned from."
            )
        class_names = self._class_names([*train, *(test or [])])
        root = self.path / _IMAGES
        return Splits(
            _dataset(root, train, files, class_names),
            None if test is None else _dataset(root, test, files, class_names),
        )

    def _class_names(self, annotated: "Sequence[_Annotated]") -> tuple[str, ...]:
        """Settle the classes, and make sure that the boxes show nothing else."""
        if not self.class_names:
            return tuple(sorted({name for image in annotated for name in image.shown}))
        for image in annotated:
            if unknown := sorted(set(image.shown) - set(self.class_names)):
                raise DataError(
                    f"{self.path / _ANNOTATIONS / image.stem}.xml shows {', '.join(unknown)}, which is not "
                    f"among the classes {', '.join(self.class_names)}. Correct it, or extend class_names."
                )
        return self.class_names

    def _lists(self) -> tuple[str | None, str | None]:
        """Settle which lists hold the two parts; None stands for all images, or for no test part."""
        there = {path.stem for path in (self.path / _LISTS).glob("*.txt")}
        train, test = self.train, self.test
        if test == "auto":
            candidates = ("test",) if train == "trainval" else ("test", "val")
            test = next((name for name in candidates if name in there and name != train), "")
        if train == "auto":
            candidates = _TRAIN_BEFORE_VAL if test == "val" else _TRAIN_BEFORE_TEST
            train = next((name for name in candidates if name in there), "")
        if missing := {train, test} - there - {""}:
            raise DataError(
                f"There is no list {', '.join(sorted(missing))} in {self.path / _LISTS}; there are "
                f"{', '.join(sorted(there)) or 'none'}. Name one of them."
            )
        if there and not train:
            raise DataError(
                f"None of the lists {', '.join(sorted(there))} in {self.path / _LISTS} is known to be the "
                "training part. Name it with data.train."
            )
        return train or None, test or None


def recognises(folder: Path) -> bool:
    """Tell whether a folder has the layout of Pascal VOC."""
    return (folder / _IMAGES).is_dir() and (folder / _ANNOTATIONS).is_dir()


class _Annotated(NamedTuple):
    """What one annotation file says."""

    stem: str
    shown: list[str]
    """Class name of each box that is kept."""

    corners: Float64[np.ndarray, "M 4"]
    difficult: list[bool]
    causes: list[str]
    """What is wrong with each box that is left out."""


def _image_files(root: Path) -> dict[str, str]:
    """Find the image files: name without ending → name."""
    folder = root / _IMAGES
    if not folder.is_dir():
        raise DataError(f"{root} has no folder {_IMAGES}. Give a folder in the layout of Pascal VOC.")
    names = sorted((p.name for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS), reverse=True)
    return {Path(name).stem: name for name in names}


def _listed(root: Path, part: str | None, files: Mapping[str, str]) -> list[str]:
    """Read which images belong to a part, without their endings."""
    if part is None:
        return sorted(files)
    path = root / _LISTS / f"{part}.txt"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"The list {path} cannot be read: {error}. Give a text file.") from error
    stems = [line.split()[0] for line in text.splitlines() if line.strip()]
    if not stems:
        raise DataError(f"The list {path} is empty. Fill it, or name another list.")
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise DataError(f"The list {path} names {twice} more than once. Name each image once.")
    return stems


def _read(root: Path, stems: Sequence[str]) -> list[_Annotated]:
    folder = root / _ANNOTATIONS
    if outside := [stem for stem in stems if Path(stem).is_absolute() or ".." in Path(stem).parts]:
        raise DataError(
            f"A list of {root} names {outside[0]!r}, which leads out of it. Take it out of the list."
        )
    missing = [stem for stem in stems if not is_file(folder / f"{stem}.xml")]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(stems)} images have no annotation file in {folder}: "
            f"{', '.join(missing[:_NAMED_AT_MOST])}. Add the files (one without objects says that there is "
            "nothing to find), or take the images out of the list."
        )
    return [_parse(folder / f"{stem}.xml") for stem in stems]


def _parse(path: Path) -> _Annotated:
    try:
        if path.stat().st_size > _LARGEST_ANNOTATION:
            raise ValueError(f"it has more than {_LARGEST_ANNOTATION} bytes")
        parser = ElementTree.XMLParser(target=_WithoutDoctype())
        root = ElementTree.parse(path, parser).getroot()
        objects = root.findall("object")
        width, height = (_number(root, f"size/{side}") for side in ("width", "height"))
        edges = [[_number(o, f"bndbox/{e}") for e in ("xmin", "ymin", "xmax", "ymax")] for o in objects]
        names = [_text(o, "name") for o in objects]
        difficult = [(o.findtext("difficult") or "0").strip() == "1" for o in objects]
    except (ElementTree.ParseError, LookupError, ValueError, OSError) as error:
        raise DataError(
            f"{path} is no annotation of Pascal VOC: {error}. Correct it, or take the image out of the list."
        ) from error
    if not (1 <= width <= _LARGEST_SIDE and 1 <= height <= _LARGEST_SIDE):
        raise DataError(
            f"{path} gives its image a size of {width:g} × {height:g} pixels. Write the true size."
        )
    corners, kept, causes = inside(np.array(edges, dtype=np.float64).reshape(-1, 4), width, height)
    corners[:, :2] = np.maximum(corners[:, :2] - 1, 0)
    chosen = np.flatnonzero(kept).tolist()
    return _Annotated(
        path.stem, [names[i] for i in chosen], corners[kept], [difficult[i] for i in chosen], causes
    )


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses a document type: a few lines of entities in it can stand for gigabytes of text."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError(f"it declares a document type {name!r:.60}, which no annotation needs")


def _text(element: ElementTree.Element, tag: str) -> str:
    text = (element.findtext(tag) or "").strip()
    if not text:
        raise ValueError(f"<{element.tag}> has no <{tag}>")
    return text


def _number(element: ElementTree.Element, tag: str) -> float:
    number = float(_text(element, tag))
    if not math.isfinite(number):
        raise ValueError(f"<{tag}> is {number}")
    return number


def _dataset(
    root: Path, annotated: Sequence[_Annotated], files: Mapping[str, str], class_names: tuple[str, ...]
) -> BoxedFiles:
    number = {class_name: index for index, class_name in enumerate(class_names)}
    names = [files.get(a.stem, f"{a.stem}.jpg") for a in annotated]
    boxes = [
        Boxes(
            a.corners.astype(np.float32),
            np.array([number[name] for name in a.shown], dtype=np.int64),
            np.array(a.difficult, dtype=bool),
        )
        for a in annotated
    ]
    left_out = {name: a.causes for name, a in zip(names, annotated, strict=True) if a.causes}
    return BoxedFiles(root, names, boxes, class_names, left_out)
