from pathlib import Path

import numpy as np
import pytest
import torch

from crosscontext.backbones import ResNetSettings
from crosscontext.datasets import BoxDataset, VocSettings
from crosscontext.datasets.subset import part_of
from crosscontext.detection import ScheduleSettings, _example, detect, fit
from crosscontext.detectors import Detector, DetectorSettings, build_detector
from crosscontext.encoders import Preprocessing, encoder_of
from crosscontext.errors import DataError, NonFiniteError, SettingsError
from drawn import Thing, annotate, draw_set, paint_things

BACKBONE = ResNetSettings(depth=10, width=0.125, stem="large")
FEW = {"candidates": (60, 60), "proposals": (30, 20), "rois_per_image": 8, "anchors_per_image": 32}
SHORT = {
    "short_sides": (48, 64),
    "test_short_side": 64,
    "long_side": 96,
    "iterations": 3,
    "learning_rate": 0.01,
}


def detector(seed: int = 0, **settings: object) -> Detector:
    torch.manual_seed(seed)
    encoder = encoder_of(BACKBONE.build(), BACKBONE, Preprocessing.for_size(64), step=1)
    return build_detector(encoder, 2, DetectorSettings.model_validate(FEW | settings), short_side=64)


def schedule(**settings: object) -> ScheduleSettings:
    return ScheduleSettings.model_validate(SHORT | settings)


def drawings(folder: Path, size: int = 6, **kwargs: int) -> BoxDataset:
    dataset = VocSettings(path=draw_set(folder, train=size, **kwargs)).open().train
    assert isinstance(dataset, BoxDataset)
    return dataset


def weights_after(
    dataset: BoxDataset, seed: int, workers: int = 1, **settings: object
) -> dict[str, torch.Tensor]:
    trained = detector()
    fit(trained, dataset, schedule(**settings), seed, workers)
    return trained.state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (90, 60), (60, 130)])
def test_boxes_are_resized_and_mirrored_with_the_picture(tmp_path: Path, width: int, height: int) -> None:
    dataset = drawings(tmp_path, width=width, height=height)
    sizes, lefts = set(), set()
    for epoch in range(12):
        image, corners, labels = _example(dataset, 2, schedule(), seed=0, epoch=epoch)
        sizes.add(min(image.shape[1:]))
        lefts.add(float(corners[0, 0]))
        assert max(image.shape[1:]) <= 96
        colour = (image.float() - image.float().mean(dim=0)).abs().sum(dim=0) > 60
        for left, top, right, bottom in corners.round().long().tolist():
            assert colour[top + 1 : bottom - 1, left + 1 : right - 1].all()
        outside = torch.ones_like(colour)
        for left, top, right, bottom in corners.round().long().tolist():
            outside[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2] = False
        assert not colour[outside].any()
        assert labels.tolist() == (dataset.boxes(2).classes + 1).tolist()
    assert len(sizes) == 2 or height == 130  # there the long side decides
    assert len(lefts) > len(sizes)


def test_the_draws_of_an_image_depend_on_seed_epoch_and_image_alone(tmp_path: Path) -> None:
    dataset = drawings(tmp_path)
    first, again = (_example(dataset, 3, schedule(), seed=1, epoch=5) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    shapes = {
        tuple(_example(dataset, 3, schedule(), seed, epoch).image.shape)
        for seed in (0, 1)
        for epoch in range(5)
    }
    assert len(shapes) == 2


def test_the_same_seed_gives_the_same_weights_with_any_number_of_threads(tmp_path: Path) -> None:
    dataset = drawings(tmp_path)
    first = weights_after(dataset, seed=0)
    torch.manual_seed(99)
    assert same(first, weights_after(dataset, seed=0, workers=3))
    assert not same(first, weights_after(dataset, seed=1))
    assert not same(first, detector().state_dict())


def test_the_global_generator_is_left_as_it_was(tmp_path: Path) -> None:
    trained = detector()
    before = torch.get_rng_state()
    fit(trained, drawings(tmp_path), schedule(iterations=1), 0, 1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("head", ["c4", "fpn"])
def test_frozen_batch_norm_stays_as_it_was_and_the_rest_is_trained(tmp_path: Path, head: str) -> None:
    trained = detector(head=head, batch_norm="frozen")
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    fit(trained, drawings(tmp_path), schedule(), 0, 1)
    moved = {name for name, value in trained.state_dict().items() if not torch.equal(value, before[name])}
    frozen = {name for name in before if "bn" in name or "downsample.1" in name}
    assert frozen
    assert not moved & frozen
    assert {name for name in moved if "conv1.weight" in name}


def test_trained_batch_norm_moves(tmp_path: Path) -> None:
    trained = detector(batch_norm="train")
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    fit(trained, drawings(tmp_path), schedule(), 0, 1)
    after = trained.state_dict()
    norms = [name for name in before if name.endswith(("bn2.weight", "bn1.running_mean"))]
    assert norms
    assert not any(torch.equal(after[name], before[name]) for name in norms)


def test_an_image_is_looked_at_alone(tmp_path: Path) -> None:
    dataset = drawings(tmp_path, width=80)
    looking = detector(score_threshold=0.0, max_detections=5)
    whole = detect(looking, dataset, schedule(), workers=2)
    assert whole.indices == list(range(6))
    (alone,) = detect(looking, part_of(dataset, [4]), schedule(), workers=1).detections  # type: ignore[arg-type] # has boxes
    for of_whole, of_one in zip(whole.detections[4], alone, strict=True):
        assert np.array_equal(of_whole, of_one)


def test_detections_are_in_pixels_of_the_whole_image(tmp_path: Path) -> None:
    small, large = (
        drawings(tmp_path / "s", width=64, height=64),
        drawings(tmp_path / "l", width=640, height=640),
    )
    looking = detector(score_threshold=0.0, max_detections=50)
    for dataset, side in ((small, 64), (large, 640)):
        corners = detect(looking, dataset, schedule(), workers=1).detections[0].corners
        assert corners.dtype == np.float32
        assert 0.6 * side < corners.max() <= side * (1 + 1e-6)


def test_images_without_boxes_teach_nothing_and_are_counted(tmp_path: Path) -> None:
    dataset = drawings(tmp_path)
    for name in dataset.names[:2]:
        annotate(tmp_path / "Annotations" / f"{Path(name).stem}.xml", [], 64, 64)
    hard = Thing("red", 5, 5, 30, 30, difficult=True)
    annotate(tmp_path / "Annotations" / "train_02.xml", [hard], 64, 64)
    reopened = VocSettings(path=tmp_path).open().train
    assert isinstance(reopened, BoxDataset)
    assert fit(detector(), reopened, schedule(iterations=1), 0, 1).without_boxes == 3
    learned = fit(detector(), reopened, schedule(iterations=1, learn_difficult=True), 0, 1)
    assert learned.without_boxes == 2


def test_training_images_without_a_single_box_are_refused(tmp_path: Path) -> None:
    dataset = drawings(tmp_path, size=2)
    for name in dataset.names:
        annotate(tmp_path / "Annotations" / f"{Path(name).stem}.xml", [], 64, 64)
    empty = VocSettings(path=tmp_path, class_names=("red",)).open().train
    assert isinstance(empty, BoxDataset)
    with pytest.raises(DataError, match=r"None of the 2 training images has a box to learn from"):
        fit(detector(), empty, schedule(), 0, 1)


def test_a_batch_larger_than_the_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"batch of 7 images cannot be made of 6 .*schedule\.batch_size to 6"
    ):
        fit(detector(), drawings(tmp_path), schedule(batch_size=7), 0, 1)


def test_unreadable_images_and_images_of_another_size_are_left_out_and_named(tmp_path: Path) -> None:
    dataset = drawings(tmp_path)
    (tmp_path / "JPEGImages" / "train_01.png").write_bytes(b"")
    paint_things(tmp_path / "JPEGImages" / "train_04.png", [Thing("red", 2, 2, 20, 9)], 64, 10)
    trained = detector()
    fitting = fit(trained, dataset, schedule(iterations=6), 0, 2)
    assert list(fitting.skipped) == ["train_01.png", "train_04.png"]
    assert "has 64 × 10 pixels, and a box that reaches to" in fitting.skipped["train_04.png"]
    found = detect(trained, dataset, schedule(), 2)
    assert found.indices == [0, 2, 3, 5]
    assert found.skipped == fitting.skipped


def test_a_set_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    dataset = drawings(tmp_path, size=2)
    for name in dataset.names:
        (tmp_path / "JPEGImages" / name).write_bytes(b"nothing")
    for call in (
        lambda: fit(detector(), dataset, schedule(), 0, 1),
        lambda: detect(detector(), dataset, schedule(), 1),
    ):
        with pytest.raises(DataError, match=r"None of 2 images can be read: cannot decode 'train_00\.png'"):
            call()


def test_a_loss_that_is_no_number_stops_the_training(tmp_path: Path) -> None:
    with pytest.raises(
        NonFiniteError, match=r"At step \d+ of the detector's training .*schedule\.learning_rate"
    ):
        fit(
            detector(),
            drawings(tmp_path),
            schedule(learning_rate=1e12, warmup="0 steps", iterations=20),
            0,
            1,
        )


@pytest.mark.slow
@pytest.mark.parametrize("head", ["c4", "fpn"])
def test_rectangles_are_learned(tmp_path: Path, head: str) -> None:
    dataset = drawings(tmp_path, size=12)
    trained = detector(head=head)
    long = schedule(iterations=60, learning_rate=0.02, short_sides=(64,))
    fitting = fit(trained, dataset, long, 0, 1)
    first = fit(detector(head=head), dataset, schedule(iterations=3), 0, 1)
    assert fitting.last_loss < 0.8 * first.last_loss
