"""Scores → a table for people; comparisons → Markdown, CSV or JSON.

results, comparison → **tables** → console
"""

import csv
import io
from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

from crosscontext.comparison import Comparison, Estimate, Format, Row
from crosscontext.results import Score, shown

_LEGEND = (
    "Shares are in per cent. a ± b (s): mean over s training seeds and its 95 % t-interval. "
    "a [b, c]: 95 % bootstrap interval over the test images, for the trained networks as they are. "
    "Differences are paired in the same way."
)


def score_table(scores: Sequence[Score]) -> Table:
    """Lay the scores of one evaluation out: a row a metric, a column a model, the encoder last.

    Shares are in per cent; each cell has its confidence interval.
    """
    models = sorted(dict.fromkeys(score.model for score in scores), key=lambda model: model == "encoder")
    cells = {(_row(score), score.model): shown(score) for score in scores}
    table = Table(
        box=box.SIMPLE_HEAD, caption="shares in per cent, with 95 % intervals", caption_justify="left"
    )
    table.add_column("")
    for model in models:
        table.add_column(model, justify="right", no_wrap=True)
    for row in dict.fromkeys(_row(score) for score in scores):
        task, metric, _ = row
        table.add_row(f"{task} {metric}", *(cells.get((row, model), "") for model in models))
    return table


def _row(score: Score) -> tuple[str, str, str]:
    """What scores of one row share: a task may be asked for twice, with other settings."""
    return score.task, score.metric, score.protocol_digest


def comparison_text(comparison: Comparison, form: Format) -> str:
    """Write a comparison; CSV has one line a cell."""
    match form:
        case "markdown":
            return _markdown(comparison)
        case "csv":
            return _csv(comparison)
        case "json":
            return comparison.model_dump_json(indent=1)


def _markdown(comparison: Comparison) -> str:
    others = [label for label in comparison.labels if label != comparison.baseline]
    parts = [_pipes(comparison.labels, [(row, row.cells) for row in comparison.rows], sign="")]
    if any(row.differences for row in comparison.rows):
        parts += [
            f"Differences from {comparison.baseline}:",
            _pipes(others, [(row, row.differences) for row in comparison.rows], sign="+"),
        ]
    return "\n\n".join([*parts, _LEGEND])


def _pipes(labels: Sequence[str], rows: Sequence[tuple[Row, Mapping[str, Estimate]]], sign: str) -> str:
    """Lay out a table of Markdown whose columns stand below each other as plain text too."""
    table = [["", *labels]]
    for row, cells in rows:
        named = f"{row.task} {row.metric}" + (f", {row.conditions}" if row.conditions else "")
        table.append([named, *(_cell(cells.get(label), row.unit, sign) for label in labels)])
    table = [[text.replace("|", "\\|") for text in line] for line in table]
    widths = [max(len(text) for text in column) for column in zip(*table, strict=True)]
    lines = [
        [
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(cells)
        ]
        for cells in (list(zip(line, widths, strict=True)) for line in table)
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def _cell(estimate: Estimate | None, unit: str, sign: str) -> str:
    if estimate is None:
        return ""
    factor, digits = (100, ".1f") if unit == "share" else (1, ".3g")
    value = f"{factor * estimate.value:{sign}{digits}}"
    if estimate.low is None or estimate.high is None:
        return value
    if estimate.over == "seeds":
        return f"{value} ± {factor * (estimate.high - estimate.low) / 2:{digits}} ({estimate.seeds})"
    return f"{value} [{factor * estimate.low:{sign}{digits}}, {factor * estimate.high:{sign}{digits}}]"


def _csv(comparison: Comparison) -> str:
    of_row = ("task", "metric", "conditions", "unit", "protocol_digest")
    of_difference = [f"difference_{field}" for field in Estimate.model_fields]
    text = io.StringIO()
    writer = csv.DictWriter(
        text, [*of_row, "label", *Estimate.model_fields, "baseline", *of_difference], lineterminator="\n"
    )
    writer.writeheader()
    for row in comparison.rows:
        for label, cell in row.cells.items():
            line = {**row.model_dump(include=set(of_row)), "label": label, **cell.model_dump()}
            if label in row.differences:
                found = row.differences[label].model_dump()
                line |= {"baseline": comparison.baseline} | {f"difference_{k}": v for k, v in found.items()}
            writer.writerow(line)
    return text.getvalue().rstrip("\n")
