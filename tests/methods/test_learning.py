"""Methods learn from shapes: k-NN on their features is better than on those of an untrained network.

Short runs need other settings than long ones: norms in the heads, faster teachers, smaller projections, and
relations of an untrained network must not be held to sharply.
Methods without negatives first learn what is invariant, whether it tells classes apart or not; they get more
steps, and views that are often grey.
"""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from crosscontext.evaluation import EvaluateSettings, evaluate
from crosscontext.pretraining import PretrainSettings, pretrain
from crosscontext.results import Score

COMMON: dict[str, Any] = {
    "data": {"name": "shapes", "num_test": 5000},  # intervals of ±1.2 %
    "image_size": 32,
    "batch_size": 64,
    "backbone": {"name": "resnet", "depth": 10, "width": 0.125, "stem": "medium"},
    "monitor": {"every": "100%", "images": 1000},
    "report": False,
    "threads": 1,
    "workers": 1,
}
WEAK = {"scale": [0.5, 1.0]}
COLOURED = {"weak": WEAK, "strong": {"scale": [0.4, 1.0]}}
GREY = {"weak": WEAK, "strong": {"scale": [0.5, 1.0], "grey_probability": 0.6}}

FAST_TEACHER = {"contexts": {"hidden_norm": True}, "momentum": 0.95}
FASTER_TEACHER = {**FAST_TEACHER, "momentum": 0.9, "memory": {"slots": 512}}
LESS_CONSISTENT = {"consistency_weight": 1.0, "temperature_consistency": 0.2}
SMALL = {"projection": {"layers": 2, "hidden_width": 256, "width": 128}}
FEW_PROTOTYPES = {
    "projection": {"layers": 2, "hidden_width": 256, "width": 64},
    "prototypes": 512,
    "prototypes_frozen": "10 steps",
    "temperature_teacher": 0.04,
}


class Run(NamedTuple):
    """What is not the same for all runs."""

    steps: int
    learning_rate: float
    views: dict[str, Any]
    method: dict[str, Any]


RUNS = {
    "cgh": Run(400, 0.5, COLOURED, {**FAST_TEACHER, "contrast_kept": 0.5, "warmup": "20%"}),
    "ressl": Run(1200, 0.5, GREY, FASTER_TEACHER),
    "sce": Run(700, 0.5, COLOURED, FAST_TEACHER),
    "moco": Run(600, 0.5, GREY, FASTER_TEACHER),
    "co2": Run(700, 0.5, GREY, {**FASTER_TEACHER, **LESS_CONSISTENT}),
    "simclr": Run(200, 0.5, GREY, {}),
    "simcgh": Run(400, 0.5, GREY, {}),
    "byol": Run(1800, 0.5, GREY, {**SMALL, "prediction_width": 64, "momentum": 0.9}),
    "simsiam": Run(1200, 0.5, GREY, {**SMALL, "prediction_width": 64}),
    "dino": Run(1400, 1.0, GREY, {**FEW_PROTOTYPES, "momentum": 0.98}),
    "barlow_twins": Run(1000, 0.005, GREY, SMALL),  # its loss is a sum: gradients are a hundred times larger
    "vicreg": Run(500, 1.0, GREY, {**SMALL, "covariance_weight": 0.2}),
    "supervised": Run(150, 0.5, COLOURED, {}),
}


def pretrained(out: Path, name: str, run: Run, **changes: Any) -> Path:
    settings = {
        **COMMON,
        "out": out,
        "steps": run.steps,
        "views": run.views,
        "optimizer": {"learning_rate": run.learning_rate},
        "method": {"name": name, **run.method},
    }
    pretrain(PretrainSettings.model_validate(settings | changes))
    return out


def knn(run: Path, *references: str) -> list[Score]:
    chosen = {"run": run, "tasks": [{"name": "knn", "k": [20]}], "references": references, "threads": 1}
    return [*evaluate(EvaluateSettings.model_validate(chosen))]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Score:
    run = pretrained(tmp_path_factory.mktemp("untrained"), "supervised", Run(1, 0.5, COLOURED, {}))
    (score,) = (score for score in knn(run, "random") if score.model == "random")
    return score


def assert_better(out: Path, untrained: Score) -> None:
    (trained,) = knn(out)
    assert trained.low > untrained.high


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_features_are_better_than_those_of_an_untrained_network(
    name: str, untrained: Score, tmp_path: Path
) -> None:
    assert_better(pretrained(tmp_path, name, RUNS[name]), untrained)


@pytest.mark.slow
def test_a_student_learns_from_a_larger_trained_teacher(untrained: Score, tmp_path: Path) -> None:
    wider = {**COMMON["backbone"], "width": 0.25}
    teacher = pretrained(tmp_path / "teacher", "simclr", RUNS["simclr"], backbone=wider)
    run = Run(400, 0.5, COLOURED, {"teacher": teacher})
    assert_better(pretrained(tmp_path / "student", "distill", run), untrained)
