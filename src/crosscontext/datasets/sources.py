"""Bytes of large files, at any place: paths and URLs → **sources** → shards.

Paths are read by the operating system; URLs (``s3://``, ``gs://``, ``https://``, …) by fsspec, and only where
the user has written one.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from glob import glob, has_magic
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator

from crosscontext.datasets.decoding import EXTENSIONS
from crosscontext.errors import DataError
from crosscontext.settings import absolute

_OPEN_FILES: Final = 256  # of the 1024 that a process may have open, as a rule
_TEST_PREFIXES: Final = ("test", "val")  # the first one that occurs names the test part


def is_url(text: str) -> bool:
    """Tell whether a text is a URL and no path."""
    return "://" in text


Location = Annotated[str, AfterValidator(lambda text: text if is_url(text) else str(absolute(Path(text))))]
"""Path or URL of files, also with wildcards; a path is the same from every working directory."""


class Source(ABC):
    """One file; safe to read from several threads at once."""

    name: str
    """Path or URL."""

    size: int
    """In bytes."""

    identity: str
    """Changes with the content: size and time of change, or what the storage says instead."""

    @abstractmethod
    def read(self, start: int, length: int) -> bytes:
        """Read some bytes, fewer only where the file ends.

        Raises:
            OSError: the disk fails; a URL may raise anything.
        """

    @abstractmethod
    def open(self) -> AbstractContextManager[Any]:
        """Open the file, as Python does, for a reader that looks for its bytes itself."""


class FileSource(Source):
    """A file on a disk."""

    def __init__(self, path: str) -> None:
        status = Path(path).stat()
        self.name, self.size = path, status.st_size
        self.identity = f"{status.st_size} {status.st_mtime_ns}"

    def read(self, start: int, length: int) -> bytes:
        """Read some bytes; nothing but these is asked for."""
        file, pieces = _file(self.name, self.identity), []
        while length > 0 and (piece := os.pread(file.fileno(), length, start)):
            pieces.append(piece)
            start, length = start + len(piece), length - len(piece)
        return b"".join(pieces)

    def open(self) -> AbstractContextManager[Any]:
        """Open the file once more."""
        return Path(self.name).open("rb")


class UrlSource(Source):
    """A file behind a URL."""

    def __init__(self, url: str) -> None:
        self.name = url
        self._system, self._path = _system_of(url)
        self.size = int(self._system.info(self._path)["size"])
        self.identity = str(self._system.ukey(self._path))

    def read(self, start: int, length: int) -> bytes:
        """Ask for a range."""
        return bytes(self._system.cat_file(self._path, start=start, end=min(start + length, self.size)))

    def open(self) -> AbstractContextManager[Any]:
        """Open a reader, which asks for ranges."""
        opened: AbstractContextManager[Any] = self._system.open(self._path, "rb")
        return opened


def open_sources(locations: Sequence[str]) -> list[Source]:
    """Find the files that paths, URLs and wildcards mean, those of each wildcard in sorted order.

    Raises:
        DataError: there is no such file, one is meant twice, or what reads such a URL is not installed.
    """
    sources: list[Source] = []
    for location in locations:
        kind = UrlSource if is_url(location) else FileSource
        try:
            sources += [kind(found) for found in _found(location)]
        except DataError:
            raise
        except Exception as cause:  # what reads URLs raises errors of its own
            raise DataError(
                f"cannot open {location!r}: {type(cause).__name__}: {cause}. Check the name, the rights and, "
                "for a URL, the connection."
            ) from cause
    names = [source.name for source in sources]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{twice[0]!r} is named twice. Name each file once.")
    return sources


def short_names(sources: Sequence[Source]) -> list[str]:
    """Name files by what sets them apart: their paths without the folder that they have in common."""
    names = [source.name for source in sources]
    common = len(os.path.commonprefix(names).rpartition("/")[0])  # noqa: RUF071 (cut at a slash; URLs are no paths)
    return [name[common:].lstrip("/") for name in names]


def parts_in(folder: Path, ending: str) -> dict[str, list[str]] | None:
    """Spell out a folder of shards, or its sub-folder `data`: where its parts lie, by the names of the files.

    Args:
        folder: perhaps of shards.
        ending: of the shards.

    Returns:
        Settings `shards` and, where some names begin with test or val, `test_shards`; None where the folder
        has no such files, or images beside them.
    """
    for place in (folder, folder / "data"):
        names = [path.name for path in place.glob(f"*{ending}")] if place.is_dir() else []
        if not names or any(path.suffix.lower() in EXTENSIONS for path in place.rglob("*")):
            continue  # an archive beside what was unpacked from it is none of the shards
        starts = [start for start in _TEST_PREFIXES if any(name.startswith(start) for name in names)]
        if not starts or not any(name.startswith("train") for name in names):
            return {"shards": [str(place / f"*{ending}")]}
        return {
            "shards": [str(place / f"train*{ending}")],
            "test_shards": [str(place / f"{starts[0]}*{ending}")],
        }
    return None


class _File:
    """An open file, closed when nobody reads from it any longer."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)

    def fileno(self) -> int:
        return self._descriptor

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


@lru_cache(maxsize=_OPEN_FILES)
def _file(path: str, identity: str) -> _File:  # noqa: ARG001 (a file that was replaced is another one)
    """Open a file, or take the one that is open."""
    return _File(path)


def _found(location: str) -> list[str]:
    if is_url(location):
        system, path = _system_of(location)
        if not has_magic(location):
            return [location]
        found = [str(system.unstrip_protocol(name)) for name in system.glob(path)]
    else:
        found = [location] if Path(location).exists() or not has_magic(location) else glob(location)  # noqa: PTH207
    if not found:
        raise FileNotFoundError("no file has such a name")
    return sorted(found)


def _system_of(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise DataError(
            f'{url!r} needs fsspec, which is not installed: pip install "crosscontext[remote]".'
        ) from error
    system, path = url_to_fs(url)
    return system, path
