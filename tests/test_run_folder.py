import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

from crosscontext.errors import RunFolderError
from crosscontext.run_folder import RunFolder, write_atomically

OWN = (
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "results.jsonl",
    "skipped.jsonl",
    "report.html",
    "encoder.safetensors",
    "checkpoints/last.ckpt",
    "checkpoints/previous.ckpt",
)


@contextmanager
def full_disk(free: int) -> Iterator[None]:
    """The system refuses to make any file longer than `free` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def used(tmp_path: Path) -> RunFolder:
    """A run folder with all files of a run and two of somebody else."""
    folder = RunFolder(tmp_path / "run")
    folder.claim()
    folder.features.mkdir()
    for name in (*OWN, "features/0123.safetensors", "notes.txt", "checkpoints/best.ckpt"):
        (folder.path / name).write_text(name)
    return folder


def test_the_files_of_a_run_bear_these_names() -> None:
    folder = RunFolder(Path())
    named = (
        folder.config,
        folder.environment,
        folder.metrics,
        folder.results,
        folder.skipped,
        folder.report,
        folder.encoder,
        folder.checkpoint,
        folder.previous_checkpoint,
    )
    assert tuple(map(str, named)) == OWN


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "today" / "x")
    folder.claim()
    assert folder.checkpoint.parent.is_dir()


def test_checking_makes_nothing(tmp_path: Path) -> None:
    for overwrite in (False, True):
        RunFolder(tmp_path / "new").check(resume=False, overwrite=overwrite)
        RunFolder(tmp_path).check(resume=False, overwrite=overwrite)
    assert files_in(tmp_path) == set()
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_is_refused_with_the_ways_out(used: RunFolder) -> None:
    with pytest.raises(RunFolderError, match=r"not empty: it holds checkpoints.*--resume.*--overwrite"):
        used.check(resume=False, overwrite=False)


def test_a_folder_that_may_be_resumed_or_overwritten_passes_and_stays_as_it_is(used: RunFolder) -> None:
    before = files_in(used.path)
    used.check(resume=True, overwrite=False)
    used.check(resume=False, overwrite=True)
    assert files_in(used.path) == before


def test_claiming_removes_the_files_of_a_run_and_nothing_else(used: RunFolder) -> None:
    used.claim()
    assert files_in(used.path) == {"notes.txt", "checkpoints/best.ckpt"}


def test_a_run_that_has_hardly_begun_can_be_replaced(used: RunFolder) -> None:
    for name in OWN[1:]:
        (used.path / name).unlink()
    used.check(resume=False, overwrite=True)
    used.claim()
    assert files_in(used.path) == {"notes.txt", "checkpoints/best.ckpt"}


def test_there_is_nothing_to_resume_without_a_checkpoint(used: RunFolder, tmp_path: Path) -> None:
    used.checkpoint.unlink()
    used.previous_checkpoint.unlink()
    for folder in (used, RunFolder(tmp_path / "absent")):
        with pytest.raises(RunFolderError, match=r"no checkpoint .*last\.ckpt to resume from"):
            folder.check(resume=True, overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_no_run_folder_and_stays(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunFolderError, match="cannot be a run folder: Not a directory"):
            RunFolder(path).check(resume=False, overwrite=overwrite)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_place_where_no_folder_can_be_made_is_refused() -> None:
    with pytest.raises(RunFolderError, match=r"cannot be written: .*Choose another --out"):
        RunFolder(Path("/proc/run")).claim()


def test_a_written_file_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        write_atomically(tmp_path / "file", partial(_write, content))
        assert (tmp_path / "file").read_bytes() == content
    assert files_in(tmp_path) == {"file"}


def test_until_the_new_file_is_whole_the_old_one_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file: BinaryIO) -> None:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"

    write_atomically(path, write)
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("accident", [ValueError("bad"), KeyboardInterrupt()], ids=repr)
def test_a_writer_that_fails_leaves_the_old_file_and_its_own_error(
    tmp_path: Path, accident: BaseException
) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def write(file: BinaryIO) -> None:
        file.write(b"half")
        raise accident

    with pytest.raises(type(accident)):
        write_atomically(tmp_path / "file", write)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert files_in(tmp_path) == {"file"}


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with full_disk(free=100), pytest.raises(RunFolderError, match=r"could not be written: File too large\."):
        write_atomically(tmp_path / "file", lambda file: file.write(b"x" * 1000))
    assert (tmp_path / "file").read_bytes() == b"old"
    assert files_in(tmp_path) == {"file"}


def test_a_missing_folder_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"absent/file could not be written: No such file or directory"):
        write_atomically(tmp_path / "absent" / "file", lambda file: file.write(b""))


def test_others_may_read_a_written_file_as_they_may_any_other(tmp_path: Path) -> None:
    write_atomically(tmp_path / "atomic", lambda file: file.write(b""))
    (tmp_path / "ordinary").touch()
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "ordinary").stat().st_mode
