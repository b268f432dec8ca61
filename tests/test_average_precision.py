import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from crosscontext.average_precision import IOU_THRESHOLDS, AveragePrecision, Detections, match
from crosscontext.confidence import interval, resample, value_of
from crosscontext.datasets import Boxes

ALL = range(10)
FULL, LEFT_HALF, AWAY = (0, 0, 10, 10), (0, 0, 5, 10), (50, 50, 60, 60)


def boxes(*corners: Sequence[float], classes: Sequence[int] = (), difficult: Sequence[int] = ()) -> Boxes:
    return Boxes(
        np.array(corners, dtype=np.float32).reshape(-1, 4),
        np.array(classes or [0] * len(corners), dtype=np.int64),
        np.array(difficult or [0] * len(corners), dtype=bool),
    )


def found(*scored: tuple[Sequence[float], float], classes: Sequence[int] = ()) -> Detections:
    return Detections(
        np.array([corners for corners, _ in scored], dtype=np.float32).reshape(-1, 4),
        np.array(classes or [0] * len(scored), dtype=np.int64),
        np.array([score for _, score in scored], dtype=np.float32),
    )


def value(
    detections: Sequence[Detections],
    true: Sequence[Boxes],
    num_classes: int = 1,
    thresholds: Sequence[int] = ALL,
) -> float:
    return value_of(AveragePrecision(match(detections, true, num_classes, 100), thresholds))


def scenes(
    num_images: int, num_classes: int, seed: int, digits: int = 2
) -> tuple[list[Detections], list[Boxes]]:
    """Boxes in a crowd, found with noise: some twice, some never, some of no object, some equally sure."""
    generator = np.random.default_rng(seed)
    all_found, all_true = [], []
    for _ in range(num_images):
        size = int(generator.integers(0, 7))
        corners = generator.uniform(0, 60, (size, 2))
        corners = np.concatenate([corners, corners + generator.uniform(5, 40, (size, 2))], axis=1)
        classes = generator.integers(0, num_classes, size)
        difficult = generator.random(size) < 0.2
        all_true.append(Boxes(corners.astype(np.float32), classes, difficult))
        again = generator.integers(0, max(size, 1), int(generator.integers(0, 9)) if size else 0)
        guesses = corners[again] + generator.normal(0, 2, (len(again), 4))
        strays = generator.uniform(0, 40, (3, 4))
        strays[:, 2:] += strays[:, :2]
        named = np.concatenate([classes[again], generator.integers(0, num_classes, 3)])
        scores = generator.random(len(named)).round(digits)
        guessed = np.concatenate([guesses, strays]).astype(np.float32)
        all_found.append(Detections(guessed, named, scores.astype(np.float32)))
    return all_found, all_true


def by_pycocotools(detections: Sequence[Detections], true: Sequence[Boxes], num_classes: int) -> Any:
    """Precision of COCO's own evaluation: (thresholds, recalls, classes), −1 where a class has no box."""

    def coco(rows: list[dict[str, Any]]) -> Any:
        listed = COCO()
        listed.dataset = {
            "images": [{"id": i} for i in range(len(true))],
            "categories": [{"id": i} for i in range(num_classes)],
            "annotations": [{"id": i, **row} for i, row in enumerate(rows, start=1)],
        }
        listed.createIndex()
        return listed

    def row(image: int, corners: np.ndarray, label: int, **more: float) -> dict[str, Any]:
        left, top, right, bottom = map(float, corners)
        bbox = [left, top, right - left, bottom - top]
        return {"image_id": image, "category_id": int(label), "bbox": bbox, "area": bbox[2] * bbox[3], **more}

    to_find = [row(i, c, k, iscrowd=int(d)) for i, b in enumerate(true) for c, k, d in zip(*b, strict=True)]
    guesses = [
        row(i, c, k, score=float(s)) for i, f in enumerate(detections) for c, k, s in zip(*f, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco(to_find), coco(guesses), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, :, 0, 2]


def mean_of(precision: Any) -> float:
    return float(precision[precision > -1].mean())


def test_the_value_of_a_case_by_hand() -> None:
    """Right, wrong, right: precision 1, 1/2, 2/3 at recalls 1/2, 1/2, 1, read at 0, 0.01, …, 1."""
    true = [boxes(FULL, (20, 20, 30, 30))]
    detections = [found((FULL, 0.9), (AWAY, 0.8), ((20, 20, 30, 30), 0.7))]
    assert value(detections, true) == pytest.approx((51 * 1 + 50 * 2 / 3) / 101, abs=1e-12)


def test_the_overlap_decides_at_which_thresholds_a_box_is_found() -> None:
    detections = [found(((0, 0, 10, 6.25), 0.9))]  # 0.625 of the union
    assert value(detections, [boxes(FULL)]) == pytest.approx(3 / 10)
    assert value(detections, [boxes(FULL)], thresholds=(0,)) == 1
    assert value(detections, [boxes(FULL)], thresholds=(5,)) == 0
    assert IOU_THRESHOLDS[5] == 0.75


def test_a_box_is_found_once_and_by_the_surest() -> None:
    twice = [found((FULL, 0.8), (FULL, 0.9))]
    assert value(twice, [boxes(FULL)]) == 1
    assert value(twice, [boxes(FULL, (20, 20, 30, 30))]) == pytest.approx(51 / 101)


def test_a_detection_of_another_class_or_image_finds_nothing() -> None:
    assert value([found((FULL, 0.9), classes=[1])], [boxes(FULL)], num_classes=2) == 0
    assert value([found(), found((FULL, 0.9))], [boxes(FULL), boxes()]) == 0


def test_difficult_boxes_need_not_be_found_and_may_be() -> None:
    true = [boxes(FULL, AWAY, difficult=[0, 1])]
    missed, hit = [found((FULL, 0.5))], [found((AWAY, 0.9), (FULL, 0.5))]
    assert value(missed, true) == value(hit, true) == 1
    assert value([found(((70, 0, 90, 9), 0.9), (FULL, 0.5))], true) == pytest.approx(0.5)


def test_classes_count_alike_and_those_without_boxes_not_at_all() -> None:
    true = [boxes(FULL, FULL, FULL, classes=[0, 1, 1])]
    detections = [found((FULL, 0.9), (AWAY, 0.9), classes=[0, 2])]
    assert value(detections, true, num_classes=4) == pytest.approx(0.5)


def test_without_detections_or_boxes_the_value_is_zero() -> None:
    assert value([found()], [boxes(FULL)]) == 0
    assert value([found((FULL, 0.9))], [boxes()]) == 0
    assert value([found()], [boxes()]) == 0


@pytest.mark.parametrize("seed", range(4))
def test_the_value_is_that_of_pycocotools(seed: int) -> None:
    detections, true = scenes(40, 3, seed)
    precision = by_pycocotools(detections, true, 3)
    assert 0.05 < mean_of(precision) < 0.95
    assert value(detections, true, 3) == pytest.approx(mean_of(precision), abs=1e-9)
    for threshold in (0, 5):
        expected = mean_of(precision[threshold])
        assert value(detections, true, 3, (threshold,)) == pytest.approx(expected, abs=1e-9)


def test_recall_is_read_to_the_last_bit_where_pycocotools_reads_it() -> None:
    """With 100 boxes every recall is a hundredth, and 7 hundredths are less than 7 × 0.01."""
    true = [boxes(FULL) for _ in range(100)]
    detections = [found((FULL, 1 - i / 200)) if i % 3 else found((AWAY, 1 - i / 200)) for i in range(100)]
    expected = mean_of(by_pycocotools(detections, true, 1))
    assert value(detections, true) == pytest.approx(expected, abs=1e-9)


def test_counts_stand_for_images_that_are_there_several_times() -> None:
    """With equally sure detections in one image, its copies would come to lie between them."""
    detections, true = scenes(25, 2, seed=11, digits=7)
    statistic = AveragePrecision(match(detections, true, 2, 100), ALL)
    generator = np.random.default_rng(0)
    rows = np.stack([np.bincount(generator.integers(25, size=25), minlength=25) for _ in range(5)])
    values = statistic(torch.from_numpy(rows).double())
    for counts, counted in zip(rows, values.tolist(), strict=True):
        repeated = np.repeat(np.arange(25), counts)
        precision = by_pycocotools([detections[i] for i in repeated], [true[i] for i in repeated], 2)
        assert counted == pytest.approx(mean_of(precision), abs=1e-9)


def test_rows_do_not_know_each_other() -> None:
    statistic = AveragePrecision(match(*scenes(30, 2, seed=3), 2, 100), ALL)
    counts = torch.randint(0, 3, (9, 30), generator=torch.Generator().manual_seed(0)).double()
    counts[4] = 0
    singly = torch.cat([statistic(row[None]) for row in counts])
    assert torch.equal(statistic(counts), singly)
    assert singly[4] == 0  # not a single box


def test_the_interval_contains_the_value() -> None:
    statistic = AveragePrecision(match(*scenes(60, 2, seed=5), 2, 100), ALL)
    low, high = interval(resample(statistic, seed=0))
    assert low < value_of(statistic) < high
    assert statistic.n == 60


def test_only_the_surest_detections_of_an_image_count() -> None:
    detections = [found((AWAY, 0.9), (FULL, 0.5))]
    surest = match(detections, [boxes(FULL)], 1, max_detections=1)
    assert value_of(AveragePrecision(surest, ALL)) == 0
    assert value(detections, [boxes(FULL)]) == pytest.approx(0.5)


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    match([found((LEFT_HALF, 0.9))], [boxes(FULL)], 1, 100)
    assert capsys.readouterr() == ("", "")
