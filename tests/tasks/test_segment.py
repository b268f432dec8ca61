from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from crosscontext.backbones import ResNetSettings
from crosscontext.convolutional_head import FinetuneSettings
from crosscontext.encoders import Encoder, Preprocessing, encoder_of, save_encoder
from crosscontext.errors import DataError
from crosscontext.evaluation import EvaluateSettings, evaluate
from crosscontext.hypercolumn_head import FrozenSettings
from crosscontext.overlap import MeanIoU, Overlap
from crosscontext.run_folder import RunFolder
from crosscontext.subjects import Subject
from crosscontext.tasks import Measurement, SegmentSettings
from drawn_masks import BLOCK, HEIGHT, IGNORE, LINE, WIDTH, draw, masks_of, subject, write_pair, write_set

SMALL = ResNetSettings(depth=10, width=0.125, stem="small")
FROZEN = SegmentSettings(mode=FrozenSettings(pixels=2000, penalties=(1e-3, 1e-1)))
FINETUNED = SegmentSettings(mode=FinetuneSettings(epochs=2, batch_size=4, crop=24))
MODES = pytest.mark.parametrize("settings", [FROZEN, FINETUNED], ids=["frozen", "finetune"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training and five test images; read only."""
    return write_set(tmp_path_factory.mktemp("drawn"), train=12, test=5)


def encoder() -> Encoder:
    torch.manual_seed(0)
    made = encoder_of(SMALL.build(), SMALL, Preprocessing.for_size(32), step=0)
    pictures = [draw(1000 + i, 32, 32)[0] for i in range(16)]
    made.train()(torch.stack([made.preprocess(Image.fromarray(picture)) for picture in pictures]))
    return made.eval()


def judged(settings: SegmentSettings, examined: Subject) -> dict[str, Measurement]:
    return {measurement.metric: measurement for measurement in settings.judge(examined)}


def overlap_of(measurement: Measurement) -> Overlap:
    assert isinstance(measurement.statistic, MeanIoU)
    return measurement.statistic.overlap


def rewrite(root: Path, part: str, change: dict[int, int]) -> None:
    """Exchange values in all masks of a part."""
    for file in masks_of(root, part):
        values = np.asarray(Image.open(file))
        Image.fromarray(np.vectorize(lambda v: change.get(v, v))(values).astype(np.uint8)).save(file)


def test_fine_lines_are_seen_by_the_hypercolumn_not_by_the_last_stage(folder: Path) -> None:
    measured = judged(FROZEN, subject(folder, encoder()))
    assert list(measured) == [
        "miou_stages_1234",
        "accuracy_stages_1234",
        "miou_stages_4",
        "accuracy_stages_4",
    ]
    hyper, last = measured["miou_stages_1234"], measured["miou_stages_4"]
    assert hyper.value > 0.7
    assert hyper.value > last.value + 0.2
    assert measured["accuracy_stages_1234"].value > 0.9
    iou = hyper.details["iou"]
    assert isinstance(iou, dict)
    assert list(iou) == ["background", "block", "line"]
    assert sum(iou.values()) / 3 == pytest.approx(hyper.value)


def test_fine_tuning_learns_more_than_the_most_frequent_class(folder: Path) -> None:
    settings = SegmentSettings(mode=FinetuneSettings(epochs=16, batch_size=4, crop=32, learning_rate=0.05))
    measured = judged(settings, subject(folder, encoder()))
    assert list(measured) == ["miou_fcn", "accuracy_fcn"]
    assert measured["miou_fcn"].value > 0.4  # background alone: about 0.25


@MODES
def test_the_counts_are_those_of_the_masks(folder: Path, settings: SegmentSettings) -> None:
    """Each image counts once, and only with its pixels that are not ignored."""
    for measurement in judged(settings, subject(folder, encoder())).values():
        if isinstance(measurement.statistic, MeanIoU):
            expected = [np.bincount(draw(100 + i)[1].flatten(), minlength=3)[:3].tolist() for i in range(5)]
            overlap = overlap_of(measurement)
            assert overlap.in_masks.tolist() == expected
            assert torch.equal(overlap.in_predictions.sum(dim=1), overlap.in_masks.sum(dim=1))


@MODES
def test_test_masks_touch_neither_choices_nor_predictions(tmp_path: Path, settings: SegmentSettings) -> None:
    """With the classes of the test masks exchanged, only what is right changes."""
    write_set(tmp_path, train=6, test=4)
    honest = judged(settings, subject(tmp_path, encoder()))
    rewrite(tmp_path, "test", {0: BLOCK, BLOCK: LINE, LINE: 0})
    poisoned = judged(settings, subject(tmp_path, encoder()))
    assert list(honest) == list(poisoned)
    for metric, measurement in honest.items():
        if isinstance(measurement.statistic, MeanIoU):
            ours, theirs = overlap_of(measurement), overlap_of(poisoned[metric])
            assert torch.equal(ours.in_predictions, theirs.in_predictions)
            assert not torch.equal(ours.hits, theirs.hits)
        for key in measurement.details.keys() - {"iou"}:
            assert poisoned[metric].details[key] == measurement.details[key]


@MODES
def test_nothing_but_the_seed_matters(folder: Path, settings: SegmentSettings) -> None:
    """Bitwise the same predictions whatever the batch, the workers and the state of the global generator."""

    def predictions(examined: Subject) -> list[Tensor]:
        torch.rand(3)
        return [
            overlap_of(found).in_predictions
            for found in judged(settings, examined).values()
            if isinstance(found.statistic, MeanIoU)
        ]

    first = predictions(subject(folder, encoder(), batch_size=256, workers=2))
    again = predictions(subject(folder, encoder(), batch_size=1, workers=0))
    other = predictions(subject(folder, encoder(), seed=1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@MODES
def test_the_network_that_is_judged_stays_as_it_is(folder: Path, settings: SegmentSettings) -> None:
    model = encoder()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    judged(settings, subject(folder, model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training


def test_ignored_training_pixels_are_not_learned_from(tmp_path: Path) -> None:
    """Where all blocks are ignored in training, nothing is called a block."""
    write_set(tmp_path, train=8, test=3)
    rewrite(tmp_path, "train", {BLOCK: IGNORE})
    measured = judged(FROZEN, subject(tmp_path, encoder()))
    overlap = overlap_of(measured["miou_stages_1234"])
    assert int(overlap.in_predictions[:, BLOCK].sum()) <= 0.01 * int(overlap.in_masks.sum())
    assert measured["miou_stages_1234"].details["classes_without_training_pixels"] == ["block"]


@MODES
def test_classes_that_a_part_lacks_are_named(tmp_path: Path, settings: SegmentSettings) -> None:
    write_set(tmp_path, train=6, test=3)
    rewrite(tmp_path, "test", {LINE: 0})
    (tmp_path / "classes.txt").write_text("0 background\n1 block\n2 line\n3 tree\n9 frame (ignore)\n")
    details = next(settings.judge(subject(tmp_path, encoder()))).details
    assert details["classes_without_training_pixels"] == ["tree"]
    assert details["classes_without_test_pixels"] == ["line", "tree"]
    iou = details["iou"]
    assert isinstance(iou, dict)
    assert list(iou) == ["background", "block"]


def test_a_class_of_test_images_alone_counts_with_its_zero(tmp_path: Path) -> None:
    write_set(tmp_path, train=6, test=3)
    pixels, mask = draw(100)
    mask[20:24, 20:24] = 3
    write_pair(tmp_path / "test", "00", pixels, mask)
    (tmp_path / "classes.txt").write_text("0 background\n1 block\n2 line\n3 tree\n9 frame (ignore)\n")
    measured = judged(FROZEN, subject(tmp_path, encoder()))["miou_stages_1234"]
    ious = measured.details["iou"]
    assert isinstance(ious, dict)
    assert ious["tree"] == 0
    assert measured.value == pytest.approx(sum(ious.values()) / 4)


@MODES
def test_what_cannot_be_read_is_left_out_and_named(tmp_path: Path, settings: SegmentSettings) -> None:
    write_set(tmp_path, train=6, test=3)
    masks_of(tmp_path, "train")[2].write_bytes(b"")
    (tmp_path / "test" / "images" / "01.png").write_bytes(b"")
    for part, name in (("train", "04"), ("test", "02")):
        write_pair(tmp_path / part, name, draw(102)[0], np.full((HEIGHT, WIDTH), IGNORE, np.uint8))
    measurement = next(settings.judge(subject(tmp_path, encoder())))
    assert measurement.details["unreadable_images"] == ["test/images/01.png", "train/images/02.png"]
    assert measurement.details["images_without_counted_pixels"] == 2
    assert measurement.statistic.n == 1


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_in_which_nothing_counts_is_refused(tmp_path: Path, part: str) -> None:
    write_set(tmp_path, train=4, test=3)
    rewrite(tmp_path, part, dict.fromkeys(range(3), IGNORE))
    name = {"train": "4 training", "test": "3 test"}[part]
    with pytest.raises(DataError, match=rf"None of {name} images has a pixel that counts"):
        judged(FROZEN, subject(tmp_path, encoder()))


def test_images_of_any_size_and_scale_are_judged_at_the_size_of_their_masks(tmp_path: Path) -> None:
    write_set(tmp_path, train=6, test=2)
    write_pair(tmp_path / "test", "01", *draw(7, height=50, width=21))
    for scale in (0.6, 1.5):
        settings = FROZEN.model_copy(update={"scale": scale})
        overlap = overlap_of(judged(settings, subject(tmp_path, encoder()))["miou_stages_4"])
        assert overlap.in_masks.sum(dim=1).tolist() == [34 * 42, 48 * 19]


@pytest.mark.usefixtures("impatient")
def test_scores_are_taken_by_evaluate(folder: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    save_encoder(run.encoder, encoder())
    said: list[str] = []
    tasks: Sequence[object] = [FROZEN, {"name": "segment", "mode": FINETUNED.mode}]
    scores = evaluate(
        EvaluateSettings.model_validate({"run": tmp_path, "data": folder, "tasks": tasks}), said.append
    )
    metrics = {(score.model, score.metric) for score in scores}
    names = ("stages_1234", "stages_4", "fcn")
    assert metrics == {
        (model, f"{kind}_{name}")
        for model in ("encoder", "random")
        for kind in ("miou", "accuracy")
        for name in names
    }
    assert all(0 <= score.low <= score.high <= 1 and score.n == 5 for score in scores)
    assert len({score.protocol_digest for score in scores}) == 2
    assert said[0] == "12 training and 5 test images of 3 classes (test images: own)"
    assert "pixels: no segment, which needs a network" in said
    assert any(line.startswith("random: fcn: step 2 of ") for line in said)


def test_modes_are_named_in_short() -> None:
    short = SegmentSettings.model_validate({"mode": "finetune"})
    assert short == SegmentSettings(mode=FinetuneSettings())
    assert SegmentSettings.model_validate_json(short.model_dump_json()) == short
    assert SegmentSettings().mode == FrozenSettings()
