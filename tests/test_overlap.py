import numpy as np
import pytest
import torch
from torch import Tensor

from crosscontext.confidence import resample, value_of
from crosscontext.datasets.contract import IGNORED
from crosscontext.overlap import MeanIoU, Overlap, PixelAccuracy

NUM_CLASSES = 5
ABSENT = 3
"""A class that is predicted, and that no mask has."""


def masks(seed: int, size: int = 6) -> tuple[Tensor, Tensor]:
    """Predictions that are often right, and masks with ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.tensor([0, 1, 2, 4])[torch.randint(4, (size, 7, 9), generator=generator)]
    guess = torch.randint(NUM_CLASSES, true.shape, generator=generator)
    predicted = torch.where(torch.rand(true.shape, generator=generator) < 0.6, true, guess)
    true[torch.rand(true.shape, generator=generator) < 0.2] = IGNORED
    return predicted, true.byte()


def by_hand(predicted: Tensor, true: Tensor) -> tuple[float, float]:
    """The loop over pixels of the docstring, and pixel accuracy."""
    hits, union, occurs, counted = np.zeros(NUM_CLASSES), np.zeros(NUM_CLASSES), np.zeros(NUM_CLASSES), 0
    for p, t in zip(predicted.flatten().tolist(), true.flatten().tolist(), strict=True):
        if t == IGNORED:
            continue
        counted += 1
        occurs[t] = 1
        union[t] += 1
        if p == t:
            hits[t] += 1
        else:
            union[p] += 1
    return float(np.mean([hits[c] / union[c] for c in np.flatnonzero(occurs)])), hits.sum() / counted


def test_the_values_are_those_of_a_loop_over_pixels() -> None:
    predicted, true = masks(0)
    overlap = Overlap.of(predicted, true, NUM_CLASSES)
    mean_iou, accuracy = by_hand(predicted, true)
    assert value_of(MeanIoU(overlap)) == pytest.approx(mean_iou, abs=1e-12)
    assert value_of(PixelAccuracy(overlap)) == pytest.approx(accuracy, abs=1e-12)


@pytest.mark.slow  # it takes seconds to be imported
def test_the_values_are_those_of_torchmetrics() -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    predicted, true = masks(1)
    overlap = Overlap.of(predicted, true, NUM_CLASSES)
    jaccard = classification.MulticlassJaccardIndex(NUM_CLASSES, average=None, ignore_index=IGNORED)
    expected = jaccard(predicted, true.long()).double()
    ious = MeanIoU(overlap).of_classes(torch.ones(1, 6, dtype=torch.float64))[0]
    present = [0, 1, 2, 4]
    torch.testing.assert_close(ious[present], expected[present], atol=1e-6, rtol=0)
    assert ious[ABSENT].isnan()
    accuracy = classification.MulticlassAccuracy(NUM_CLASSES, average="micro", ignore_index=IGNORED)
    assert value_of(PixelAccuracy(overlap)) == pytest.approx(
        float(accuracy(predicted, true.long())), abs=1e-6
    )


def test_an_image_counted_twice_is_an_image_that_is_there_twice() -> None:
    predicted, true = masks(2)
    overlap = Overlap.of(predicted, true, NUM_CLASSES)
    counts = torch.tensor([[2, 0, 1, 1, 2, 0], [0, 0, 6, 0, 0, 0]]).double()
    for statistic, place in ((MeanIoU(overlap), 0), (PixelAccuracy(overlap), 1)):
        for row, value in zip(counts, statistic(counts).tolist(), strict=True):
            images = torch.repeat_interleave(torch.arange(6), row.long())
            assert value == pytest.approx(by_hand(predicted[images], true[images])[place], abs=1e-12)


def test_a_class_counts_in_those_resamples_that_have_it() -> None:
    predicted, true = masks(3, size=2)
    true[1][true[1] == 4] = IGNORED
    of_classes = MeanIoU(Overlap.of(predicted, true, NUM_CLASSES)).of_classes(torch.eye(2).double() * 2)
    assert of_classes.isnan().tolist() == [
        [c == ABSENT for c in range(5)],
        [c in (ABSENT, 4) for c in range(5)],
    ]


def test_ignored_pixels_never_count() -> None:
    predicted, true = masks(4)
    other = torch.where(true == IGNORED, (predicted + 1) % NUM_CLASSES, predicted)
    assert not torch.equal(other, predicted)
    for ours, theirs in zip(
        Overlap.of(predicted, true, NUM_CLASSES), Overlap.of(other, true, NUM_CLASSES), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_images_all_of_whose_pixels_are_ignored_are_left_out_and_resamples_are_numbers() -> None:
    predicted, true = masks(5)
    true[1:] = IGNORED
    judged = Overlap.of(predicted, true, NUM_CLASSES).judged()
    assert MeanIoU(judged).n == PixelAccuracy(judged).n == 1
    assert np.isfinite(resample(MeanIoU(judged), seed=0)).all()
    assert value_of(MeanIoU(judged)) == pytest.approx(by_hand(predicted[:1], true[:1])[0])


def test_parts_joined_are_the_whole() -> None:
    predicted, true = masks(6)
    parts = [Overlap.of(predicted[i : i + 4], true[i : i + 4], NUM_CLASSES) for i in (0, 4)]
    for ours, theirs in zip(Overlap.join(parts), Overlap.of(predicted, true, NUM_CLASSES), strict=True):
        assert torch.equal(ours, theirs)
