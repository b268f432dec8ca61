"""What lies in a tar shard: its headers, or an index kept from before → **index** → samples.

Layout of webdataset: ``KEY.jpg`` and, for its class, ``KEY.cls`` or the entry ``label`` of ``KEY.json``.
"""

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from crosscontext.datasets.decoding import EXTENSIONS
from crosscontext.datasets.sources import FileSource, Source
from crosscontext.datasets.tar_headers import Member, members
from crosscontext.errors import DataError, RunFolderError
from crosscontext.run_folder import write_atomically

_AT_ONCE: Final = 2**20  # bytes that a request over the network, or for a checksum, asks for
_LARGEST_LABEL: Final = 2**20
_NAMED_AT_MOST: Final = 5


class Sample(NamedTuple):
    """One image in a shard."""

    name: str
    start: NonNegativeInt
    size: NonNegativeInt
    class_name: str | None
    checksum: int | None
    """CRC-32 of its bytes; None where the shard was not read as a whole."""


class _Index(BaseModel):
    """The file beside which a shard need not be looked through again."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format_version: Literal[1] = 1
    shard: str
    """Size and time of change, or what the storage says instead."""

    samples: list[Sample]
    digest: str
    """Of the samples."""


def samples_of(source: Source, name: str, folder: Path | None) -> list[Sample]:
    """List the images of a shard.

    Args:
        source: the shard.
        name: of its index.
        folder: where indices are kept: the one of this shard is taken if it fits, else the shard is read as a
            whole and its index written. Without a folder the headers alone are read, and nothing is written.

    Raises:
        DataError: the shard is none, truncated or damaged, or the folder cannot be written.
    """
    if folder is None:
        return _scan(source, with_checksums=False)
    file = folder / f"{name.replace('/', '%')}.index.json"
    samples = _kept(file, source)
    if samples is None:
        samples = _scan(source, with_checksums=True)
        index = _Index(shard=source.identity, samples=samples, digest=_digest(samples))
        content = index.model_dump_json().encode()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(file, lambda opened: opened.write(content))
        except (OSError, RunFolderError) as error:
            raise DataError(
                f"the index {str(file)!r} cannot be written: {error}. Give another folder with --data.index, "
                "or leave it out."
            ) from error
    return samples


def read_sample(source: Source, sample: Sample) -> bytes:
    """Read the bytes of one image, and nothing else.

    Raises:
        ValueError: they are not those of which the checksum was made, or the shard ends before.
    """
    content = source.read(sample.start, sample.size)
    if len(content) < sample.size:
        raise ValueError(f"the shard {source.name} ends too early: it is truncated, or was replaced")
    if sample.checksum is not None and zlib.crc32(content) != sample.checksum:
        raise ValueError(f"its bytes in {source.name} have changed since the index was made")
    return content


def _kept(file: Path, source: Source) -> list[Sample] | None:
    """Read an index; None where there is none, or one that is damaged or of other bytes: it is made anew."""
    try:
        index = _Index.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
    fits = index.shard == source.identity and index.digest == _digest(index.samples)
    inside = all(sample.start + sample.size <= source.size for sample in index.samples)
    return index.samples if fits and inside else None


def _digest(samples: Sequence[Sample]) -> str:
    return hashlib.sha256(json.dumps(samples).encode()).hexdigest()[:16]


def _scan(source: Source, *, with_checksums: bool) -> list[Sample]:
    ahead = _AT_ONCE if with_checksums or not isinstance(source, FileSource) else 0
    window = _Window(source, ahead)
    images: list[tuple[str, Member, int | None]] = []
    classes: dict[str, str] = {}
    endings: Counter[str] = Counter()
    try:
        for member in members(window.read, source.size):
            folder, slash, file = member.name.rpartition("/")
            stem, _, ending = file.partition(".")
            key, ending = f"{folder}{slash}{stem}", f".{ending.lower()}"
            endings[ending] += 1
            if ending in EXTENSIONS:
                images.append((key, member, _checksum(window, member) if with_checksums else None))
            elif ending in (".cls", ".json") and (key not in classes or ending == ".cls"):
                class_name = _class_name(window, member, ending)
                classes.update({key: class_name} if class_name is not None else {})
    except ValueError as cause:
        raise DataError(
            f"the shard {source.name!r} cannot be used: {cause}. Expected a plain tar file of images; fetch "
            "or make it again."
        ) from cause
    except Exception as cause:  # the disk or the network; what reads URLs raises errors of its own
        raise DataError(f"cannot read the shard {source.name!r}: {cause}. Try again.") from cause
    if not images:
        seen = ", ".join(f"{ending} ({n})" for ending, n in endings.most_common(_NAMED_AT_MOST))
        raise DataError(
            f"the shard {source.name!r} holds no image; endings seen: {seen or 'none'}. Known endings: "
            f"{' '.join(sorted(EXTENSIONS))}, behind the first dot of the name. Rename the files, or leave "
            "the shard out."
        )
    if twice := [name for name, n in Counter(member.name for _, member, _ in images).items() if n > 1]:
        raise DataError(
            f"the shard {source.name!r} holds {twice[0]!r} twice. Make it again with each file once."
        )
    return [Sample(*member, classes.get(key), checksum) for key, member, checksum in images]


def _class_name(window: "_Window", member: Member, ending: str) -> str | None:
    """Read the class of a sample.

    Raises:
        ValueError: the file is too long for a class, or no text; it is no JSON.
    """
    if member.size > _LARGEST_LABEL:
        raise ValueError(f"{member.name!r}, the class of an image, has {member.size} bytes")
    content = window.read(member.start, member.size)
    try:
        if ending == ".cls":
            label: object = content.decode().strip()
        else:
            described = json.loads(content)
            label = described.get("label") if isinstance(described, dict) else None
    except (ValueError, RecursionError) as cause:
        raise ValueError(f"{member.name!r} gives no class: {cause}") from cause
    return str(label) if isinstance(label, str | int) and label != "" else None


def _checksum(window: "_Window", member: Member) -> int:
    value, end = 0, member.start + member.size
    for start in range(member.start, end, _AT_ONCE):
        value = zlib.crc32(window.read(start, min(_AT_ONCE, end - start)), value)
    return value


class _Window:
    """The bytes around the place that was read last: a source read from its beginning to its end.

    Args:
        source: the shard.
        ahead: bytes to ask for at least.
    """

    def __init__(self, source: Source, ahead: int) -> None:
        self._source, self._ahead = source, ahead
        self._start, self._bytes = 0, b""

    def read(self, start: int, length: int) -> bytes:
        """Read some bytes, fewer only at the end."""
        if not self._start <= start <= start + length <= self._start + len(self._bytes):
            self._start, self._bytes = start, self._source.read(start, max(length, self._ahead))
        return self._bytes[start - self._start :][:length]
