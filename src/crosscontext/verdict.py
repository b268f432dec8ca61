"""Whether a backbone is worth using, by stated rules: measured numbers → **verdict** → green, amber or red.

Nothing is read and nothing is computed here but comparisons, so that the rules can be seen at a glance and
tested one by one. The floors of spread and rank are those that end a run (`floors`).

What learning is worth, only labels can say. So in k-NN or linear accuracy it is enough to beat the untrained
twin beyond chance. Without labels there is but the game that training has practised, to find the original of
a distorted copy, and a network gets better at that within a few steps. It counts as green only if the lower
end of the lead is at least `LABEL_FREE_LEAD`, after at least `LABEL_FREE_IMAGES` images seen; else the
verdict is amber, and asks for labels. Where there are labels, raw pixels must be beaten as well: of small,
centred objects they tell more than a network that was trained too shortly.
"""

from collections.abc import Sequence
from typing import NamedTuple

from crosscontext.floors import LEVELS, RANK, SPREAD, Floors, Level

LABEL_FREE_LEAD = 0.2
"""Of the encoder over its twin, without labels. A small ResNet has 0.6 on CIFAR-10, after 3600 steps."""

LABEL_FREE_IMAGES = 100_000
"""Images seen in training, repetitions included: two passes over CIFAR-10, 200 over 500 images."""

UNREADABLE_CEILING = 0.01
"""Share of unreadable images above which the verdict is amber."""

STILL_RISING = 0.02
"""Rise of the k-NN accuracy in the last fifth of a run from which a longer run is worth a try."""


class Contest(NamedTuple):
    """The encoder against a rival, in one score of which more is better."""

    what: str
    """What the score says, as it is told to a person."""

    labelled: bool
    """Whether it was scored by labels."""

    encoder: float
    rival: float
    low: float
    """Lower end of the 95 % interval of the difference; the images are resampled in pairs."""

    high: float


class Evidence(NamedTuple):
    """What a verdict is founded on; None is what could not be measured."""

    step: int
    """Steps done."""

    total_steps: int | None

    images_seen: int | None
    """In training, repetitions included."""

    spread: float | None
    """`health.feature_std`."""

    rankme: float | None
    """`health.rankme`."""

    largest_rank: int
    """What RankMe could be at most: the smaller of the numbers of images and of dimensions."""

    contests: Sequence[Contest]
    """Against the untrained twin, the most telling one first."""

    pixels: Contest | None
    """Against raw pixels, by labels."""

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
            _against_pixels(evidence.pixels),
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
    level = SPREAD.level(evidence.spread)
    found = f"Spread of the features: {evidence.spread:.2f}, from 0 (all point the same way) to 1."
    if level == "green":
        return Check("Spread", level, found, "")
    return Check(
        "Spread",
        level,
        f"{found} Below {_floor(SPREAD, level):g} they are about to collapse or have collapsed.",
        "Lower --optimizer.learning-rate, lengthen --optimizer.warmup, or choose a method with negatives "
        "such as cgh or moco, and train again.",
    )


def _rank(evidence: Evidence) -> Check | None:
    if evidence.rankme is None:
        return None
    share = evidence.rankme / evidence.largest_rank
    level = RANK.level(share)
    found = f"RankMe, the dimensions in use: {evidence.rankme:.1f} of at most {evidence.largest_rank}."
    if level == "green":
        return Check("RankMe", level, found, "")
    return Check(
        "RankMe",
        level,
        f"{found} Below {_floor(RANK, level):.0%} most dimensions say the same.",
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
    found = _result(contest, "the untrained twin")
    if contest.low > 0:
        if contest.labelled:
            return Check("Untrained twin", "green", found, "")
        return _without_labels(contest, evidence.images_seen, found)
    level: Level = "red" if contest.encoder <= contest.rival else "amber"
    return Check(
        "Untrained twin",
        level,
        f"{found} " + ("Training gained nothing." if level == "red" else "That may be luck."),
        "Train longer; look at the views below: what makes two views of an image alike must be still in "
        "them; with few images, start from weights with --backbone.weights FILE.",
    )


def _result(contest: Contest, rival: str) -> str:
    return (
        f"{contest.what}: {contest.encoder:.1%}, of {rival} {contest.rival:.1%} "
        f"(difference {contest.low:+.1%} to {contest.high:+.1%})."
    )


def _against_pixels(contest: Contest | None) -> Check | None:
    if contest is None:
        return None
    found = _result(contest, "raw pixels")
    if contest.low > 0:
        return Check("Raw pixels", "green", found, "")
    return Check(
        "Raw pixels",
        "amber",
        f"{found} Whoever compares the pictures themselves does as well, or better.",
        "Train longer; look at the views below: what tells the classes apart must be still in them.",
    )


def _without_labels(contest: Contest, images_seen: int | None, found: str) -> Check:
    """Judge a lead in the game that training has practised, which shows less than one in labels would."""
    if contest.low >= LABEL_FREE_LEAD and (images_seen or 0) >= LABEL_FREE_IMAGES:
        return Check(
            "Untrained twin",
            "green",
            f"{found} Training has plainly worked. What the features are good for, only labels can say.",
            "",
        )
    seen = "an unknown number of images" if images_seen is None else f"{images_seen:,} images"
    return Check(
        "Untrained twin",
        "amber",
        f"{found} Without labels that is weak evidence: training asks for just this, and its first steps "
        f"bring much of it. Green takes a lead of {LABEL_FREE_LEAD:.0%} for certain, and "
        f"{LABEL_FREE_IMAGES:,} images seen; it saw {seen}.",
        "Score it on some hundred labelled images, with crosscontext evaluate RUN --data DIR; without any, "
        "train longer.",
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


def _floor(floors: Floors, level: Level) -> float:
    return floors.red if level == "red" else floors.amber
