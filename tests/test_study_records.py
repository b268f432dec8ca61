import json
from pathlib import Path
from xml.etree import ElementTree

from crosscontext.settings import dump_yaml
from crosscontext.study_records import StudyRecord, write_records
from crosscontext.study_runs import StudyRun
from handmade import score
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


def test_records_table_and_curves_are_written_and_small(tmp_path: Path) -> None:
    study, runs = small_runs(tmp_path, seeds=[0, 1], baseline="moco")
    values = {("cgh", 0): 0.5, ("moco", 0): 0.4, ("cgh", 1): 0.52, ("moco", 1): 0.44}
    done = [finish(run, values[run.cell, run.settings.seed]) for run in reversed(runs)]
    record = write_records(study, runs, done)
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
    record = write_records(study, runs, [finish(runs[0], 0.5)])
    assert record.missing == ("moco, seed 0",)
    assert record.table.baseline == "cgh"
    assert "Not finished: moco, seed 0." in (study.out / "table.md").read_text()
