import errno
import fcntl
import os
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from conftest import quiet
from crosscontext import crew, image_index
from crosscontext.errors import RunFolderError
from crosscontext.locking import locked
from crosscontext.pretraining import pretrain
from crosscontext.run_folder import RunFolder
from tiny_run import settings


def test_a_second_one_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    complaint = rf"Another process trains in .*run: process {os.getpid()} on .* since .*Choose|choose another"
    with locked(folder, quiet), pytest.raises(RunFolderError, match=complaint), locked(folder, quiet):
        pass
    with locked(folder, quiet):
        pass


def test_a_second_launch_on_a_run_folder_changes_nothing_there(image_folder: Path, tmp_path: Path) -> None:
    run = settings(image_folder, tmp_path / "run", steps=2)
    folder = pretrain(run)
    with locked(folder, quiet):
        before = {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}
        for how in ("resume", "overwrite"):
            with pytest.raises(RunFolderError, match="Another process trains"):
                pretrain(run.model_copy(update={how: True}))
        assert {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()} == before
    pretrain(run.model_copy(update={"resume": True}))


def test_a_killed_owner_has_lost_its_lock_and_a_copy_has_none(tmp_path: Path) -> None:
    folder, copy = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "copy")
    ready, tell = os.pipe()
    owner = os.fork()
    if owner == 0:
        with locked(folder, quiet):
            os.write(tell, b".")
            signal.pause()
    os.read(ready, 1)
    try:
        shutil.copytree(folder.path, copy.path)
        with locked(copy, quiet):
            pass
        with pytest.raises(RunFolderError, match=f"process {owner} on"), locked(folder, quiet):
            pass
    finally:
        os.kill(owner, signal.SIGKILL)
        os.waitpid(owner, 0)
    assert folder.lock.exists()
    with locked(folder, quiet):
        pass


def test_nothing_is_left_where_nothing_was_written(tmp_path: Path) -> None:
    with locked(RunFolder(tmp_path / "new"), quiet):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    with locked(RunFolder(tmp_path / "mine"), quiet):
        pass
    assert list((tmp_path / "mine").iterdir()) == []
    with locked(RunFolder(tmp_path / "run"), quiet):
        (tmp_path / "run" / "file").touch()
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["file"]


def test_a_folder_that_vanishes_under_its_owner_is_no_error_of_the_lock(tmp_path: Path) -> None:
    with locked(RunFolder(tmp_path / "run"), quiet):
        shutil.rmtree(tmp_path / "run")


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        with (
            pytest.raises(RunFolderError, match=r"cannot be a run folder: .*Choose another --out"),
            locked(RunFolder(path), quiet),
        ):
            pass


Claim = Callable[[Path, Callable[[str], None]], AbstractContextManager[object]]
CLAIMS: list[Claim] = [
    lambda path, say: locked(RunFolder(path), say),
    crew.claimed,
    image_index.claimed,
]


@pytest.mark.parametrize("claim", CLAIMS, ids=["run", "study", "index"])
def test_a_file_system_without_locks_is_used_with_a_warning(
    tmp_path: Path, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without_locks)
    said: list[str] = []
    with claim(tmp_path / "folder", said.append):
        assert (tmp_path / "folder").is_dir()
    (line,) = said
    assert "is on a file system without locks (No locks available)" in line
    assert "make sure that there is none, or choose another --" in line


@pytest.mark.parametrize("claim", CLAIMS, ids=["run", "study", "index"])
def test_a_lock_file_that_its_owner_removes_is_never_held_by_two(tmp_path: Path, claim: Claim) -> None:
    inside, refusals = tmp_path / "inside", list[str]()

    def come_and_go(_: int) -> int:
        times = 0
        for _ in range(200):
            try:
                with claim(tmp_path / "folder", quiet):
                    inside.touch(exist_ok=False)
                    inside.unlink()
                    times += 1
            except RunFolderError as error:
                refusals.append(str(error))
        return times

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(come_and_go, range(4))) > 0
    assert [refusal for refusal in refusals if not refusal.startswith("Another ")] == []


def test_a_lock_file_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "nowhere" / "lock")
    with pytest.raises(RunFolderError, match="cannot be a run folder"), locked(RunFolder(tmp_path), quiet):
        pass
