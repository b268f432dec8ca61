from pathlib import Path

import pytest

from crosscontext.errors import StoppedEarlyError
from crosscontext.settings import load_yaml
from crosscontext.study_runs import changed, forget, is_finished, is_trained, next_command, read_scores
from trained_run import score, small_runs, train

OTHER = [{"tasks": [{"name": "knn", "k": [3]}]}]


def test_runs_go_seed_by_seed_and_references_stand_beside_the_first(tmp_path: Path) -> None:
    _, runs = small_runs(tmp_path, seeds=[3, 4])
    assert [run.name for run in runs] == ["cgh, seed 3", "moco, seed 3", "cgh, seed 4", "moco, seed 4"]
    assert [run.evaluations[0].references for run in runs] == [("random",), (), (), ()]
    assert [run.settings.seed for run in runs] == [3, 3, 4, 4]
    assert len({run.settings.out for run in runs}) == 4


def test_a_new_run_is_trained_with_the_settings_that_are_kept_beside_it(tmp_path: Path) -> None:
    _, (run, _) = small_runs(tmp_path)
    command = next_command(run)
    assert command is not None
    assert command.arguments == ("pretrain", str(run.asked), "--overwrite")
    assert load_yaml(run.asked)["steps"] == 4
    assert not is_trained(run)
    assert changed(run) == ""


def test_a_run_goes_from_training_over_evaluation_to_its_end(tmp_path: Path) -> None:
    _, (run, _) = small_runs(tmp_path)
    with pytest.raises(StoppedEarlyError):
        train(run, stop_after="2 steps")
    command = next_command(run)
    assert command is not None
    assert "--resume" in command.arguments
    assert not is_trained(run)

    run.folder.checkpoint.rename(run.folder.previous_checkpoint)
    assert next_command(run) == command  # pretrain --resume takes that one

    train(run, resume=True)
    assert is_trained(run)
    command = next_command(run)
    assert command is not None
    assert command.arguments[:2] == ("evaluate", str(run.folder.path))
    assert command.output == run.scores_of(run.evaluations[0])
    assert not is_finished(run)

    score(run)
    assert next_command(run) is None
    assert is_finished(run)
    assert {found.model for found in read_scores(run)} == {"encoder", "random"}

    scores = run.scores_of(run.evaluations[0])
    content = scores.read_bytes()
    scores.write_bytes(content[:100])  # as a crash may leave it
    assert not is_finished(run)
    assert next_command(run) == command
    scores.write_bytes(content)

    _, (other, _) = small_runs(tmp_path, evaluate=OTHER)  # asks for scores that are not there
    assert is_trained(other)
    assert not is_finished(other)
    assert changed(other) == ""

    run.folder.encoder.write_bytes(run.folder.encoder.read_bytes()[:40])  # as a crash may leave it
    assert not is_trained(run)
    forget(run)
    command = next_command(run)
    assert command is not None
    assert "--overwrite" in command.arguments
    assert not run.scores_of(run.evaluations[0]).exists()


def test_changed_settings_are_named_with_both_values_and_those_of_the_machine_are_none(
    tmp_path: Path,
) -> None:
    _, (_, run) = small_runs(tmp_path)
    next_command(run)
    cells = {"cgh": {}, "moco": {"method": {"name": "moco", "memory": {"slots": 48}}}}
    _, (_, other) = small_runs(tmp_path, cells=cells, budget={"steps": 5}, threads=2)
    assert changed(other) == "steps (4, 5), method.memory.slots (32, 48)"
    _, (_, same) = small_runs(tmp_path, threads=2)
    assert changed(same) == ""
