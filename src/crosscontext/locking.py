"""One process a run folder: a lock that dies with its owner, and says who that is.

A lock of the operating system needs no clock and no guess whether its owner is alive: a killed owner has lost
it, a copied folder has none.
"""

import fcntl
import json
import os
import shlex
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from crosscontext.errors import RunFolderError
from crosscontext.run_folder import RunFolder


@contextmanager
def locked(folder: RunFolder, say: Callable[[str], None]) -> Iterator[None]:
    """Keep other processes from training in a run folder. Of several processes of one run, the first locks.

    The folder is made if there is none; if nothing was written there in the end, it is removed again.

    Args:
        folder: of the run.
        say: is told in one line if the file system has no locks, as some network disks do not.

    Raises:
        RunFolderError: another process has the lock, or the folder cannot be made or written.
    """
    made = not folder.path.exists()
    with _locked_file(folder, say) as file:
        with suppress(OSError):  # on a full disk the lock holds, too
            file.truncate(0)
            file.write(_owner().encode())
            file.flush()
        try:
            yield
        finally:
            with suppress(OSError):  # the folder may have vanished, or hold a run
                folder.lock.unlink()
                if made:
                    folder.path.rmdir()


def _locked_file(folder: RunFolder, say: Callable[[str], None]) -> BinaryIO:
    while True:
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            file = folder.lock.open("ab")
        except OSError as error:
            raise RunFolderError(
                f"{folder.path} cannot be a run folder: {error.strerror}. Choose another --out."
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise RunFolderError(
                f"Another process trains in {folder.path}: {_shown(folder.lock)}. "
                "Wait for its end, stop it, or choose another --out."
            ) from error
        except OSError as error:
            say(
                f"{folder.path} is on a file system without locks ({error.strerror}): "
                "make sure that no other process trains there"
            )
            return file
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), folder.lock.stat()):
                return file
        file.close()  # its owner removed it between opening and locking


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
