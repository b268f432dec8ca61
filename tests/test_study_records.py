import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from crosscontext.errors import SettingsError
from crosscontext.settings import dump_yaml
from crosscontext.studies import study
from crosscontext.study_plan import plan_of
from crosscontext.study_records import FinishedRun, StudyRecord, finished_run, recorded, write_records
from crosscontext.study_runs import RunKey, StudyRun
from handmade import score
from small_study import base, small_study
from trained_run import small_runs

MEASURED = {"step": 2, "images": 32, "train/loss": 3.5, "time/images_per_second": 16.0, "val/knn_top1": 0.25}


def finish(run: StudyRun, value: float) -> StudyRun:
    """Leave what a finished run leaves, but for its weights."""
    run.folder.path.mkdir(parents=True)
    run.folder.config.write_text(dump_yaml(run.settings))
    run.folder.environment.write_text('{"cores": 2}')
    run.folder.metrics.write_text(json.dumps(MEASURED) + "\n")
    models = {"encoder": value} | dict.fromkeys(run.evaluations[0].references, 0.125)
    scores = [score(number, model=model).model_dump(mode="json") for model, number in models.items()]
    run.scores_of(run.evaluations[0]).write_text(json.dumps(scores))
    return run


def found(runs: Sequence[StudyRun]) -> dict[RunKey, FinishedRun]:
    return {run.key: finished_run(run) for run in runs}


def test_records_table_and_curves_are_written_and_small(tmp_path: Path) -> None:
    study, runs = small_runs(tmp_path, seeds=[0, 1], baseline="moco")
    values = {("cgh", 0): 0.5, ("moco", 0): 0.4, ("cgh", 1): 0.52, ("moco", 1): 0.44}
    done = [finish(run, values[run.cell, run.settings.seed]) for run in reversed(runs)]
    record = write_records(study, runs, found(done))
    assert StudyRecord.model_validate_json((study.out / "records.json").read_text()) == record
    assert [(run.cell, run.seed) for run in record.runs] == [("cgh", 0), ("cgh", 1), ("moco", 0), ("moco", 1)]
    assert {(run.images, run.seconds) for run in record.runs} == {(32, 2.0)}
    assert record.missing == ()
    assert record.table.labels == ("cgh", "moco", "random")
    (row,) = record.table.rows
    assert row.differences["cgh"].seeds == 2  # paired by seed
    text = (study.out / "table.md").read_text()
    assert "Budget of each run: 4 steps. Cells differ in method" in text
    assert "Differences from moco:" in text
    assert "| cgh | 2 | 32 | 0.0 |" in text
    picture = ElementTree.parse(study.out / "curves.svg")
    assert sum(1 for _ in picture.iter("{http://www.w3.org/2000/svg}polyline")) == 8  # 2 cells, 4 panels
    kept = (study.out / "records.json").read_text()
    assert "replicates" not in kept
    assert str(tmp_path) not in kept


def test_what_is_missing_is_said_and_the_baseline_may_be_among_it(tmp_path: Path) -> None:
    study, runs = small_runs(tmp_path, baseline="moco")
    record = write_records(study, runs, found([finish(runs[0], 0.5)]))
    assert record.missing == ("moco, seed 0",)
    assert record.table.baseline == "cgh"
    assert "Not finished: moco, seed 0." in (study.out / "table.md").read_text()


def test_records_stand_for_runs_that_are_gone(tmp_path: Path) -> None:
    study, runs = small_runs(tmp_path, seeds=[0, 1])
    first = write_records(study, runs, found([finish(run, 0.5) for run in runs[:2]]))
    shutil.rmtree(study.runs)
    known = recorded(study, plan_of(study))
    assert list(known) == [("cgh", 0), ("moco", 0)]
    new = found([finish(runs[2], 0.6), finish(runs[3], 0.7)])
    (row,) = write_records(study, runs, known | new).table.rows
    assert {label: cell.seeds for label, cell in row.cells.items()} == {"cgh": 2, "moco": 2, "random": 1}
    assert row.cells["moco"].value == pytest.approx(0.6)
    assert (row.differences["moco"].over, row.differences["moco"].seeds) == ("seeds", 2)
    again = StudyRecord.model_validate_json((study.out / "records.json").read_text())
    assert [run for run in again.runs if run.seed == 0] == list(first.runs)


def test_a_study_with_all_its_records_needs_neither_images_nor_trials(tmp_path: Path) -> None:
    settings, runs = small_runs(tmp_path, base=base(data=str(tmp_path / "not here")))
    first = write_records(settings, runs, found([finish(run, 0.5) for run in runs]))
    shutil.rmtree(settings.runs)
    said: list[str] = []
    assert study(settings, said.append).runs == first.runs
    assert said == [
        f"2 runs are not here, but in {settings.out / 'records.json'}: they count as finished",
        "2 of 2 runs are finished already",
    ]
    with pytest.raises(SettingsError, match=r"cell cgh: .*not here"):
        study(small_study(tmp_path, base=base(data=str(tmp_path / "not here")), seeds=[0, 1]))


def test_a_difference_of_single_recorded_runs_has_no_interval(tmp_path: Path) -> None:
    study, runs = small_runs(tmp_path)
    write_records(study, runs, found([finish(run, 0.5) for run in runs]))
    shutil.rmtree(study.runs)
    (row,) = write_records(study, runs, recorded(study, plan_of(study))).table.rows
    assert row.cells["cgh"].low is not None
    assert row.differences["moco"].low is None  # the resamples are gone


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"seeds": [1]}, "2 runs .*cgh, seed 0; moco, seed 0"),
        ({"cells": {"cgh": {"method": "cgh"}, "sce": {"method": "sce"}}}, "1 runs .*: moco, seed 0"),
        ({"budget": {"steps": 5}}, "2 runs "),
        ({"evaluate": [{"tasks": ["knn"], "seed": 3}]}, "2 runs "),
    ],
)
def test_runs_that_are_nowhere_else_are_not_lost_by_an_edit(
    tmp_path: Path, changes: dict[str, Any], lost: str
) -> None:
    study, runs = small_runs(tmp_path)
    write_records(study, runs, found([finish(run, 0.5) for run in runs]))
    now, _ = small_runs(tmp_path, **changes)
    for run in runs:  # they can be read again, so nothing is lost yet
        run.folder.encoder.touch()
    recorded(now, plan_of(now))
    shutil.rmtree(study.runs)
    with pytest.raises(SettingsError, match=rf"{lost}.*--overwrite, or choose another --out"):
        recorded(now, plan_of(now))
    recorded(now.model_copy(update={"overwrite": True}), plan_of(now))


def test_records_of_another_kind_are_not_replaced_unasked(tmp_path: Path) -> None:
    study, _ = small_runs(tmp_path)
    study.out.mkdir(parents=True)
    (study.out / "records.json").write_text("{}")
    with pytest.raises(SettingsError, match=r"records.json is there and cannot be read .*--overwrite"):
        recorded(study, plan_of(study))
    assert recorded(study.model_copy(update={"overwrite": True}), plan_of(study)) == {}
