"""Scores → a table for people.

results → **report** → console
"""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from crosscontext.results import Score


def score_table(scores: Sequence[Score]) -> Table:
    """Lay scores out: a row a model, a column a metric, in per cent with the confidence interval."""
    models = list(dict.fromkeys(score.model for score in scores))
    columns = list(dict.fromkeys((score.task, score.metric) for score in scores))
    cells = {
        (
            score.model,
            score.task,
            score.metric,
        ): f"{score.value:.1%} [{score.low:.1%}, {score.high:.1%}]".replace("%", "")
        for score in scores
    }
    table = Table(
        box=box.SIMPLE_HEAD, caption="per cent, with 95 % confidence intervals", caption_justify="left"
    )
    table.add_column("model")
    for task, metric in columns:
        table.add_column(f"{task}\n{metric}", justify="right")
    for model in models:
        table.add_row(model, *(cells.get((model, task, metric), "") for task, metric in columns))
    return table
