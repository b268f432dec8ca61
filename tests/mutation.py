"""Bytes that are nearly right: some are changed, left out, doubled, cut, or taken from another example."""

import sys
from collections.abc import Callable, Sequence
from random import Random
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")
INTERESTING = (
    b"\0", b"\xff", b"\x80", b"\x7f", b"\n", b"\0" * 8, b"\xff" * 8, b"-1", b"99999999999999999999", b"1e999",
    b"NaN", b"Infinity", b"../", b"/dev/zero", b"[" * 50, b"{", b"}", b'"', b"<", b">", b"&x;", b"*a", b"&a ",
    b"!!python/object/apply:os.system ", b"<!DOCTYPE x>", b"null", b"true", b"\xed\xa0\x80", b"~x", b": ",
)  # fmt: skip


def mutated(examples: Sequence[bytes], random: Random) -> bytes:
    """Change one of the examples in one to six places."""
    content = bytearray(random.choice(examples))
    for _ in range(random.choice((1, 1, 2, 3, 6))):
        start = random.randrange(len(content) + 1)
        length = min(len(content) - start, random.choice((1, 1, 2, 4, 16, 200)))
        match random.randrange(8):
            case 0 if length:
                content[start] ^= 1 << random.randrange(8)
            case 1 if length:
                content[start] = random.randrange(256)
            case 2:
                del content[start : start + length]
            case 3:
                content[start : start + length] = random.choice(INTERESTING)
            case 4:
                content[start:start] = random.choice(INTERESTING)
            case 5:
                content[start:start] = content[start : start + length] * random.choice((1, 2, 30))
            case 6:
                other = random.choice(examples)
                place = random.randrange(len(other) + 1)
                content[start : start + length] = other[place : place + length]
            case _ if random.random() < 0.3:
                del content[start:]
            case _:
                content[start : start + length] = random.randbytes(length)
    return bytes(content)


def with_lines(act: Callable[[], Result], package: str) -> tuple[Result, set[tuple[str, int]]]:
    """Do something, and tell which lines of a package that ran."""
    seen: set[tuple[str, int]] = set()

    def inside(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
        return inside

    def outside(frame: FrameType, event: str, argument: Any) -> Any:
        return inside(frame, event, argument) if package in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(outside)
    try:
        return act(), seen
    finally:
        sys.settrace(before)
