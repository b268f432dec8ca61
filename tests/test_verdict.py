import math
from typing import Any

import pytest

from crosscontext.verdict import RANK_FLOORS, SPREAD_FLOORS, Check, Contest, Evidence, Verdict, judge

BETTER = Contest("right", 0.6, 0.4, 0.15, 0.25)


def verdict(**changes: Any) -> Verdict:
    """On a run that all is well with, but for the changes."""
    usual: dict[str, Any] = {
        "step": 100,
        "total_steps": 100,
        "spread": 0.6,
        "rankme": 40.0,
        "largest_rank": 100,
        "contests": [BETTER],
        "rise": 0.0,
        "unreadable": 0.0,
    }
    return judge(Evidence(**(usual | changes)))


def check(found: Verdict, name: str) -> Check:
    return next(check for check in found.checks if check.name == name)


def test_a_good_run_is_green_and_its_next_action_is_to_use_it() -> None:
    found = verdict()
    assert found.level == "green"
    assert all(check.level == "green" for check in found.checks)
    assert "crosscontext evaluate" in found.action


@pytest.mark.parametrize(
    ("spread", "level"),
    [(0.0, "red"), (math.nan, "red"), (SPREAD_FLOORS[1], "amber"), (SPREAD_FLOORS[0], "green")],
)
def test_collapse_shows_in_the_spread(spread: float, level: str) -> None:
    assert check(verdict(spread=spread), "Spread").level == verdict(spread=spread).level == level


@pytest.mark.parametrize(("share", "level"), [(0.01, "red"), (RANK_FLOORS[1], "amber"), (0.3, "green")])
def test_dimensions_are_judged_by_the_share_that_is_in_use(share: float, level: str) -> None:
    for largest in (10, 2048):
        assert verdict(rankme=share * largest, largest_rank=largest).level == level


@pytest.mark.parametrize(
    ("contest", "level"),
    [
        (Contest("right", 0.4, 0.4, -0.1, 0.1), "red"),
        (Contest("right", 0.5, 0.4, -0.01, 0.2), "amber"),
        (Contest("right", 0.5, 0.4, 0.01, 0.2), "green"),
    ],
)
def test_an_encoder_must_beat_its_untrained_twin_beyond_chance(contest: Contest, level: str) -> None:
    found = verdict(contests=[contest, BETTER])
    assert found.level == level
    assert "untrained twin 40.0%" in check(found, "Untrained twin").found


def test_what_was_not_compared_is_not_called_good() -> None:
    assert verdict(contests=[]).level == "amber"
    assert "--data" in verdict(contests=[]).action


def test_an_unfinished_run_is_amber_and_can_go_on() -> None:
    found = verdict(step=60)
    assert found.level == "amber"
    assert "--resume" in found.action


def test_the_worst_check_decides_and_says_what_to_do() -> None:
    found = verdict(step=60, spread=0.01)
    assert found.level == "red"
    assert found.action == check(found, "Spread").action


def test_a_rising_curve_asks_for_a_longer_run_without_blame() -> None:
    found = verdict(rise=0.03)
    assert found.level == "green"
    assert "longer run" in found.action


def test_many_unreadable_images_are_amber() -> None:
    assert verdict(unreadable=0.02).level == "amber"
    assert verdict(unreadable=0.001).level == "green"


def test_what_was_not_measured_has_no_check() -> None:
    found = verdict(spread=None, rankme=None, total_steps=None, rise=None)
    assert [check.name for check in found.checks] == ["Untrained twin"]
