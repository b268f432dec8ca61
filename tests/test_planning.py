from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from crosscontext.backbones import ResNetSettings, TimmSettings
from crosscontext.datasets import FolderSettings
from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.datasets.contract import Dataset
from crosscontext.errors import DataError, SettingsError
from crosscontext.methods import CGHSettings
from crosscontext.planning import PretrainSettings, auto_image_size, budget_in_steps, settle
from crosscontext.settings import dump_yaml, load_yaml


def settings_with(**values: object) -> PretrainSettings:
    return PretrainSettings.model_validate({"data": "shapes", "out": "run", **values})


def images(count: int, size: int = 32) -> Dataset:
    return ArrayDataset(np.zeros((count, size, size), np.uint8), [f"{i}" for i in range(count)], None)


def folder_of(path: Path, *sizes: tuple[int, int]) -> Dataset:
    """Real files of these sizes; a size of (0, 0) is an empty file."""
    for number, size in enumerate(sizes):
        file = path / f"{number:02}.png"
        Image.new("RGB", size).save(file) if size != (0, 0) else file.touch()
    return FolderSettings(path=path).open().train


def quiet(line: str) -> None:
    raise AssertionError(f"said: {line}")


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"epochs": 3}, 12),
        ({"epochs": 0.5}, 2),
        ({"epochs": 1e-6}, 1),
        ({"steps": 7}, 7),
        ({"images": 640}, 10),
        ({"images": 1}, 1),
        ({}, 800),
    ],
    ids=str,
)
def test_every_budget_becomes_steps(given: dict[str, float], steps: int) -> None:
    budget = budget_in_steps(settings_with(batch_size=64, **given), num_images=300)
    assert budget == {"epochs": None, "steps": steps, "images": None, "minutes": None}


def test_minutes_stay_until_a_rehearsal_has_timed_the_steps() -> None:
    budget = budget_in_steps(settings_with(minutes=2.5), num_images=300)
    assert budget == {"epochs": None, "steps": None, "images": None, "minutes": 2.5}


def test_two_budgets_are_refused_with_both_values() -> None:
    settings = settings_with(epochs=2, minutes=5)
    with pytest.raises(SettingsError, match=r"given 2 times: epochs 2\.0, minutes 5\.0\. Keep one"):
        budget_in_steps(settings, num_images=300)


def test_a_batch_larger_than_the_set_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"batch_size is 65, but there are only 64 .* at most 64"):
        settle(settings_with(batch_size=65), images(64), quiet)
    assert settle(settings_with(batch_size=64), images(64), lambda _: None).steps == 200


def test_all_that_is_auto_is_settled_and_said_in_one_line() -> None:
    said: list[str] = []
    settled = settle(settings_with(batch_size=64, epochs=1), images(3_000, 40), said.append)
    assert settled.image_size == 32
    assert settled.backbone == ResNetSettings(stem="small")
    assert isinstance(settled.method, CGHSettings)
    assert (settled.method.memory.slots, settled.method.momentum) == (256, 0.99)
    assert "auto" not in [
        str(value) for view in settled.views.model_dump().values() for value in view.values()
    ]
    assert (settled.epochs, settled.steps) == (None, 46)
    (line,) = said
    assert line.startswith("settled for 3000 images of about 32 px: ")
    for part in ("image_size 32", "backbone.stem small", "method.memory.slots 256", "method.momentum 0.99"):
        assert part in line


def test_what_is_settled_stays_when_it_is_settled_again_and_nothing_is_said() -> None:
    settled = settle(settings_with(batch_size=64), images(3_000), lambda _: None)
    assert settle(settled, images(10_000, 96), quiet) == settled


def test_settled_settings_survive_their_file(tmp_path: Path) -> None:
    settled = settle(settings_with(batch_size=64), images(3_000), lambda _: None)
    (tmp_path / "config.yaml").write_text(dump_yaml(settled))
    assert PretrainSettings.model_validate(load_yaml(tmp_path / "config.yaml")) == settled


def test_what_is_set_is_not_overruled() -> None:
    given = settings_with(
        batch_size=64,
        image_size=24,
        backbone={"name": "resnet", "stem": "large"},
        method={"name": "moco", "momentum": 0.9, "memory": {"slots": 100}},
    )
    settled = settle(given, images(3_000, 96), lambda _: None)
    assert (settled.image_size, settled.backbone, settled.method) == (24, given.backbone, given.method)


def test_images_of_less_than_eight_pixels_are_refused() -> None:
    assert settings_with(image_size=8).image_size == 8
    with pytest.raises(ValidationError, match="greater than or equal to 8"):
        settings_with(image_size=7)


@pytest.mark.parametrize(("image_size", "stem"), [(63, "small"), (64, "large"), (224, "large")])
def test_small_images_get_a_stem_of_their_own(image_size: int, stem: str) -> None:
    settled = settle(settings_with(batch_size=8, image_size=image_size), images(300), lambda _: None)
    assert settled.backbone == ResNetSettings(stem=stem)


def test_a_transformer_is_made_for_the_image_size() -> None:
    settings = settings_with(batch_size=8, image_size=64, backbone="vit_tiny_patch16_224")
    settled = settle(settings, images(300), lambda _: None)
    assert settled.backbone == TimmSettings(model="vit_tiny_patch16_224", image_size=64)


@pytest.mark.parametrize(
    ("side", "chosen"), [(8, 32), (31, 32), (32, 32), (47, 32), (48, 48), (100, 96), (224, 224), (999, 224)]
)
def test_the_image_size_is_the_usual_one_that_images_still_fill(side: int, chosen: int) -> None:
    assert auto_image_size(images(5, side)) == chosen


def test_the_short_side_of_the_median_image_decides(tmp_path: Path) -> None:
    assert auto_image_size(folder_of(tmp_path, (500, 64), (70, 300), (10, 10), (400, 400), (65, 65))) == 64


def test_unreadable_images_do_not_decide_the_size(tmp_path: Path) -> None:
    assert auto_image_size(folder_of(tmp_path, (0, 0), (96, 100), (0, 0), (0, 0))) == 96


def test_a_set_without_a_readable_image_is_refused_with_a_cause(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"None of 2 sampled images can be read, e\.g\.: .*\.png"):
        auto_image_size(folder_of(tmp_path, (0, 0), (0, 0)))


@pytest.mark.parametrize(
    "values",
    [{"batch_size": 1}, {"epochs": 0}, {"steps": 0}, {"minutes": -1}, {"images": 0}, {"seed": -1}],
    ids=str,
)
def test_values_out_of_range_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        settings_with(**values)


def test_views_grow_in_parts_of_equal_length() -> None:
    run = PretrainSettings.model_validate(
        {"data": "shapes", "out": "x", "steps": 9, "image_size": 32, "earlier_sizes": [16, 24]}
    )
    assert [run.image_size_at(step) for step in range(-1, 9)] == [16, 16, 16, 16, 24, 24, 24, 32, 32, 32]
    constant = run.model_copy(update={"earlier_sizes": ()})
    assert {constant.image_size_at(step) for step in range(9)} == {32}


def test_the_encoder_may_be_for_larger_pictures_than_the_views() -> None:
    asked = settings_with(batch_size=4, steps=1, image_size=48, backbone="vit_tiny_patch16_224")
    usual = settle(asked, images(4), lambda _: None)
    larger = settle(asked.model_copy(update={"test_size": 64}), images(4), lambda _: None)
    assert (usual.image_size, usual.test_size) == (48, None)
    assert (larger.image_size, larger.test_size) == (48, 64)
    assert larger.views == usual.views
    assert isinstance(larger.backbone, TimmSettings)
    assert larger.backbone.image_size == 64  # position embeddings are made for what is tested
