import os
import subprocess
from pathlib import Path

import pytest

from conftest import quiet
from crosscontext.crew import claimed
from crosscontext.errors import RunFolderError


def test_two_studies_do_not_share_a_folder_of_runs(tmp_path: Path) -> None:
    with (
        claimed(tmp_path, quiet),
        pytest.raises(RunFolderError, match=rf"Another study.* is at work in .*: process {os.getpid()} on "),
        claimed(tmp_path, quiet),
    ):
        pass
    with claimed(tmp_path, quiet):
        pass  # free again


def test_a_process_that_is_left_behind_keeps_its_folder(tmp_path: Path) -> None:
    with claimed(tmp_path, quiet) as lock:
        orphan = subprocess.Popen(["sleep", "60"], pass_fds=(lock,))
    try:
        with (
            pytest.raises(RunFolderError, match="a process that one has left behind"),
            claimed(tmp_path, quiet),
        ):
            pass
    finally:
        orphan.kill()
        orphan.wait()
    with claimed(tmp_path, quiet):
        pass  # free again


def test_a_folder_of_runs_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunFolderError, match=r"cannot be a folder of runs: .*Choose another --runs"),
        claimed(tmp_path / "file", quiet),
    ):
        pass
