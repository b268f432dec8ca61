import threading
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from crosscontext import telling
from crosscontext.loggers import LoggedRun, Logger
from crosscontext.telling import Telling


class Listening(Logger):
    told: ClassVar[list[int]] = []

    def __init__(self, run: LoggedRun) -> None:
        self.told.clear()

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self.told.append(step)

    def close(self, failed: bool) -> None:
        self.told.append(-2 if failed else -1)


class Rewinding(Listening):
    told: ClassVar[list[int]] = []
    rewinds: ClassVar = True


class Unopenable(Listening):
    def __init__(self, run: LoggedRun) -> None:
        raise ConnectionError("nobody answers.\nsecond line")


class Stumbling(Listening):
    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        raise SystemExit(3)


class Unclosable(Listening):
    def close(self, failed: bool) -> None:
        raise OSError("no room")


class Stuck(Listening):
    gate: ClassVar = threading.Event()

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self.gate.wait()


def run(folder: Path, step: int = 0) -> LoggedRun:
    return LoggedRun(folder, folder / "loggers", {}, step)


def test_only_loggers_that_forget_are_told_steps_twice(tmp_path: Path) -> None:
    kinds = {"plain": Listening, "rewinding": Rewinding}
    with Telling(kinds, run(tmp_path, step=5), told_until=7, say=pytest.fail) as told:
        for step in range(6, 10):
            told.log(step, {})
    assert Listening.told == [8, 9, -1]
    assert Rewinding.told == [6, 7, 8, 9, -1]


def test_a_session_that_fails_is_closed_as_such(tmp_path: Path) -> None:
    def fail() -> None:
        with Telling({"plain": Listening}, run(tmp_path), 0, pytest.fail):
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert Listening.told == [-2]


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (Unopenable, "ConnectionError: nobody answers"),
        (Stumbling, "SystemExit: 3"),
        (Unclosable, "OSError: no room"),
    ],
)
def test_a_logger_that_fails_is_named_once_and_the_others_go_on(
    kind: type[Logger], cause: str, tmp_path: Path
) -> None:
    said: list[str] = []
    with Telling({"bad": kind, "good": Rewinding}, run(tmp_path), 0, said.append) as told:
        for step in (1, 2, 3):
            told.log(step, {"train/loss": 0.5})
    assert Rewinding.told == [1, 2, 3, -1]
    assert len(said) == 1
    assert said[0].startswith(f"warning: the logger bad is switched off: {cause}. Training goes on")


def test_a_logger_without_a_place_for_its_files_is_switched_off(tmp_path: Path) -> None:
    (tmp_path / "loggers").write_text("in the way")
    said: list[str] = []
    with Telling({"bad": Listening}, run(tmp_path), 0, said.append):
        pass
    assert "NotADirectoryError" in said[0]


def test_a_logger_that_hangs_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "_LINES_WAITING", 4)
    monkeypatch.setattr(telling, "_PATIENCE", 0.05)
    said: list[str] = []
    Stuck.gate.clear()
    try:
        with Telling({"stuck": Stuck}, run(tmp_path), 0, said.append) as told:
            for step in range(1, 20):
                told.log(step, {})  # returns, though nothing is taken
        assert [line.partition(": it ")[2].partition(".")[0] for line in said] == ["is 4 lines behind"]
        with Telling({"stuck": Stuck}, run(tmp_path), 0, said.append) as told:
            told.log(1, {})
        assert "did not end within 0.05 seconds" in said[1]
        assert len(said) == 2
    finally:
        Stuck.gate.set()
