import json
from pathlib import Path
from typing import Any

import pytest
import torch

from crosscontext.backbones import Backbone
from crosscontext.errors import NonFiniteError, RunFolderError, StoppedEarlyError
from crosscontext.memory import MemorySettings
from crosscontext.methods.cgh import CGH, CGHSettings
from crosscontext.methods.contract import Outcome, Views
from crosscontext.planning import PretrainSettings
from crosscontext.pretraining import pretrain
from crosscontext.rollback import kept_names, kept_views, read_skipped_steps
from crosscontext.run_folder import RunFolder
from crosscontext.schedules import Plan
from crosscontext.tracking import read_metrics
from crosscontext.verification import differences
from tiny_run import settings, state_of


class FragileSettings(CGHSettings):
    """CGH with a loss that is no number in some steps."""

    bad: tuple[int, ...]

    def build(self, backbone: Backbone, plan: Plan) -> "Fragile":
        return Fragile(self, backbone, plan)


class Fragile(CGH):
    settings: FragileSettings

    def forward(self, views: Views, step: int) -> Outcome:
        outcome = super().forward(views, step)
        return outcome._replace(loss=outcome.loss * torch.nan) if step in self.settings.bad else outcome


def fragile(data: Path, out: Path, *bad: int, **changes: Any) -> PretrainSettings:
    rarely = {"monitor": {"every": "100%"}, "checkpoint_every": "2 steps"}
    usual = settings(data, out, on_nonfinite="rollback", **rarely, **changes)
    method = FragileSettings(bad=bad, memory=MemorySettings(slots=30))
    return usual.model_copy(update={"method": method})


@pytest.mark.parametrize("bad", [0, 5, 9])  # the first step, one between two checkpoints, the last one
def test_a_bad_step_is_left_out_and_kept(image_folder: Path, tmp_path: Path, bad: int) -> None:
    run = pretrain(fragile(image_folder, tmp_path / "run", bad))
    state = state_of(run)
    assert state["step"] == 10
    assert all(torch.isfinite(value).all() for value in state["method"].values() if torch.is_tensor(value))
    trained = [line["step"] for line in read_metrics(run.metrics) if "train/loss" in line]
    assert trained == [step for step in range(1, 11) if step != bad + 1]
    assert read_skipped_steps(run) == {bad}
    before = torch.load(run.failed_checkpoint(bad), weights_only=True)["step"]
    assert before == bad // 2 * 2
    views = kept_views(run.failed_batch(bad))
    assert [views[name][0].shape for name in ("weak", "strong")] == [(12, 3, 16, 16)] * 2
    names = kept_names(run.failed_batch(bad))
    assert len(set(names)) == 12
    assert all((image_folder / name).is_file() for name in names)


def test_a_resumed_run_makes_the_same_decisions_bitwise(image_folder: Path, tmp_path: Path) -> None:
    straight = pretrain(fragile(image_folder, tmp_path / "straight", 5))
    for stop in (5, 7):  # before the bad step, and after it
        run = fragile(image_folder, tmp_path / f"stopped-{stop}", 5, stop_after=f"{stop} steps")
        with pytest.raises(StoppedEarlyError, match=f"after step {stop} of 10"):
            pretrain(run)
        halves = pretrain(run.model_copy(update={"resume": True, "stop_after": None}))
        assert list(differences(straight, halves)) == []
        assert halves.rollbacks.read_bytes() == straight.rollbacks.read_bytes()


def test_without_the_policy_the_run_stops_and_may_be_resumed_with_it(
    image_folder: Path, tmp_path: Path
) -> None:
    run = fragile(image_folder, tmp_path / "run", 5)
    with pytest.raises(
        NonFiniteError, match=r"At step 5 .*loss nan.*step-5\.safetensors.*--on-nonfinite rollback"
    ):
        pretrain(run.model_copy(update={"on_nonfinite": "stop"}))
    folder = RunFolder(run.out)
    assert state_of(folder)["step"] == 4
    assert [line["step"] for line in read_metrics(folder.metrics)] == [1, 2, 3, 4, 5]
    assert not folder.rollbacks.exists()
    resumed = pretrain(run.model_copy(update={"resume": True}))
    assert list(differences(pretrain(fragile(image_folder, tmp_path / "straight", 5)), resumed)) == []


def test_so_many_steps_are_left_out_and_no_more(image_folder: Path, tmp_path: Path) -> None:
    run = fragile(image_folder, tmp_path / "run", 3, 4, 7, rollbacks=2)
    with pytest.raises(
        NonFiniteError, match=r"At step 7 .*2 steps were skipped before; rollbacks allows no more"
    ):
        pretrain(run)
    assert read_skipped_steps(RunFolder(run.out)) == {3, 4}
    assert state_of(RunFolder(run.out))["step"] == 6


def test_a_new_run_forgets_what_an_earlier_one_left_out(image_folder: Path, tmp_path: Path) -> None:
    pretrain(fragile(image_folder, tmp_path / "run", 5))
    folder = pretrain(settings(image_folder, tmp_path / "run", overwrite=True))
    assert read_skipped_steps(folder) == set()
    assert list(folder.failed_batch(5).parent.iterdir()) == []


def test_a_damaged_list_is_refused_with_an_example(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.rollbacks.write_text(json.dumps({"step": 3}) + "\n{")
    with pytest.raises(RunFolderError, match=r"rollbacks\.jsonl is damaged.*\"step\": 120"):
        read_skipped_steps(folder)
