import json
from pathlib import Path

import pytest
import torch

from crosscontext.cli import main
from crosscontext.errors import SettingsError
from crosscontext.pretraining import pretrain
from crosscontext.verification import VerifyResumeSettings, differences, verify_resume
from tiny_run import settings


@pytest.mark.slow
def test_a_killed_run_is_verified_on_the_command_line(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", str(image_folder), "--batch-size", "12", "--image-size", "16", "--threads", "1"]
    options += ["--backbone", "resnet10", "--backbone.width", "0.125", "--method.memory.slots", "30"]
    length = ["--epochs", "100", "--verified-steps", "40", "--kills", "2", "--out", str(tmp_path)]
    assert main(["verify-resume", *options, *length]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("Bitwise equal after 40 steps: ")
    assert "killed after steps 13, 26" in printed.out
    assert "the same, killed after step 26" in printed.err


def test_each_difference_between_two_runs_is_named(image_folder: Path, tmp_path: Path) -> None:
    one, other = (pretrain(settings(image_folder, tmp_path / name, steps=2)) for name in ("one", "other"))
    assert list(differences(one, other)) == []
    state = torch.load(other.checkpoint, weights_only=True)
    state["method"]["memory.global"][3, 7] += 1e-7
    state["step"] = 3
    torch.save(state, other.checkpoint)
    lines = [json.loads(line) for line in other.metrics.read_text().splitlines()]
    lines[0]["train/loss"] += 1e-9
    other.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert list(differences(one, other)) == [
        "checkpoint.step",
        "checkpoint.method.memory.global",
        "metrics.jsonl",
    ]


def test_too_few_steps_for_the_kills_are_refused(tmp_path: Path) -> None:
    few = VerifyResumeSettings.model_validate({"data": "shapes", "out": tmp_path, "verified_steps": 10})
    with pytest.raises(SettingsError, match="at least 12"):
        verify_resume(few)
