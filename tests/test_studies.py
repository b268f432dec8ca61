"""A study as a user runs it: real processes, a real signal, a run that fails, a file that changes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from crosscontext.errors import SettingsError, StudyError
from crosscontext.studies import describe, study
from crosscontext.study_plan import StudySettings
from crosscontext.tracking import read_metrics
from small_study import SMALL, small_study

STEPS = 300


@pytest.mark.slow
def test_a_study_survives_interruption_failure_and_changes(tmp_path: Path) -> None:
    settings = small_study(tmp_path, budget={"steps": STEPS}, jobs=2)
    cgh, moco = settings.runs / "cgh" / "seed-0", settings.runs / "moco" / "seed-0"
    interrupt(settings, tmp_path, cgh)
    assert (cgh / "checkpoints" / "last.ckpt").is_file()
    assert read_metrics(cgh / "metrics.jsonl")[-1]["step"] < STEPS

    shutil.rmtree(moco, ignore_errors=True)
    moco.mkdir(parents=True)
    (moco / "checkpoints").write_text("a file where a folder should be")
    with pytest.raises(StudyError) as failed:
        study(settings)
    summary, cause = str(failed.value).splitlines()
    assert summary.startswith("1 of 2 runs failed")
    assert cause.startswith("moco, seed 0: pretrain failed (exit code 1): ")
    assert "cannot be written: " in cause
    assert cause.endswith(f"; log: {moco / 'log.txt'}")
    assert [line["step"] for line in read_metrics(cgh / "metrics.jsonl")] == list(range(1, STEPS + 1))
    assert "--resume" in (cgh / "log.txt").read_text()
    assert "Not finished: moco, seed 0." in (settings.out / "table.md").read_text()

    before = (cgh / "encoder.safetensors").stat().st_mtime_ns
    (moco / "checkpoints").unlink()
    said: list[str] = []
    record = study(settings, said.append)
    assert said == [
        "1 of 2 runs are finished already",
        f"moco, seed 0: begins, log: {moco / 'log.txt'}",
        "moco, seed 0: finished, 2 of 2",
    ]
    assert (cgh / "encoder.safetensors").stat().st_mtime_ns == before
    assert record.table.labels == ("cgh", "moco", "random")
    assert "Not finished" not in (settings.out / "table.md").read_text()

    changed = small_study(tmp_path, budget={"steps": STEPS + 1})
    with pytest.raises(SettingsError) as refused:
        study(changed)
    first, of_cgh, of_moco, remedy = str(refused.value).splitlines()
    assert first.startswith("2 runs were begun with other settings")
    assert [of_cgh, of_moco] == [f"{name}, seed 0: steps (300, 301)" for name in ("cgh", "moco")]
    assert "--overwrite" in remedy
    assert "2 begun with other settings" not in describe(settings)
    assert "1 finished" in describe(settings)
    assert "1 begun with other settings: steps (300, 301)" in describe(changed)


def interrupt(settings: StudySettings, folder: Path, run: Path) -> None:
    """Start the study from the command line, and send Ctrl-C's signal in the middle of a run."""
    file = folder / "study.yaml"
    content: dict[str, Any] = {**SMALL, "budget": {"steps": STEPS}}
    file.write_text(yaml.safe_dump(content))
    places = ["--out", str(settings.out), "--runs", str(settings.runs)]
    process = subprocess.Popen(
        [sys.executable, "-m", "crosscontext", "study", str(file), *places],
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    give_up = time.monotonic() + 200
    while len(read_metrics(run / "metrics.jsonl")) < 5:
        assert process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=200)
    assert process.returncode == 130
    assert b"all runs have stopped with their checkpoints. The same command goes on." in complaint
    assert complaint.count(b"their checkpoints are being saved") == 1


def test_nothing_is_begun_if_any_cell_is_wrong(tmp_path: Path) -> None:
    cells = {"cgh": {}, "moco": {"method": {"name": "moco", "momentum": 2}}}
    with pytest.raises(SettingsError, match=r"method\.momentum is 2 in cell moco"):
        study(small_study(tmp_path, cells=cells))
    assert list(tmp_path.iterdir()) == []
