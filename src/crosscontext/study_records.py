"""What a study found: finished runs → **study records** → records.json, table.md, curves.svg.

Small enough to be committed: no weights, no resamples, no paths of this machine. Where the runs are gone,
their records still stand for them, so that a study can be extended in a clone of its repository.
"""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from crosscontext.charts import Line, Panel, draw
from crosscontext.comparison import Comparison, line_up
from crosscontext.contenders import Run, contenders_of, settings_of_method
from crosscontext.curves import SCALARS, Curve, Scalar, curves_of, mean_curve
from crosscontext.errors import SettingsError
from crosscontext.results import Score
from crosscontext.run_folder import write_atomically
from crosscontext.settings import load_yaml
from crosscontext.study_plan import StudyPlan, StudySettings, plan_of
from crosscontext.study_runs import RunKey, StudyRun, as_scored, differing, read_scores, run_folder, told_run
from crosscontext.tables import comparison_text
from crosscontext.tracking import read_metrics

RECORDS, TABLE, CURVES = "records.json", "table.md", "curves.svg"

_OF_THE_MACHINE = {"out", "runs", "jobs", "overwrite"}
_OF_A_SCORE = {"replicates", "protocol", "versions", "created"}  # the table has the protocols
_LONG_AGO = datetime.fromtimestamp(0, UTC)
_TITLES: Mapping[Scalar, str] = {
    "val/knn_top1": "k-NN top-1 on training images, per cent",
    "train/loss": "loss (each method has its own)",
}


class RunRecord(BaseModel):
    """One finished run."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    cell: str
    seed: int

    settings: dict[str, JsonValue]
    """Of pretraining, settled; without what has no say in the weights."""

    images: int
    """Seen in training."""

    seconds: float
    """Of training, without measurements and checkpoints."""

    environment: dict[str, JsonValue]
    """Versions and machine."""

    scores: tuple[dict[str, JsonValue], ...]
    """Of the encoder, and of references beside the first run."""

    curves: dict[Scalar, Curve]
    """By the name of the scalar in metrics.jsonl."""

    @property
    def key(self) -> RunKey:
        """Tells the runs of a study apart."""
        return self.cell, self.seed


class FinishedRun(NamedTuple):
    """What a finished run has brought."""

    record: RunRecord
    scores: Sequence[Score]


class StudyRecord(BaseModel):
    """All that is kept of a study."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format_version: Literal[1] = 1

    study: dict[str, JsonValue]
    """The study file, resolved."""

    missing: tuple[str, ...]
    """Names of runs that are not finished."""

    runs: tuple[RunRecord, ...]
    """Cell by cell."""

    table: Comparison


def write_records(
    study: StudySettings, runs: Sequence[StudyRun], found: Mapping[RunKey, FinishedRun]
) -> StudyRecord:
    """Write what is known so far; one run suffices.

    Args:
        study: its settings.
        runs: all of the study.
        found: of those that have all scores; at least one.

    Raises:
        SettingsError: the scores cannot be put side by side.
        RunFolderError: the folder cannot be written.
    """
    cells = dict.fromkeys(run.cell for run in runs)
    finished = [found[cell, seed] for cell in cells for seed in study.seeds if (cell, seed) in found]
    record = StudyRecord(
        study=study.model_dump(mode="json", exclude=_OF_THE_MACHINE),
        missing=tuple(run.name for run in runs if run.key not in found),
        runs=tuple(each.record for each in finished),
        table=_table(study, finished),
    )
    contents = {
        RECORDS: json.dumps(record.model_dump(mode="json"), indent=1) + "\n",
        TABLE: table_text(study, record),
        CURVES: picture(record),
    }
    study.out.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        write_atomically(study.out / name, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
    return record


def table_text(study: StudySettings, record: StudyRecord) -> str:
    """Write the table with what it takes to read it."""
    (budget, amount), *_ = study.budget.given.items()
    cells = list(dict.fromkeys(run.cell for run in record.runs))
    cost = ["| cell | runs | images | minutes of training |", "|---|--:|--:|--:|"]
    for cell in cells:
        own = [run for run in record.runs if run.cell == cell]
        minutes = [run.seconds / 60 for run in own]
        images = " / ".join(dict.fromkeys(f"{run.images}" for run in own))
        cost.append(f"| {cell} | {len(own)} | {images} | {statistics.mean(minutes):.1f} |")
    missing = [f"Not finished: {', '.join(record.missing)}."] if record.missing else []
    return (
        "\n\n".join(
            [
                f"Budget of each run: {amount:g} {budget}. "
                f"Cells differ in {', '.join(study.vary)}; all else is equal.",
                *missing,
                comparison_text(record.table, "markdown"),
                "\n".join(cost),
                *(f"Not in the table: {note}." for note in record.table.notes),
            ]
        )
        + "\n"
    )


def picture(record: StudyRecord) -> str:
    """Draw the curves, means over seeds, against images and against minutes."""
    rows = []
    for scalar in SCALARS:
        of_cell: dict[str, list[Curve]] = {}
        for run in record.runs:
            if scalar in run.curves:
                of_cell.setdefault(run.cell, []).append(run.curves[scalar])
        means = {cell: mean_curve(curves) for cell, curves in of_cell.items()}
        factor = 100 if scalar == "val/knn_top1" else 1
        heights = {cell: [factor * value for value in mean.values] for cell, mean in means.items()}
        against = {
            "images seen, thousands": {cell: [n / 1000 for n in mean.images] for cell, mean in means.items()},
            "minutes of training": {cell: [s / 60 for s in mean.seconds] for cell, mean in means.items()},
        }
        if means:
            rows.append(
                [
                    Panel(
                        _TITLES[scalar], across, [Line(cell, xs, heights[cell]) for cell, xs in lines.items()]
                    )
                    for across, lines in against.items()
                ]
            )
    return draw(rows)


def finished_run(run: StudyRun) -> FinishedRun:
    """Read what a finished run has left on the disk."""
    lines, scores = read_metrics(run.folder.metrics), read_scores(run)
    curves = curves_of(lines)
    record = RunRecord(
        cell=run.cell,
        seed=run.settings.seed,
        settings=settings_of_method(load_yaml(run.folder.config)),
        images=int(lines[-1]["images"]),
        seconds=curves["train/loss"].seconds[-1],
        environment=json.loads(run.folder.environment.read_bytes()),
        scores=tuple(score.model_dump(mode="json", exclude=_OF_A_SCORE) for score in scores),
        curves=curves,
    )
    return FinishedRun(record, scores)


def recorded(study: StudySettings, plan: StudyPlan) -> dict[RunKey, FinishedRun]:
    """Read what records.json knows of the runs that the study has now; their weights may be gone.

    A run counts if its cell, the budget and all evaluations are what they were. Its scores have no resamples.

    Raises:
        SettingsError: new records would lose runs that are nowhere else, and `overwrite` does not allow it.
    """
    file = study.out / RECORDS
    try:
        record = StudyRecord.model_validate_json(file.read_bytes())
        then = StudySettings.model_validate({**record.study, "out": study.out, "runs": study.runs})
        before = plan_of(then)
    except FileNotFoundError:
        return {}
    except (ValidationError, SettingsError) as error:
        if study.overwrite:
            return {}
        raise SettingsError(
            f"{file} is there and cannot be read ({str(error).splitlines()[0]}). Replace it with "
            "--overwrite, or choose another --out."
        ) from error
    same_scores = list(map(as_scored, before.evaluations)) == list(map(as_scored, plan.evaluations))
    same_cells = [
        cell
        for cell, settings in plan.cells.items()
        if cell in before.cells and not differing(before.cells[cell], settings)
    ]
    found = {
        run.key: FinishedRun(run, list(_scores(run, record.table)))
        for run in record.runs
        if same_scores and run.cell in same_cells and run.seed in study.seeds
    }
    lost = [
        told_run(run.key)
        for run in record.runs
        if run.key not in found and not run_folder(study, run.key).encoder.is_file()
    ]
    if lost and not study.overwrite:
        raise SettingsError(
            f"{file} has {len(lost)} runs that the study has no more, or with other settings, and that are "
            f"nowhere else: {'; '.join(lost)}. Take the change back, let them go with --overwrite, or choose "
            "another --out."
        )
    return found


def _scores(run: RunRecord, table: Comparison) -> Iterator[Score]:
    """Give scores of a record back what the table and the time of writing have for all of them."""
    protocols = {row.protocol_digest: row.protocol for row in table.rows}
    for score in run.scores:
        protocol = protocols.get(str(score["protocol_digest"]))
        if protocol is not None:
            lost = {"protocol": protocol, "replicates": "", "versions": {}, "created": _LONG_AGO}
            yield Score.model_validate({**score, **lost})


def _table(study: StudySettings, finished: Sequence[FinishedRun]) -> Comparison:
    runs = [
        Run(Path(f"{record.cell}-{record.seed}"), {"seed": record.seed}, scores)
        for record, scores in finished
    ]
    contenders = contenders_of(runs, [record.cell for record, _ in finished], lambda _: None)
    there = {contender.label for contender in contenders}
    return line_up(contenders, study.baseline if study.baseline in there else None)
