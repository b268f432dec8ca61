from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from crosscontext.backbones import ResNetSettings
from crosscontext.collapse import CollapseSettings, Verdict, verdict_on
from crosscontext.errors import CollapseError
from crosscontext.pretraining import pretrain
from crosscontext.run_folder import RunFolder
from crosscontext.schedules import Plan
from crosscontext.tracking import Silence, read_metrics
from tiny_run import TINY, settings, state_of

SETTINGS, PLAN = CollapseSettings(), Plan(1000, 10, total_steps=100)
SOUND, FLAT, NARROW = (0.4, 0.6), (0.4, 0.01), (0.01, 0.6)


def verdict(*measured: tuple[float, float], first: int = 10, entropy: float = 0.5) -> Verdict | None:
    """On measurements at steps 10, 20, … unless they begin elsewhere."""
    lines = [
        {"step": first + 10 * place, "health/rankme_share": rank, "health/feature_std": spread}
        for place, (rank, spread) in enumerate(measured)
    ]
    return verdict_on([{**line, "health/relation_entropy_global": entropy} for line in lines], SETTINGS, PLAN)


def test_sound_features_are_green() -> None:
    assert verdict(SOUND) is None
    assert verdict(FLAT, FLAT, SOUND) is None


@pytest.mark.parametrize(
    ("low", "seen"), [(FLAT, "spread of the features is 0.01, below 0.07"), (NARROW, "RankMe is 1.00% of")]
)
def test_the_first_low_measurement_is_amber_and_the_second_in_a_row_red(
    low: tuple[float, float], seen: str
) -> None:
    for amber in (verdict(SOUND, low), verdict(low, SOUND, low)):
        assert amber is not None
        assert amber.level == "amber"
        assert seen in amber.sentence
    red = verdict(SOUND, low, low)
    assert red is not None
    assert red.level == "red"
    assert "2 measurements in a row" in red.sentence


def test_what_was_measured_before_the_warm_up_is_over_does_not_count() -> None:
    assert verdict(FLAT, first=9) is None
    later = verdict(FLAT, FLAT, first=9)
    assert later is not None
    assert later.level == "amber"


@pytest.mark.parametrize(
    ("entropy", "cause"),
    [
        (0.001, "the teacher's relations have become one-hot"),
        (0.999, "the teacher's relations are uniform"),
        (0.5, "steps too large"),
    ],
)
def test_the_cause_is_read_off_the_relations(entropy: float, cause: str) -> None:
    found = verdict(FLAT, entropy=entropy)
    assert found is not None
    assert f"Likely cause: {cause}" in found.sentence
    assert "Next: " in found.sentence


class Told(Silence):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def dead_weights(tmp_path: Path) -> Path:
    """A network whose features are zero for every image, and have no gradient."""
    file = tmp_path / "dead.safetensors"
    network = ResNetSettings.model_validate(TINY).resolve(16).build().model
    save_file({name: torch.zeros_like(value) for name, value in network.state_dict().items()}, file)
    return file


def test_a_collapsed_run_is_warned_of_then_stopped_with_its_own_exit_code(
    image_folder: Path, tmp_path: Path, dead_weights: Path
) -> None:
    dead = settings(image_folder, tmp_path / "run", backbone=TINY | {"weights": dead_weights})
    told = Told()
    with pytest.raises(CollapseError, match=r"Collapsed at step 2 \(red\): .*Next: ") as collapse:
        pretrain(dead, told)
    assert collapse.value.exit_code == 3
    assert [line[:35] for line in told.lines if "amber" in line] == ["Close to a collapse at step 1 (ambe"]
    folder = RunFolder(dead.out)
    assert state_of(folder)["step"] == read_metrics(folder.metrics)[-1]["step"] == 2
    with pytest.raises(CollapseError, match="Collapsed at step 3"):  # a resumed run remembers
        pretrain(dead.model_copy(update={"resume": True}))
    trusting = {"resume": True, "collapse": CollapseSettings(rank=0, spread=0)}
    assert state_of(pretrain(dead.model_copy(update=trusting)))["step"] == 10


def test_neither_an_untrained_nor_a_trained_network_is_suspected(image_folder: Path, tmp_path: Path) -> None:
    told = Told()
    run = pretrain(settings(image_folder, tmp_path / "run"), told)
    assert not [line for line in told.lines if "collapse" in line]
    for line in read_metrics(run.metrics):
        assert line["health/rankme_share"] > 3 * SETTINGS.rank
        assert line["health/feature_std"] > 3 * SETTINGS.spread
