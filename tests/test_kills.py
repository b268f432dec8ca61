"""Processes of a run that are killed or asked to end at random instants, again and again."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crosscontext.errors import StoppedEarlyError
from crosscontext.pretraining import PretrainSettings, pretrain
from crosscontext.run_folder import RunFolder
from crosscontext.tracking import read_metrics
from crosscontext.verification import differences
from tiny_run import settings, state_of


class Server:
    """Runs, one after the other, each in a process that can be killed."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("killed_run.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            text=True,
        )

    def start(self, of: PretrainSettings) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(of.model_dump_json() + "\n")
        self._process.stdin.flush()
        return self._answer()

    def wait(self) -> int:
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def is_there(process: int) -> bool:
    """Whether it has not ended; the server takes note of its end at once."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], bool], process: int) -> None:
    while is_there(process) and not condition():
        time.sleep(0.0002)


def written_anew(file: Path) -> Callable[[], bool]:
    """Whether a file was written after this call."""

    def moment() -> int:
        return file.stat().st_mtime_ns if file.exists() else 0

    before = moment()
    return lambda: moment() > before


def next_session(of: PretrainSettings) -> PretrainSettings:
    """What whoever starts a run again and again would ask for."""
    begun = RunFolder(of.out).checkpoint.is_file()
    return of.model_copy(update={"resume": begun, "overwrite": not begun})


@pytest.mark.slow
def test_a_run_that_is_killed_24_times_equals_one_that_is_not(
    server: Server, image_folder: Path, tmp_path: Path
) -> None:
    usual = {"steps": 100, "checkpoint_every": "2 steps", "monitor": {"every": "50%"}}
    straight, killed = (settings(image_folder, tmp_path / name, **usual) for name in ("straight", "killed"))
    server.start(straight)
    assert server.wait() == 0
    folder, chance = RunFolder(killed.out), random.Random(0)
    kills = in_a_write = 0
    for number in range(24):
        process = server.start(next_session(killed))
        match number % 3:
            case 0:  # at any time, also before the first step
                time.sleep(chance.uniform(0, 0.6))
            case 1:  # among the steps
                wait_for(written_anew(folder.metrics), process)
                time.sleep(chance.uniform(0, 0.1))
            case _:  # while a checkpoint is half written
                torn = folder.checkpoint.with_name(f".{folder.checkpoint.name}.{process}")
                wait_for(torn.exists, process)
        if is_there(process):
            os.kill(process, signal.SIGKILL)
        kills += server.wait() == -signal.SIGKILL
        in_a_write += any(folder.checkpoint.parent.glob(".last.ckpt.*"))
    assert kills >= 20
    assert in_a_write >= 2
    server.start(next_session(killed))
    assert server.wait() == 0
    assert list(differences(RunFolder(straight.out), folder)) == []
    assert not list(folder.path.rglob(".*"))  # nothing is left of the killed ones


@pytest.mark.slow
def test_signals_at_random_instants_end_with_their_code_and_the_run_goes_on_exactly(
    server: Server, image_folder: Path, tmp_path: Path
) -> None:
    straight, stopped = (
        settings(image_folder, tmp_path / name, steps=80, monitor={"every": "50%"})
        for name in ("straight", "stopped")
    )
    server.start(straight)
    assert server.wait() == 0
    folder, chance = RunFolder(stopped.out), random.Random(1)
    for number in (signal.SIGTERM, signal.SIGINT) * 3:
        process = server.start(next_session(stopped))
        wait_for(written_anew(folder.metrics), process)
        time.sleep(chance.uniform(0.02, 0.06))
        os.kill(process, number)
        assert server.wait() == 128 + number
        assert state_of(folder)["step"] == read_metrics(folder.metrics)[-1]["step"] < 80
    server.start(next_session(stopped))
    assert server.wait() == 0
    assert list(differences(RunFolder(straight.out), folder)) == []


def test_a_time_limit_ends_the_session_with_a_checkpoint(image_folder: Path, tmp_path: Path) -> None:
    long = settings(image_folder, tmp_path / "run", steps=10**6, time_limit="2s", log_every="100 steps")
    with pytest.raises(StoppedEarlyError, match=r"of 1000000, before the time limit; .*--resume") as stopped:
        pretrain(long)
    assert stopped.value.exit_code == 75
    reached = state_of(RunFolder(long.out))["step"]
    with pytest.raises(StoppedEarlyError, match=f"after step {reached + 2} of"):
        pretrain(long.model_copy(update={"resume": True, "time_limit": None, "stop_after": "2 steps"}))
