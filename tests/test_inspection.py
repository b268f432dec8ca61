from collections.abc import Sequence

import numpy as np
import pytest
import torch

from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.datasets.contract import Dataset, Labels
from crosscontext.errors import DataError, SettingsError
from crosscontext.inspection import Inspection, look_at
from crosscontext.views import ViewsSettings, resolve
from examined import Unreadable, encoder, pictures

VIEWS = resolve(ViewsSettings(), 16)


def inspected(
    dataset: Dataset, num_images: int = 60, seed: int = 0, stages: Sequence[int] = (-2, -1)
) -> Inspection:
    return look_at(encoder(), dataset, VIEWS, stages, num_images, seed, workers=1)


def two_kinds(size: int, mistaken: Sequence[int] = ()) -> ArrayDataset:
    """Dark and light noise in turn, labelled so, but for some mistakes."""
    generator, kinds = np.random.default_rng(0), np.arange(size) % 2
    noise = generator.integers(0, 60, (size, 16, 16, 3)) + 190 * kinds[:, None, None, None]
    classes = kinds.copy()
    classes[list(mistaken)] ^= 1
    names = [f"{number:03}" for number in range(size)]
    return ArrayDataset(noise.astype(np.uint8), names, Labels(("dark", "light"), classes))


def test_all_is_measured_on_the_same_images() -> None:
    found = inspected(pictures(40))
    assert len(found.images.names) == len(found.points) == len(found.agreement) == 40
    for neighbours in (found.after, found.before, found.by_hypercolumn):
        assert neighbours.rows.shape == (40, 10)
    assert 1 <= found.rankme <= found.largest_rank == min(40, encoder().width)
    assert [contest.what for contest in found.contests] == ["Distorted copies that find their original"]
    assert found.against_pixels == ()
    assert found.contradicted == ()


def test_images_are_drawn_by_the_seed() -> None:
    first, again, other = (inspected(pictures(50), 25, seed).images.names for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert len(first) == 25


def test_unreadable_images_are_left_out_and_counted() -> None:
    found = inspected(Unreadable(pictures(40), [3, 5]))
    assert found.skipped == 2
    assert {"003", "005"}.isdisjoint(found.images.names)
    assert len(found.points) == 38


def test_too_few_images_are_an_error_with_the_remedy() -> None:
    with pytest.raises(DataError, match=r"Only 19 of 19 images can be read; 20 are needed .*--data DIR"):
        inspected(pictures(19))


def test_a_wrong_label_is_contradicted_by_the_neighbours() -> None:
    found = inspected(two_kinds(40, mistaken=[4]))
    row = list(found.images.names).index("004")
    assert found.contradicted[0].row == row
    assert found.contradicted[0].why == "labelled light; 10 of 10 neighbours are dark"
    knn, copies = found.contests
    assert knn.what.startswith("Images whose class")
    assert knn.encoder > 0.9
    (pixels,) = found.against_pixels
    assert (pixels.what, pixels.encoder) == (knn.what, knn.encoder)
    assert pixels.rival > 0.9  # dark and light are told by their pixels alone
    assert copies.low <= copies.encoder - copies.rival <= copies.high


def test_the_same_picture_twice_is_a_double() -> None:
    once = two_kinds(40)
    twice = np.stack([once.pixels(i) for i in range(40)])
    twice[7] = twice[22]
    found = inspected(ArrayDataset(twice, once.names, None))
    one, other, cosine = found.doubles[0]
    assert {found.images.names[one], found.images.names[other]} == {"007", "022"}
    assert cosine == pytest.approx(1)


def test_a_picture_like_no_other_is_lonely() -> None:
    dark = two_kinds(80).pixels
    pixels = np.stack([dark(i) for i in range(0, 80, 2)])
    pixels[9, :, ::2] = 255
    names = [f"{number:03}" for number in range(40)]
    found = inspected(ArrayDataset(pixels, names, None))
    assert found.images.names[found.lonely[0].row] == "009"


def test_the_last_stage_alone_divides_no_image() -> None:
    found = inspected(pictures(40), stages=(-1,))
    assert (found.agreement == 1).all()
    assert found.cka == pytest.approx(1)
    assert torch.equal(found.after.rows, found.by_hypercolumn.rows)


def test_a_stage_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match="has these stages"):
        inspected(pictures(40), stages=(-9,))
