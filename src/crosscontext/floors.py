"""Below which measures features count as collapsed, or close to it: **floors** → collapse, verdict.

The one ends a run and the other judges it. Both take these, so that no page praises what a run
would have been ended for.
"""

from typing import Literal, NamedTuple

Level = Literal["green", "amber", "red"]
LEVELS: tuple[Level, ...] = ("green", "amber", "red")
"""From good to bad."""


class Floors(NamedTuple):
    """Of one measure of which more is better."""

    amber: float
    """A little less than the least seen in 120 sound runs."""

    red: float
    """A quarter of that least: little else than a collapse is left."""

    def level(self, value: float) -> Level:
        """Grade a value; what is no number is red."""
        if not value >= self.red:
            return "red"
        return "amber" if value < self.amber else "green"


SPREAD = Floors(amber=0.25, red=0.07)
"""Of the spread of the features (`health.feature_std`, health/feature_std in metrics.jsonl). Untrained
ResNets have 0.4, trained ones 0.3 to 0.7, a collapsed one 0."""

RANK = Floors(amber=0.08, red=0.03)
"""Of RankMe (`health.rankme`) as a share of the largest value there is: the width of the features, or the
number of images if that is less (health/rankme_share). Untrained and trained ResNets have 0.1 to 0.5, a
collapsed one 1 over that largest value."""
