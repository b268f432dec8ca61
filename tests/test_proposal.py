import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from crosscontext.datasets import ShapesSettings
from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.datasets.contract import Dataset
from crosscontext.environment import Environment
from crosscontext.proposal import MEDIUM, QUICK, SMALL, Proposal, Trial, propose
from crosscontext.speed import Speed
from test_findings import environment_of

CPU = torch.device("cpu")
ROOMY = environment_of(free_gigabytes=1000.0)


def images(count: int, side: int = 32) -> Dataset:
    """So many grey images, which take no memory."""
    pixels = np.broadcast_to(np.zeros((), np.uint8), (count, side, side))
    return ArrayDataset(pixels, [""] * count, None)


def proposed(
    dataset: Dataset, environment: Environment = ROOMY, trial: Trial | None = None
) -> tuple[Proposal, Speed | None]:
    return propose(ShapesSettings(), dataset, Path("runs/mine"), environment, CPU, trial, lambda _: None)


def chosen(proposal: Proposal) -> dict[str, str]:
    return {choice.setting: choice.value for choice in proposal.choices}


@pytest.mark.parametrize(
    ("count", "recipe", "batch", "slots"),
    [
        (2, "folder_small", 2, 2),
        (40, "folder_small", 4, 40),
        (1000, "folder_small", 64, 256),
        (1024, "folder_small", 128, 256),
        (SMALL, "folder_small", 128, 1024),
        (SMALL + 1, "folder_medium", 256, 1024),
        (MEDIUM, "folder_medium", 256, 16384),
        (MEDIUM + 1, "folder_large", 256, 16384),
    ],
)
def test_the_recipe_follows_from_the_number_of_images(
    count: int, recipe: str, batch: int, slots: int
) -> None:
    proposal, speed = proposed(images(count))
    assert (proposal.recipe, speed, proposal.hours, proposal.gigabytes) == (recipe, None, None, None)
    choices = chosen(proposal)
    assert (choices["batch_size"], choices["method.memory.slots"]) == (str(batch), str(slots))
    assert all(choice.reason for choice in proposal.choices)


@pytest.mark.parametrize(
    ("side", "size", "stem"), [(20, "32", "small"), (70, "64", "large"), (300, "224", "large")]
)
def test_views_and_stem_follow_from_the_size_of_the_images(side: int, size: str, stem: str) -> None:
    choices = chosen(proposed(images(100, side))[0])
    assert (choices["image_size"], choices["backbone.stem"]) == (size, stem)


def test_the_command_is_what_the_choices_say() -> None:
    proposal, _ = proposed(images(1000))
    words = shlex.split(proposal.command)
    assert words[:5] == ["crosscontext", "pretrain", "folder_small", "--data", "shapes"]
    assert words[5:] == ["--out", "runs/mine", "--batch-size", "64", "--workers", "2"]
    assert proposal.passes == pytest.approx(400, rel=0.05)


def test_gpus_that_are_not_trained_on_get_no_process() -> None:
    environment = environment_of(gpus=("one", "two"))
    assert "devices" not in chosen(proposed(images(1000), environment)[0])


def test_a_trial_tells_time_and_memory() -> None:
    proposal, speed = proposed(images(24), trial=Trial(1e9, 1e-6))
    assert speed is not None
    assert proposal.hours is not None
    assert proposal.hours == proposal.recipe_hours
    assert proposal.hours > 0
    assert proposal.gigabytes == pytest.approx(speed.gigabytes(2))
    assert "minutes" not in chosen(proposal)
    assert "backbone.width" not in chosen(proposal)


def test_half_of_the_passes_in_time_are_enough_to_keep_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = Speed(
        batch=2, step_images_per_second=10, load_images_per_second=1e9, fixed_bytes=1, bytes_an_image=1
    )
    monkeypatch.setattr("crosscontext.proposal.measure_speed", lambda *_: speed)
    whole, _ = proposed(images(1024), trial=Trial(1e9, 1.0))
    assert whole.hours == pytest.approx(400 * 1024 / 10 / 3600)
    short, _ = proposed(images(1024), trial=Trial(8.0, 1.0))
    assert (short.recipe, short.hours, short.recipe_hours) == ("folder_small", 8, whole.hours)
    assert (chosen(short)["minutes"], "backbone.width" in chosen(short)) == ("480", False)
    assert short.passes == pytest.approx(8 * 3600 * 10 / 1024, abs=0.1)
    shorter, _ = proposed(images(1024), trial=Trial(5.0, 1.0))
    assert shorter.recipe == QUICK
    assert shorter.passes == pytest.approx(5 * 3600 * 10 / 1024, abs=0.1)


@pytest.mark.parametrize(("side", "size"), [(32, "32"), (64, None)])
def test_where_time_is_short_the_recipe_for_minutes_is_proposed(side: int, size: str | None) -> None:
    proposal, _ = proposed(images(24, side), trial=Trial(1e-6, 1e-6))
    choices = chosen(proposal)
    assert (proposal.recipe, choices["minutes"], proposal.hours) == (QUICK, "1", 1e-6)
    assert shlex.split(proposal.command)[2] == QUICK
    assert (choices.get("image_size"), proposal.image_size) == (size, side)
    assert "method.memory.slots" not in choices
    assert proposal.passes is not None
    assert proposal.passes < 400
    assert proposal.recipe_hours is not None
    assert proposal.recipe_hours > 1e-6


def test_where_memory_is_short_the_batch_is_halved() -> None:
    proposal, speed = proposed(images(1024), environment_of(free_gigabytes=1.3), Trial(1e9, 1e-6))
    assert speed is not None
    assert int(chosen(proposal)["batch_size"]) < 128
    assert proposal.gigabytes == pytest.approx(speed.gigabytes(int(chosen(proposal)["batch_size"])))
