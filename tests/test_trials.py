import json
from pathlib import Path
from typing import Any

import pytest

from crosscontext.errors import SettingsError
from crosscontext.study_plan import plan_of
from crosscontext.trials import Trial, try_out
from small_study import base, small_study


def trials(folder: Path, **changes: Any) -> tuple[dict[str, Trial], list[str]]:
    study = small_study(folder, **changes)
    study.runs.mkdir(exist_ok=True)
    said: list[str] = []
    return try_out(study, plan_of(study), said.append), said


def test_steps_of_a_budget_in_minutes_fit_and_stay_when_the_study_goes_on(tmp_path: Path) -> None:
    found, said = trials(tmp_path, budget={"minutes": 2})
    assert said == ["trying out cgh", "trying out moco"] * 3
    for trial in found.values():
        assert trial.minutes == pytest.approx(2, rel=0.1)
    again, said = trials(tmp_path, budget={"minutes": 2})
    assert again == found
    assert said == []
    twice, _ = trials(tmp_path, budget={"minutes": 4})
    assert twice["cgh"].steps == pytest.approx(2 * found["cgh"].steps, abs=1)


def test_steps_of_images_are_the_same_for_all(tmp_path: Path) -> None:
    found, said = trials(tmp_path, budget={"images": 320})
    assert {trial.steps for trial in found.values()} == {20}
    assert said == ["trying out cgh", "trying out moco"]
    assert len(json.loads((tmp_path / "runs" / "measured.json").read_text())) == 2


def test_cells_with_nothing_left_to_do_are_not_tried(tmp_path: Path) -> None:
    settings = small_study(tmp_path)
    settings.runs.mkdir()
    said: list[str] = []
    plan = plan_of(settings)
    assert list(try_out(settings, plan._replace(cells={"moco": plan.cells["moco"]}), said.append)) == ["moco"]
    assert said == ["trying out moco"]


def test_what_cells_and_evaluations_do_not_allow_is_named_before_any_run(tmp_path: Path) -> None:
    cells = {
        "cgh": {},
        "deep": {"method": {"contexts": {"hyper_stages": [-9]}}},
        "deeper": {"method": {"contexts": {"hyper_stages": [-8]}}},
    }
    with pytest.raises(SettingsError) as caught:
        trials(tmp_path, cells=cells)
    assert str(caught.value).startswith("cell deep: contexts.hyper_stages is (-9,), but the backbone has")
    with pytest.raises(SettingsError) as caught:
        trials(tmp_path, base=base(batch_size=97), evaluate=[{"tasks": ["segment"]}])
    first, second, third = str(caught.value).splitlines()
    assert first.startswith("cell cgh: batch_size is 97, but there are only 96 training images")
    assert second.startswith("cell moco: batch_size is 97")
    assert third.startswith("evaluation 1: ")
