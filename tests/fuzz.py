"""Knock at all doors with damaged bytes: ``python tests/fuzz.py --inputs 100000``, or `make fuzz`.

An input that runs lines of the package which none before it ran becomes an example for further ones.
"""

import argparse
import faulthandler
import math
import os
import resource
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from crosscontext.errors import CrossContextError
from doors import Door, doors
from mutation import mutated, with_lines

PACKAGE = str(Path("src", "crosscontext"))
SLOW = {"arguments": 50, "checkpoint": 10, "settings": 4, "tar index": 4}
"""Doors that get so many times fewer inputs, since each takes long."""

LARGEST_EXAMPLE = 2**16
"""Bytes of what the fuzzer keeps to go on from."""

LONGEST = 60.0
"""Seconds after which an input counts as hanging, and the process ends with a trace."""

MOST_MEMORY = 1000
"""Megabytes by which a door may let the process grow."""

_FORBIDDEN = (
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate",
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "socket.bind",
    "socket.getaddrinfo", "socket.sendto", "pty.spawn", "ctypes.dlopen", "urllib.Request",
)  # fmt: skip


class Outcome(NamedTuple):
    """What became of the inputs of one door."""

    inputs: int
    accepted: int
    refused: Counter[str]
    """Kind of error → how many."""

    new_examples: int


class FindingError(AssertionError):
    """An input did what none may do."""


class Watch:
    """Notes what reading a file does not need: writing, starting programs, the network."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._active = False
        self._allowed = ""
        sys.addaudithook(self._hear)  # stays for the life of the process

    @contextmanager
    def over(self, allowed: Path) -> Iterator[None]:
        """Watch; only below one folder may be written."""
        self.seen, self._allowed, self._active = [], str(allowed), True
        try:
            yield
        finally:
            self._active = False

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active:
            return
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not str(path).startswith((self._allowed, "/dev/null")):
                self.seen.append(f"open {path!r} for writing")
        elif event in _FORBIDDEN and not str(arguments[:1]).startswith(f"('{self._allowed}"):
            self.seen.append(f"{event} {arguments!r}"[:200])


WATCH = Watch()


def knock(door: Door, folder: Path, content: bytes) -> str:
    """Give one input to a door.

    Returns:
        The kind of error that came out; empty where the input was taken.

    Raises:
        FindingError: another error came out, or something was written, started or connected to.
    """
    file = folder / door.file
    file.write_bytes(content)
    kind = ""
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    with WATCH.over(folder / "index"):
        try:
            door.enter(file)
        except CrossContextError as error:
            kind = type(error).__name__
            if not str(error).strip():
                raise FindingError(f"an empty message: {content[:500]!r}") from error
        except Exception as error:
            raise FindingError(f"{type(error).__name__}: {error}, from {content[:2000]!r}") from error
        finally:
            faulthandler.cancel_dump_traceback_later()
    if WATCH.seen:
        raise FindingError(f"{WATCH.seen[0]}, from {content[:2000]!r}")
    return kind


def fuzz(name: str, door: Door, folder: Path, inputs: int, seed: int, *, guided: bool = True) -> Outcome:
    """Knock at one door many times, always in the same way for the same seed.

    Raises:
        FindingError: see `knock`.
    """
    random = Random(seed ^ zlib.crc32(name.encode()))
    examples, covered = list(door.examples), set[tuple[str, int]]()
    results: Counter[str] = Counter()
    for number in range(inputs):
        content = door.examples[number] if number < len(door.examples) else mutated(examples, random)
        act = partial(knock, door, folder, content)
        kind, lines = with_lines(act, PACKAGE) if guided else (act(), set())
        if lines - covered and number >= len(door.examples) and len(content) < LARGEST_EXAMPLE:
            examples.append(content)
        covered |= lines
        results[kind] += 1
    accepted = results.pop("", 0)
    return Outcome(inputs, accepted, results, len(examples) - len(door.examples))


def main() -> None:
    """Fuzz all doors, or those named, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--doors", nargs="*", default=[])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of which decoders have many for damaged files
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        found = {
            name: door
            for name, door in doors(folder).items()
            if name in arguments.doors or not arguments.doors
        }
        each = math.ceil(arguments.inputs / sum(1 / SLOW.get(name, 1) for name in found)) + max(SLOW.values())
        for name, door in found.items():
            began, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            outcome = fuzz(name, door, folder, each // SLOW.get(name, 1), arguments.seed)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
            if grown > MOST_MEMORY:
                raise FindingError(f"{name} took {grown:.0f} MB")
            refused = ", ".join(f"{kind} {count}" for kind, count in outcome.refused.most_common())
            print(
                f"{name:12} {outcome.inputs} inputs, {outcome.accepted} accepted, {refused}; "
                f"{outcome.new_examples} new examples; {time.monotonic() - began:.0f} s, +{grown:.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
