import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from crosscontext.average_precision import AveragePrecision
from crosscontext.backbones import ResNetSettings
from crosscontext.datasets import VocSettings
from crosscontext.encoders import Encoder, Preprocessing, encoder_of, save_encoder
from crosscontext.errors import DataError, SettingsError
from crosscontext.evaluation import EvaluateSettings, evaluate
from crosscontext.references import Pixels
from crosscontext.settings import load_yaml
from crosscontext.splits import Parts, open_parts
from crosscontext.subjects import Subject
from crosscontext.tasks import DetectSettings, Measurement
from drawn import Thing, annotate, draw_set, things

BACKBONE = ResNetSettings(depth=10, width=0.125, stem="large")
DETECTOR = {"candidates": (60, 60), "proposals": (30, 20), "rois_per_image": 8, "score_threshold": 0.0}
RECIPES = Path(__file__).parents[2] / "recipes" / "evaluate"
SCHEDULE = {"short_sides": (48, 64), "test_short_side": 64, "long_side": 96, "iterations": 3}


def task(**detector: object) -> DetectSettings:
    return DetectSettings.model_validate({"detector": DETECTOR | detector, "schedule": SCHEDULE})


def encoder() -> Encoder:
    torch.manual_seed(0)
    return encoder_of(BACKBONE.build(), BACKBONE, Preprocessing.for_size(64), step=1).eval()


def parts(folder: Path) -> Parts:
    return open_parts(VocSettings(path=folder), None, "boxes")


def judged(folder: Path, seed: int = 0, workers: int = 1, **detector: object) -> list[Measurement]:
    subject = Subject("encoder", encoder(), parts(folder), seed, workers=workers)
    return list(task(**detector).judge(subject))


def detections(measurement: Measurement) -> list[torch.Tensor]:
    """Image and score of every detection, class by class."""
    assert isinstance(measurement.statistic, AveragePrecision)
    return [
        tensor for matches in measurement.statistic.matches for tensor in (matches.images, matches.scores)
    ]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_set(tmp_path_factory.mktemp("drawn"), train=6, test=5)


@pytest.mark.parametrize("head", ["c4", "fpn"])
def test_there_are_three_metrics_of_the_test_images(pictures: Path, head: str) -> None:
    measured = judged(pictures, head=head)
    assert [m.metric for m in measured] == ["ap", "ap50", "ap75"]
    assert all(0 <= m.value <= 1 and m.statistic.n == 5 for m in measured)
    assert sum(len(tensor) for tensor in detections(measured[0])) > 0
    json.dumps(measured[0].details, allow_nan=False)


def test_the_same_seed_gives_the_same_detections_with_any_number_of_threads(pictures: Path) -> None:
    first, again, other = judged(pictures), judged(pictures, workers=3), judged(pictures, seed=1)
    assert [m.value for m in first] == [m.value for m in again]
    assert all(torch.equal(*pair) for pair in zip(detections(first[0]), detections(again[0]), strict=True))
    assert first[0].details == again[0].details
    assert first[0].details["last_loss"] != other[0].details["last_loss"]


def test_test_boxes_touch_neither_training_nor_detections(pictures: Path, tmp_path: Path) -> None:
    poisoned = draw_set(tmp_path, train=6, test=5)
    for number in range(6, 11):
        wrong = [thing._replace(left=1, top=1) for thing in things(number + 1, 64, 64)]
        annotate(poisoned / "Annotations" / f"test_{number:02}.xml", wrong, 64, 64)
    honest, misled = judged(pictures)[0], judged(poisoned)[0]
    assert all(torch.equal(*pair) for pair in zip(detections(honest), detections(misled), strict=True))
    assert honest.details["last_loss"] == misled.details["last_loss"]


def test_the_encoder_is_left_as_it_was(pictures: Path) -> None:
    model = encoder()
    before = model.digest
    list(task().judge(Subject("encoder", model, parts(pictures), 0)))
    assert model.digest == before
    assert not model.training


def test_what_was_left_out_is_told(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=6, test=5)
    annotate(folder / "Annotations" / "train_00.xml", [], 64, 64)
    flat, kept = Thing("red", 9, 9, 9, 20), Thing("blue", 10, 10, 30, 30)
    annotate(folder / "Annotations" / "test_06.xml", [flat, kept], 64, 64)
    (folder / "JPEGImages" / "test_07.png").write_bytes(b"")
    details = judged(folder)[0].details
    assert details["training_images_without_boxes"] == 1
    assert details["boxes_left_out"] == {
        "train": {"number": 0, "such_as": []},
        "test": {"number": 1, "such_as": ["test_06.png: box [10.0, 10.0, 9.0, 20.0] has no area"]},
    }
    unreadable = details["unreadable"]
    assert isinstance(unreadable, dict)
    assert list(unreadable["test"]) == ["test_07.png"]
    assert judged(folder)[0].statistic.n == 4


def test_a_class_without_test_boxes_has_no_value_of_its_own(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=6, test=2)
    for name in ("test_06", "test_07"):
        annotate(folder / "Annotations" / f"{name}.xml", [Thing("blue", 10, 10, 30, 30)], 64, 64)
    by_class = judged(folder)[0].details["ap50_by_class"]
    assert isinstance(by_class, dict)
    assert by_class["red"] is None
    assert by_class["blue"] is not None


def test_a_class_that_is_only_in_the_test_images_is_refused(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=1, test=4)
    annotate(folder / "Annotations" / "train_00.xml", [Thing("blue", 10, 10, 30, 30)], 64, 64)
    with pytest.raises(DataError, match=r"the training images lack red\."):
        parts(folder)


def test_test_images_without_a_box_to_be_found_are_refused(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=6, test=2)
    annotate(folder / "Annotations" / "test_06.xml", [], 64, 64)
    annotate(folder / "Annotations" / "test_07.xml", [Thing("red", 1, 1, 9, 9, difficult=True)], 64, 64)
    with pytest.raises(DataError, match=r"None of the 2 test images has a box to be found"):
        judged(folder)


def test_pixels_cannot_be_judged(pictures: Path) -> None:
    pixels = Pixels(Preprocessing.for_size(64))
    with pytest.raises(SettingsError, match=r"pixels has none\. Leave pixels out of references"):
        list(task().judge(Subject("pixels", pixels, parts(pictures), 0)))


def test_without_pycocotools_the_error_says_what_to_install(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(SettingsError, match=r'pip install "crosscontext\[detect\]"'):
        judged(pictures)


@pytest.mark.usefixtures("impatient")
def test_evaluate_writes_scores_with_intervals_for_encoder_and_random_twin(
    pictures: Path, tmp_path: Path
) -> None:
    save_encoder(tmp_path / "encoder.safetensors", encoder())
    settings = EvaluateSettings(
        run=tmp_path / "encoder.safetensors", data=VocSettings(path=pictures), tasks=(task(),)
    )
    said: list[str] = []
    scores = evaluate(settings, said.append)
    assert [(s.model, s.metric) for s in scores] == [
        (model, metric) for model in ("encoder", "random") for metric in ("ap", "ap50", "ap75")
    ]
    assert all(np.isfinite([s.low, s.value, s.high]).all() and s.low <= s.high for s in scores)
    assert "pixels: no detect, which needs a network" in said
    assert any(line.startswith("random: detect: step 2 of ") for line in said)
    assert scores[0].protocol["task"] == task().model_dump(mode="json")


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*detection*.yaml")), ids=lambda path: path.stem)
def test_recipes_say_all_that_differs_from_the_defaults(recipe: Path) -> None:
    (chosen,) = EvaluateSettings.model_validate({"run": "run", **load_yaml(recipe)}).tasks
    assert isinstance(chosen, DetectSettings)
    assert {"iterations", "learning_rate", "short_sides", "batch_size"} <= chosen.schedule.model_fields_set


def test_a_set_without_test_part_is_divided_by_its_names(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=20)
    divided = parts(folder)
    assert divided.test_from == "hash of names"
    assert {divided.train.annotation, divided.test.annotation} == {"boxes"}
    assert len(divided.train.names) + len(divided.test.names) == 20
