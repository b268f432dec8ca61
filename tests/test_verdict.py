import math
from typing import Any

import pytest

from crosscontext.collapse import CollapseSettings
from crosscontext.floors import RANK, SPREAD
from crosscontext.verdict import Check, Contest, Evidence, Verdict, judge

BETTER = Contest("right", True, 0.6, 0.4, 0.15, 0.25)


def verdict(**changes: Any) -> Verdict:
    """On a run that all is well with, but for the changes."""
    usual: dict[str, Any] = {
        "step": 100,
        "total_steps": 100,
        "images_seen": 1000,
        "spread": 0.6,
        "rankme": 40.0,
        "largest_rank": 100,
        "contests": [BETTER],
        "pixels": None,
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
    [(0.0, "red"), (math.nan, "red"), (SPREAD.red, "amber"), (SPREAD.amber, "green")],
)
def test_collapse_shows_in_the_spread(spread: float, level: str) -> None:
    assert check(verdict(spread=spread), "Spread").level == verdict(spread=spread).level == level


@pytest.mark.parametrize(("share", "level"), [(0.01, "red"), (RANK.red, "amber"), (0.3, "green")])
def test_dimensions_are_judged_by_the_share_that_is_in_use(share: float, level: str) -> None:
    for largest in (10, 2048):
        assert verdict(rankme=share * largest, largest_rank=largest).level == level


@pytest.mark.parametrize(
    ("contest", "level"),
    [
        (Contest("right", True, 0.4, 0.4, -0.1, 0.1), "red"),
        (Contest("right", True, 0.5, 0.4, -0.01, 0.2), "amber"),
        (Contest("right", True, 0.5, 0.4, 0.01, 0.2), "green"),
    ],
)
def test_an_encoder_must_beat_its_untrained_twin_beyond_chance(contest: Contest, level: str) -> None:
    found = verdict(contests=[contest, BETTER])
    assert found.level == level
    assert "untrained twin 40.0%" in check(found, "Untrained twin").found


@pytest.mark.parametrize(
    ("low", "images_seen", "level"),
    [
        (0.05, 3_000, "amber"),  # as after 24 steps on 250 photographs
        (0.5, 3_000, "amber"),
        (0.05, 1_000_000, "amber"),
        (0.5, None, "amber"),
        (0.2, 100_000, "green"),
    ],
)
def test_without_labels_only_a_large_lead_after_long_training_is_green(
    low: float, images_seen: int | None, level: str
) -> None:
    copies = Contest("copies found", False, 0.9, 0.1, low, 0.85)
    found = verdict(contests=[copies], images_seen=images_seen)
    assert found.level == level
    assert "crosscontext evaluate" in found.action
    assert "labels" in check(found, "Untrained twin").found
    assert verdict(contests=[BETTER, copies], images_seen=images_seen).level == "green"


@pytest.mark.parametrize(
    ("contest", "level"),
    [
        (Contest("right", True, 0.8, 0.85, -0.06, -0.04), "amber"),
        (Contest("right", True, 0.8, 0.79, -0.01, 0.03), "amber"),
        (Contest("right", True, 0.8, 0.7, 0.08, 0.12), "green"),
    ],
)
def test_an_encoder_must_beat_raw_pixels_too_where_there_are_labels(contest: Contest, level: str) -> None:
    found = verdict(pixels=contest)
    assert found.level == level
    assert "of raw pixels" in check(found, "Raw pixels").found
    assert ("Train longer" in found.action) == (level == "amber")


def test_what_is_lost_without_labels_is_as_bad_as_with_them() -> None:
    worse = Contest("copies found", False, 0.1, 0.1, -0.1, 0.1)
    assert verdict(contests=[worse]).level == "red"


@pytest.mark.parametrize("measure", ["spread", "rank"])
def test_what_would_end_a_run_is_red_on_its_page_and_nothing_else(measure: str) -> None:
    floor = getattr(CollapseSettings(), measure)
    name = {"spread": "spread", "rank": "rankme"}[measure]
    scale = {"spread": 1, "rank": 100}[measure]  # of largest_rank
    assert verdict(**{name: 0.99 * floor * scale}).level == "red"
    assert verdict(**{name: 1.01 * floor * scale}).level == "amber"


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
