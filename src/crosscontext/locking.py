"""One process a folder: a lock that dies with its owner, and says who that is.

A lock of the operating system needs no clock and no guess whether its owner is alive: a killed owner has lost
it, a copied folder has none.
"""

import fcntl
import json
import os
import shlex
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from crosscontext.errors import RunFolderError
from crosscontext.run_folder import LOCK, RunFolder


class Use(NamedTuple):
    """What a folder is wanted for, as messages word it."""

    kind: str
    """What it is to be, e.g. "a run folder"."""

    busy: str
    """What another process does, up to the name of the folder, e.g. "Another process trains in"."""

    option: str
    """That chooses the folder, e.g. "--out"."""


_TRAINING = Use("a run folder", "Another process trains in", "--out")


def locked(folder: RunFolder, say: Callable[[str], None]) -> AbstractContextManager[None]:
    """Keep other processes from training in a run folder. Of several processes of one run, the first locks.

    Args:
        folder: of the run.
        say: see `take`.

    Raises:
        RunFolderError: another process has the lock, or the folder cannot be made or written.
    """
    return held(folder.path, _TRAINING, say)


@contextmanager
def held(folder: Path, use: Use, say: Callable[[str], None]) -> Iterator[None]:
    """Lock a folder for a while. If it was made for that, and nothing was written there, it is removed again.

    Args:
        folder: see `take`.
        use: see `take`.
        say: see `take`.

    Raises:
        RunFolderError: another process has the lock, or the folder cannot be made or written.
    """
    made = not folder.exists()
    with take(folder, use, say):
        try:
            yield
        finally:
            with suppress(OSError):  # the folder may have vanished, or hold something
                (folder / LOCK).unlink()
                if made:
                    folder.rmdir()


def take(folder: Path, use: Use, say: Callable[[str], None]) -> BinaryIO:
    """Lock a folder, which is made if there is none. Nobody waits: one process has it, others are refused.

    A file system without locks, as some network disks are, is used all the same: whoever has no other could
    not work at all. The folder is unprotected then, and the user is told so.

    Args:
        folder: to lock.
        use: what for.
        say: is told in one line if the file system has no locks.

    Returns:
        The open file that holds the lock until it is closed, here and in all processes that have inherited
        it. It may be removed before that; the next one to come makes another.

    Raises:
        RunFolderError: another process has the lock, or the folder cannot be made or written.
    """
    while True:
        try:
            file = _opened(folder)
        except OSError as error:
            raise RunFolderError(
                f"{folder} cannot be {use.kind}: {error.strerror}. Choose another {use.option}."
            ) from error
        if file is None:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise RunFolderError(
                f"{use.busy} {folder}: {_shown(folder / LOCK)}. "
                f"Wait for its end, stop it, or choose another {use.option}."
            ) from error
        except OSError as error:
            say(
                f"{folder} is on a file system without locks ({error.strerror}), so nothing keeps a second "
                f"process out: make sure that there is none, or choose another {use.option}"
            )
            return file
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), (folder / LOCK).stat()):
                with suppress(OSError):  # on a full disk the lock holds, too
                    file.truncate(0)
                    file.write(_owner().encode())
                    file.flush()
                return file
        file.close()  # its owner removed it between opening and locking


def _opened(folder: Path) -> BinaryIO | None:
    """Open the file to lock; None where the owner before has removed folder or file in this very moment."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        with suppress(FileNotFoundError):  # one look: between two, others remove the folder and make it anew
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise
        return None
    try:
        return (folder / LOCK).open("ab")
    except FileNotFoundError:
        if (folder / LOCK).is_symlink():
            raise
        return None


def _owner() -> str:
    about: dict[str, str | int] = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
    }
    return json.dumps(about)


def _shown(file: Path) -> str:
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        return f"process {about['process']} on {about['host']} since {about['since']}, {about['command']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its owner has not yet said who it is"
