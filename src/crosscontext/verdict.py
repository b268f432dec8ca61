"""Whether a backbone is worth using, by stated rules: measured numbers → **verdict** → green, amber or red.

Nothing is read and nothing is computed here but comparisons, so that the rules can be seen at a glance and
tested one by one.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

Level = Literal["green", "amber", "red"]
LEVELS: tuple[Level, ...] = ("green", "amber", "red")
"""From good to bad."""

SPREAD_FLOORS = (0.25, 0.1)
"""Feature spread (`health.feature_std`) below which the verdict is amber, and red. Untrained ResNets have
0.4, trained ones 0.5 to 0.7, a collapsed one 0."""

RANK_FLOORS = (0.08, 0.02)
"""RankMe as a share of what it could be, below which the verdict is amber, and red. Untrained and trained
ResNets have 0.2 to 0.5, a collapsed one 1 over the number of dimensions."""

UNREADABLE_CEILING = 0.01
"""Share of unreadable images above which the verdict is amber."""

STILL_RISING = 0.02
"""Rise of the k-NN accuracy in the last fifth of a run from which a longer run is worth a try."""


class Contest(NamedTuple):
    """The encoder against its untrained twin, in one score of which more is better."""

    what: str
    """What the score says, as it is told to a person."""

    encoder: float
    twin: float
    low: float
    """Lower end of the 95 % interval of the difference; the images are resampled in pairs."""

    high: float


class Evidence(NamedTuple):
    """What a verdict is founded on; None is what could not be measured."""

    step: int
    """Steps done."""

    total_steps: int | None

    spread: float | None
    """`health.feature_std`."""

    rankme: float | None
    """`health.rankme`."""

    largest_rank: int
    """What RankMe could be at most: the smaller of the numbers of images and of dimensions."""

    contests: Sequence[Contest]
    """The most telling one first."""

    rise: float | None
    """Of the k-NN accuracy over the last fifth of the run."""

    unreadable: float
    """Share of the training images."""


class Check(NamedTuple):
    """The outcome of one rule."""

    name: str
    level: Level
    found: str
    """What was measured, and what it means."""

    action: str
    """What to do next; empty where nothing is to be done."""


class Verdict(NamedTuple):
    """The worst level of all checks, and what to do first."""

    level: Level
    headline: str
    action: str
    checks: tuple[Check, ...]


_HEADLINES: dict[Level, str] = {
    "green": "It has learned what its untrained twin has not.",
    "amber": "It works, but look closer.",
    "red": "Do not use it yet.",
}
_USE_IT = "Score it on labelled images with crosscontext evaluate RUN, or use it: crosscontext.load(RUN)."


def judge(evidence: Evidence) -> Verdict:
    """Apply all rules.

    The verdict is as bad as the worst check; its action is that of the first check which is so bad, or the
    first action of a green check.
    """
    checks = tuple(
        check
        for check in (
            _finished(evidence),
            _spread(evidence),
            _rank(evidence),
            _against_the_twin(evidence),
            _rising(evidence),
            _readable(evidence),
        )
        if check is not None
    )
    level = max((check.level for check in checks), key=LEVELS.index)
    action = next((check.action for check in checks if check.level == level and check.action), _USE_IT)
    return Verdict(level, _HEADLINES[level], action, checks)


def _finished(evidence: Evidence) -> Check | None:
    if evidence.total_steps is None:
        return None
    if evidence.step >= evidence.total_steps:
        return Check("Length", "green", f"All {evidence.total_steps} steps are done.", "")
    return Check(
        "Length",
        "amber",
        f"{evidence.step} of {evidence.total_steps} steps are done: the learning rate has not come down yet.",
        "Go on with crosscontext pretrain --out RUN --resume.",
    )


def _spread(evidence: Evidence) -> Check | None:
    if evidence.spread is None:
        return None
    level = _below(evidence.spread, SPREAD_FLOORS)
    found = f"Spread of the features: {evidence.spread:.2f}, from 0 (all point the same way) to 1."
    if level == "green":
        return Check("Spread", level, found, "")
    return Check(
        "Spread",
        level,
        f"{found} Below {SPREAD_FLOORS[level == 'red']:g} they are about to collapse or have collapsed.",
        "Lower --optimizer.learning-rate, lengthen --optimizer.warmup, or choose a method with negatives "
        "such as cgh or moco, and train again.",
    )


def _rank(evidence: Evidence) -> Check | None:
    if evidence.rankme is None:
        return None
    share = evidence.rankme / evidence.largest_rank
    level = _below(share, RANK_FLOORS)
    found = f"Dimensions in use (RankMe): {evidence.rankme:.1f} of at most {evidence.largest_rank}."
    if level == "green":
        return Check("Dimensions", level, found, "")
    return Check(
        "Dimensions",
        level,
        f"{found} Below {RANK_FLOORS[level == 'red']:.0%} most dimensions say the same.",
        "Look at the curve of RankMe: if it fell, lower --optimizer.learning-rate; if it never rose, train "
        "longer, or with stronger views.",
    )


def _against_the_twin(evidence: Evidence) -> Check:
    if not evidence.contests:
        return Check(
            "Untrained twin",
            "amber",
            "It was not compared with an untrained network, so it is not known whether it learned anything.",
            "Give the images with --data DIR, or labelled ones to crosscontext evaluate RUN --data DIR.",
        )
    contest = evidence.contests[0]
    found = (
        f"{contest.what}: {contest.encoder:.1%}, of the untrained twin {contest.twin:.1%} "
        f"(difference {contest.low:+.1%} to {contest.high:+.1%})."
    )
    if contest.low > 0:
        return Check("Untrained twin", "green", found, "")
    level: Level = "red" if contest.encoder <= contest.twin else "amber"
    return Check(
        "Untrained twin",
        level,
        f"{found} " + ("Training gained nothing." if level == "red" else "That may be luck."),
        "Train longer; look at the views below: what makes two views of an image alike must be still in "
        "them; with few images, start from weights with --backbone.weights FILE.",
    )


def _rising(evidence: Evidence) -> Check | None:
    if evidence.rise is None:
        return None
    found = f"k-NN accuracy in the last fifth of the run: {100 * evidence.rise:+.1f} points."
    longer = "It was still rising: a longer run is worth a try." if evidence.rise >= STILL_RISING else ""
    return Check("Trend", "green", found, longer)


def _readable(evidence: Evidence) -> Check | None:
    if evidence.unreadable == 0:
        return None
    return Check(
        "Files",
        "amber" if evidence.unreadable > UNREADABLE_CEILING else "green",
        f"{evidence.unreadable:.1%} of the images could not be read.",
        "Mend or remove those that skipped.jsonl names.",
    )


def _below(value: float, floors: tuple[float, float]) -> Level:
    """Grade a value by the floors for amber and red; what is no number is red."""
    amber, red = floors
    if not value >= red:
        return "red"
    return "amber" if value < amber else "green"
