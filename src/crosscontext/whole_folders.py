"""A folder that appears at once, with all its files, or not at all."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crosscontext.errors import RunFolderError

_NAMED_AT_MOST = 5


@contextmanager
def written_whole(
    out: Path, *, overwrite: bool, is_ours: Callable[[str], bool] = lambda _: True
) -> Iterator[Path]:
    """Write the files of a folder beside its place, and move it there when all are written.

    Args:
        out: the place; folders above it are made.
        overwrite: an earlier folder may be replaced.
        is_ours: whether a file of this name in an earlier folder may go; if any may not, the folder stays.

    Yields:
        An empty folder to write into. If that raises, nothing is left of it.

    Raises:
        RunFolderError: something is in the way, or the place cannot be written.
    """
    out = out.expanduser().absolute()
    _refuse_what_is_in_the_way(out, overwrite, is_ours)
    staged = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        staged.mkdir(parents=True)
    except OSError as error:
        raise _unwritable(out, error) from error
    try:
        try:
            yield staged
        except OSError as error:
            raise _unwritable(out, error) from error
        _refuse_what_is_in_the_way(out, overwrite, is_ours)
        try:
            _move(staged, out)
        except OSError as error:
            raise _unwritable(out, error) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _refuse_what_is_in_the_way(out: Path, overwrite: bool, is_ours: Callable[[str], bool]) -> None:
    try:
        there = sorted(entry.name for entry in out.iterdir())
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise RunFolderError(f"{out} or what is above it is a file. Name a folder with --out.") from error
    except OSError as error:
        raise _unwritable(out, error) from error
    if there and not overwrite:
        raise RunFolderError(
            f"The folder {out} is not empty: it holds {', '.join(there[:_NAMED_AT_MOST])}. "
            "Replace it with --overwrite, or choose another --out."
        )
    if foreign := [name for name in there if not is_ours(name)]:
        raise RunFolderError(
            f"The folder {out} holds {', '.join(foreign[:_NAMED_AT_MOST])}, which was not written by such a "
            "command, and which --overwrite would remove. Choose another --out."
        )


def _move(staged: Path, out: Path) -> None:
    for file in (entry for entry in staged.rglob("*") if entry.is_file()):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    old = staged.with_name(f"{staged.name}.old")
    has_old = out.is_dir() and any(out.iterdir())
    if has_old:
        out.rename(old)
    try:
        staged.rename(out)
    except OSError:
        if has_old:
            with suppress(OSError):
                old.rename(out)
        raise
    if has_old:
        shutil.rmtree(old, ignore_errors=True)


def _unwritable(out: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"{out} could not be written: {error.strerror or error}. Nothing is left of it. "
        "Make room or choose another --out."
    )
