import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crosscontext.errors import InterruptedRunError, StoppedEarlyError
from crosscontext.interruption import Interruption, Session, TimeLimit
from crosscontext.schedules import Plan

PLAN = Plan(100, 10, total_steps=50)


def clock(*moments: float) -> Callable[[], float]:
    """Shows these times, one a look."""
    shown: Iterator[float] = iter(moments)
    return lambda: next(shown)


def test_a_session_ends_while_twice_its_longest_step_is_left() -> None:
    limit = TimeLimit("1min", clock(100, 110, 120, 130, 140))  # steps of 10 s until 160
    assert [limit.is_near() for _ in range(4)] == [False, False, False, True]


def test_one_slow_step_with_its_checkpoint_makes_the_reserve_larger() -> None:
    limit = TimeLimit("1min", clock(0, 1, 26, 27))
    assert [limit.is_near() for _ in range(3)] == [False, True, True]


def test_without_a_limit_it_is_never_near() -> None:
    limit = TimeLimit(None, clock(0, 1e12))
    assert not limit.is_near()


def test_a_session_ends_at_its_step_or_at_a_signal() -> None:
    session = Session(PLAN, 20, "1 epochs", TimeLimit(None))
    assert session.stop == 30
    assert [session.ends(step) for step in (29, 30)] == [False, True]
    assert Session(PLAN, 45, "1 epochs", TimeLimit(None)).stop == 50
    with session.interruption:
        signal.raise_signal(signal.SIGTERM)
        assert session.ends(21)


def test_a_signal_is_still_known_when_training_begins_again() -> None:
    interruption = Interruption()
    with interruption:
        signal.raise_signal(signal.SIGTERM)
    with interruption:
        assert interruption.ask() == signal.SIGTERM == interruption.signal
        signal.raise_signal(signal.SIGTERM)  # is noted: the handler is that of this entry


def test_a_second_signal_acts_at_once() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interruption():
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_session_tells_how_it_ended(tmp_path: Path) -> None:
    session = Session(PLAN, 0, "30 steps", TimeLimit(None))
    with pytest.raises(StoppedEarlyError, match=r"step 30 of 50, as asked; .*--out .* --resume"):
        session.close(30, tmp_path)
    with pytest.raises(StoppedEarlyError, match="step 12 of 50, before the time limit"):
        session.close(12, tmp_path)
    Session(PLAN, 0, None, TimeLimit(None)).close(50, tmp_path)
    with session.interruption:
        signal.raise_signal(signal.SIGINT)
    assert session.ends(3)
    with pytest.raises(InterruptedRunError, match="Interrupted by SIGINT after step 3") as ended:
        session.close(3, tmp_path)
    assert ended.value.exit_code == 130
