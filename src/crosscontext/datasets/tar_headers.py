"""Where the files of a plain tar archive lie: bytes → **headers** → names and places. Nothing is unpacked.

Source: POSIX.1-2001, "pax interchange format" and "ustar"; GNU tar's long names. The standard library's
reader trusts its input: some versions never end on a negative length, and it reads headers of any length.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Final, NamedTuple

_BLOCK: Final = 512
_LONGEST_HEADER: Final = 2**20  # bytes of an extended header
_LARGEST_PADDING: Final = 2**20  # bytes of zeros behind the end
_FILE, _FOLDER, _LONG_NAME, _PAX, _PAX_OF_ALL = (b"0", b"\0", b"7"), b"5", b"L", b"x", b"g"
_REFUSED: Final = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a named pipe",
    b"K": "a link",
    b"S": "a sparse file",
}
_COMPRESSED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstandard
_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ([^=]+)=")


class Member(NamedTuple):
    """A file in an archive."""

    name: str

    start: int
    """Place of its first byte in the archive."""

    size: int
    """In bytes."""


def members(read: Callable[[int, int], bytes], size: int) -> Iterator[Member]:
    """List the files of an archive, in their order.

    Args:
        read: start and length → bytes of the archive.
        size: of the archive, in bytes.

    Raises:
        ValueError: the archive is compressed, truncated or damaged, or holds what no set of images needs and
            a trap would: links, devices, names that lead out of it.
    """
    place, extended = 0, dict[str, str]()
    while (header := read(place, _BLOCK)) != bytes(_BLOCK):
        kind, length = _kind_and_size(header, place, extended)
        start = place + _BLOCK
        place = start + -(-length // _BLOCK) * _BLOCK
        if start + length > size:
            raise ValueError(f"it is truncated: the entry at byte {start - _BLOCK} would end behind its end")
        if kind in (_PAX, _PAX_OF_ALL, _LONG_NAME):
            if length > _LONGEST_HEADER:
                raise ValueError(f"the extended header at byte {start - _BLOCK} has {length} bytes")
            content = read(start, length)
            found = {"path": _text(content.rstrip(b"\0"))} if kind == _LONG_NAME else _records(content)
            if kind == _PAX_OF_ALL and found:
                raise ValueError("it gives all of its files the same name or size")
            extended |= found
            continue
        name = extended.pop("path", None) or _name(header)
        extended = {}
        if kind in _FILE and not name.endswith("/"):
            yield Member(_safe(name), start, length)
        elif kind not in (_FOLDER, *_FILE):
            what = _REFUSED.get(kind, f"an entry of the unknown type {kind!r}")
            raise ValueError(f"{name!r} is {what}; expected files and folders alone")
    if size - place > _LARGEST_PADDING or any(read(place, size - place)):
        raise ValueError(f"it goes on behind its end mark at byte {place}: it is damaged, or several in one")


def _kind_and_size(header: bytes, place: int, extended: dict[str, str]) -> tuple[bytes, int]:
    """Check a header, and read what its entry is and how long.

    Raises:
        ValueError: it is none.
    """
    if len(header) < _BLOCK:
        raise ValueError(f"it is truncated: it ends at byte {place + len(header)} without an end mark")
    if place == 0 and header.startswith(_COMPRESSED):
        raise ValueError("it is compressed, and so cannot be read at any place; unpack it to a plain .tar")
    stated = re.fullmatch(rb"[ \0]*([0-7]{1,8})[ \0]*", header[148:156])
    if stated is None or sum(header) - sum(header[148:156]) + 8 * ord(" ") != int(stated[1], 8):
        raise ValueError(f"the header at byte {place} is damaged" if place else "it is no tar archive")
    kind = header[156:157]
    if kind in _FILE and "size" in extended:
        return kind, _number(extended["size"].encode(), place, base=10)
    return kind, 0 if kind == _FOLDER else _number(header[124:136], place)


def _number(field: bytes, place: int, base: int = 8) -> int:
    """Read digits, or GNU's binary form for large numbers."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:])
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]{0,12}" if base == 8 else rb"[0-9]{1,19}", digits):
        raise ValueError(f"the header at byte {place} has {field!r} for a number")
    return int(digits or b"0", base)


def _records(content: bytes) -> dict[str, str]:
    """Read name and size off the records of a pax header, each ``LENGTH KEY=VALUE`` and a new line."""
    found, place = {}, 0
    while place < len(content):
        match = _RECORD.match(content, place)
        end = place + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(content) or content[end - 1 : end] != b"\n":
            raise ValueError("an extended header is damaged")
        key = _text(match[2])
        if key.startswith("GNU.sparse"):
            raise ValueError("it holds a sparse file; expected whole ones")
        if key in ("path", "size"):
            found[key] = _text(content[match.end() : end - 1])
        place = end
    return found


def _name(header: bytes) -> str:
    name, prefix = _text(header[:100].partition(b"\0")[0]), header[345:500].partition(b"\0")[0]
    return f"{_text(prefix)}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _text(content: bytes) -> str:
    return content.decode("utf-8", errors="backslashreplace")


def _safe(name: str) -> str:
    """Spell a name without ``./``, or refuse it; nothing is unpacked, but whoever wrote it expected that."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"the name {name!r} leads out of the archive")
    return str(path)
