from pathlib import Path
from typing import Any

import pytest

from crosscontext.errors import SettingsError, StoppedEarlyError
from crosscontext.extending import read_settings
from crosscontext.layers import Layer, resolve
from crosscontext.planning import PretrainSettings
from crosscontext.pretraining import pretrain
from crosscontext.settings import load_yaml
from crosscontext.tracking import Silence, read_metrics
from crosscontext.verification import differences
from tiny_run import settings as usual_settings
from tiny_run import state_of


def settings(data: Path, out: Path, **changes: Any) -> PretrainSettings:
    return usual_settings(data, out, monitor={"every": "100%"}, **changes)


class Told(Silence):
    def __init__(self) -> None:
        self.text = ""

    def say(self, line: str) -> None:
        self.text += f"{line}\n"


def test_a_finished_run_goes_on_to_a_new_end_along_a_new_schedule_that_is_shown(
    image_folder: Path, tmp_path: Path
) -> None:
    short = settings(image_folder, tmp_path / "run")
    run = pretrain(short)
    told = Told()
    longer = short.model_copy(update={"steps": 20, "resume": True, "extend": True})
    pretrain(longer, told)
    assert state_of(run)["step"] == 20
    lines = read_metrics(run.metrics)
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert "extended after step 10: steps 10 → 20\n" in told.text
    assert "learning rate before: step 0: " in told.text
    assert "learning rate now: step 0: " in told.text
    assert f"the next step, 10, has {lines[10]['train/lr']:.3g}" in told.text
    assert lines[9]["train/lr"] < lines[10]["train/lr"] / 5  # it had come down to almost nothing
    assert read_settings(run).steps == 20


def test_the_files_of_an_extended_run_tell_how_to_make_it_again(image_folder: Path, tmp_path: Path) -> None:
    first = settings(image_folder, tmp_path / "run", steps=6)
    run = pretrain(first)
    optimizer = first.optimizer.model_copy(update={"learning_rate": 0.02})
    change = {"steps": 9, "optimizer": optimizer, "resume": True, "extend": True}
    pretrain(first.model_copy(update=change))
    again = tmp_path / "again"
    for file, resumed in ((run.earlier_config(6), False), (run.config, True)):
        told = {"out": str(again), "resume": resumed, "extend": resumed}
        made = pretrain(resolve(PretrainSettings, [Layer(str(file), load_yaml(file)), Layer("here", told)]))
    assert list(differences(run, made)) == []


def test_an_unfinished_run_may_be_shortened_but_not_below_what_is_done(
    image_folder: Path, tmp_path: Path
) -> None:
    run = settings(image_folder, tmp_path / "run", stop_after="4 steps")
    with pytest.raises(StoppedEarlyError):
        pretrain(run)
    extended = {"resume": True, "extend": True, "stop_after": None}
    with pytest.raises(SettingsError, match="has done 4 steps; it cannot be shortened to 3"):
        pretrain(run.model_copy(update={**extended, "steps": 3}))
    assert state_of(pretrain(run.model_copy(update={**extended, "steps": 5})))["step"] == 5


def test_the_batch_cannot_change_within_a_run(image_folder: Path, tmp_path: Path) -> None:
    run = settings(image_folder, tmp_path / "run", steps=2)
    pretrain(run)
    with pytest.raises(SettingsError, match=r"batch_size cannot change within a run.*--backbone\.weights"):
        pretrain(run.model_copy(update={"resume": True, "extend": True, "batch_size": 10, "steps": 4}))


def test_an_extension_that_was_made_already_is_just_resumed(image_folder: Path, tmp_path: Path) -> None:
    run = settings(image_folder, tmp_path / "run", steps=2)
    pretrain(run)
    longer = run.model_copy(update={"steps": 6, "resume": True, "extend": True})
    with pytest.raises(StoppedEarlyError):
        pretrain(longer.model_copy(update={"stop_after": "2 steps"}))
    told = Told()
    folder = pretrain(longer, told)
    assert "extend changes nothing" in told.text
    assert state_of(folder)["step"] == 6
    assert [file.name for file in folder.path.glob("config*")].count("config.until-2.yaml") == 1
