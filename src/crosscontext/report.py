"""Scores → a table for people.

results → **report** → console
"""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from crosscontext.results import Score, shown


def score_table(scores: Sequence[Score]) -> Table:
    """Lay the scores of one evaluation out: a row a metric, a column a model, the encoder last.

    Shares are in per cent; each cell has its confidence interval.
    """
    models = sorted(dict.fromkeys(score.model for score in scores), key=lambda model: model == "encoder")
    cells = {(score.task, score.metric, score.model): shown(score) for score in scores}
    table = Table(
        box=box.SIMPLE_HEAD, caption="shares in per cent, with 95 % intervals", caption_justify="left"
    )
    table.add_column("")
    for model in models:
        table.add_column(model, justify="right", no_wrap=True)
    for task, metric in dict.fromkeys((score.task, score.metric) for score in scores):
        table.add_row(f"{task} {metric}", *(cells.get((task, metric, model), "") for model in models))
    return table
