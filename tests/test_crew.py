import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import quiet
from crosscontext.crew import claimed, work
from crosscontext.errors import RunFolderError
from crosscontext.study_runs import StudyRun
from trained_run import small_runs, train


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


def failures_of(run: StudyRun, folder: Path) -> list[str]:
    """Work on one run; it is not finished."""
    said: list[str] = []
    with claimed(folder, quiet) as lock:
        failures = work([run], 1, lock, said.append, lambda run: quiet(run.name))
    assert said[1:] == [f"{run.name}: {failure.cause}; log: {run.log}" for failure in failures]
    return [failure.cause for failure in failures]


def pretend(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a shell script be the program that does the work."""
    program = folder / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_a_run_that_cannot_be_started_has_failed_and_stops_no_other(tmp_path: Path) -> None:
    _, (run, _) = small_runs(tmp_path)
    run.log.mkdir(parents=True)
    (cause,) = failures_of(run, tmp_path)
    assert cause.startswith("cannot be started: [Errno 21] Is a directory: ")


def test_a_silent_death_is_not_explained_by_an_older_complaint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (run, _) = small_runs(tmp_path)
    pretend("echo 'error: no space left' >&2; exit 1", tmp_path, monkeypatch)
    assert failures_of(run, tmp_path) == ["pretrain failed (exit code 1): no space left"]
    pretend("kill -KILL $$", tmp_path, monkeypatch)
    assert failures_of(run, tmp_path) == ["pretrain failed (signal 9)"]


def test_an_evaluation_that_prints_no_scores_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (run, _) = small_runs(tmp_path)
    train(run)
    pretend("echo well done", tmp_path, monkeypatch)
    (cause,) = failures_of(run, tmp_path)
    assert cause.startswith("evaluate ended well, but what it printed into ")
    assert not run.scores_of(run.evaluations[0]).exists()
