from pathlib import Path

import pytest

from crosscontext.errors import CheckpointError, NonFiniteError
from crosscontext.pretraining import pretrain
from crosscontext.replaying import replay
from tiny_run import settings


def test_a_step_that_was_not_finite_is_not_finite_again(image_folder: Path, tmp_path: Path) -> None:
    wild = settings(
        image_folder,
        tmp_path / "run",
        optimizer={"learning_rate": 1e9},
        checkpoint_every="2 steps",
        monitor={"every": "100%"},  # features that overflow are no step's fault
    )
    with pytest.raises(NonFiniteError) as first:
        pretrain(wild)
    step = first.value.step
    assert step is not None
    with pytest.raises(NonFiniteError) as again:
        replay(wild.out, step)
    assert again.value.step == step
    assert str(first.value).startswith(str(again.value))


def test_a_step_that_was_not_kept_is_refused(image_folder: Path, tmp_path: Path) -> None:
    pretrain(settings(image_folder, tmp_path / "run", steps=2))
    with pytest.raises(CheckpointError, match=r"no weights file .*nonfinite/step-1\.safetensors"):
        replay(tmp_path / "run", 1)
