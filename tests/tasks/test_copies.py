import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from crosscontext.encoders import Preprocessing
from crosscontext.errors import DataError
from crosscontext.tasks import CopiesSettings
from crosscontext.tasks.copies import Distortion, distort
from examined import Unreadable, encoder, examined, pictures, pixels
from measured import right

KINDS: tuple[Distortion, ...] = ("crop", "jpeg", "blur", "colour", "rotation")
DRAWS = np.array([0.1, 0.8, 0.3])


class Constant(nn.Module):
    """A collapsed model."""

    width, digest = 4, "constant"
    preprocessing = Preprocessing.for_size(32)

    def forward(self, images: Tensor) -> Tensor:
        return torch.ones(len(images), 4)


@pytest.fixture
def photo() -> Image.Image:
    return pictures(1).image(0).resize((40, 30))


@pytest.mark.parametrize("kind", KINDS)
def test_a_distortion_changes_the_picture_the_same_way_each_time(
    kind: Distortion, photo: Image.Image
) -> None:
    once, again = (np.array(distort(photo, kind, DRAWS, CopiesSettings()).convert("RGB")) for _ in range(2))
    assert np.array_equal(once, again)
    assert once.shape != (30, 40, 3) or not np.array_equal(once, np.array(photo))


def test_a_crop_is_a_part_of_the_picture_with_its_share_of_the_area(photo: Image.Image) -> None:
    first, last = (
        np.array(distort(photo, "crop", np.full(3, draw), CopiesSettings(crop_area=0.25)))
        for draw in (0.0, 1 - 1e-9)
    )
    whole = np.array(photo)
    assert np.array_equal(first, whole[:15, :20])
    assert np.array_equal(last, whole[-15:, -20:])


def test_draws_decide_the_direction_of_a_turn_and_of_colours(photo: Image.Image) -> None:
    left, right_ = (
        distort(photo, "rotation", np.full(3, draw), CopiesSettings(degrees=180)) for draw in (0.2, 0.7)
    )
    assert np.array_equal(np.array(left), np.array(right_))  # half a turn is the same both ways
    bright, dark = (
        np.array(distort(photo, "colour", np.array([draw, 0.2, 0.2]), CopiesSettings())).mean()
        for draw in (0.2, 0.7)
    )
    assert bright > np.array(photo).mean() > dark


@pytest.mark.parametrize(("name", "weak", "strong"), [("jpeg_quality", 90, 5), ("blur", 0.01, 0.2)])
def test_strengths_are_strengths(name: str, weak: float, strong: float, photo: Image.Image) -> None:
    kind: Distortion = "jpeg" if name == "jpeg_quality" else "blur"
    changes = [
        np.abs(
            np.array(distort(photo, kind, DRAWS, CopiesSettings.model_validate({name: value}))).astype(float)
            - np.array(photo)
        ).mean()
        for value in (weak, strong)
    ]
    assert changes[0] < changes[1] / 2


def test_weak_distortions_of_unlike_pictures_find_their_originals() -> None:
    settings = CopiesSettings(distortions=("jpeg", "blur"), jpeg_quality=90)
    scores = {m.metric: m.value for m in settings.judge(examined(pictures(30), pixels()))}
    assert scores == {"recall_at_1_jpeg": 1, "recall_at_1_blur": 1, "recall_at_1": 1}


def test_the_score_is_that_of_a_loop() -> None:
    settings, dataset, model = CopiesSettings(distortions=("rotation",), degrees=60), pictures(30), pixels()
    measured, mean = settings.judge(examined(dataset, model))
    vectors = [model.preprocessing(dataset.image(i)).flatten().double() for i in range(30)]
    turned = {
        angle: [
            model.preprocessing(
                dataset.image(i).rotate(angle, Image.Resampling.BILINEAR, fillcolor=(128,) * 3)
            )
            for i in range(30)
        ]
        for angle in (60, -60)
    }

    def found(i: int, angle: int) -> bool:
        cosines = [
            float(nn.functional.cosine_similarity(turned[angle][i].flatten().double(), vector, dim=0))
            for vector in vectors
        ]
        return int(np.argmax(cosines)) == i

    either = [{found(i, 60), found(i, -60)} for i in range(30)]
    sample = examined(dataset, model).sample_test(30)
    for row, value in zip(sample.rows.tolist(), right(measured).tolist(), strict=True):
        assert value in either[row]
    assert sum(len(answers) == 1 for answers in either) > 15
    assert 0 < measured.value < 1
    assert mean.value == measured.value


def test_the_mean_is_that_of_the_kinds_image_by_image() -> None:
    *kinds, mean = CopiesSettings(jpeg_quality=1, blur=0.3, images=20).judge(examined(pictures(40), pixels()))
    assert [m.metric for m in kinds] == [f"recall_at_1_{kind}" for kind in KINDS]
    expected = torch.stack([right(m).double() for m in kinds]).mean(dim=0)
    torch.testing.assert_close(right(mean), expected)
    assert mean.statistic.n == 20
    assert 0 < mean.value < 1


def test_features_that_are_all_alike_find_nothing() -> None:
    assert all(m.value == 0 for m in CopiesSettings().judge(examined(pictures(10), Constant())))


def test_neither_labels_nor_batches_nor_workers_change_anything() -> None:
    settings = CopiesSettings(distortions=("crop", "colour"))
    plain = list(settings.judge(examined(pictures(20))))
    for dataset, batch_size, workers in (
        (pictures(20), 7, 3),
        (pictures(20, classes=[0, 1] * 10), 16, 1),
        (pictures(20, classes=[1] * 20), 16, 1),
    ):
        other = settings.judge(examined(dataset, batch_size=batch_size, workers=workers))
        for one, two in zip(plain, other, strict=True):
            assert torch.equal(right(one), right(two))


def test_the_seed_decides_the_copies() -> None:
    settings = CopiesSettings(distortions=("crop",), crop_area=0.3)
    first, same, other = (
        right(next(iter(settings.judge(examined(pictures(60), pixels(), seed=seed))))) for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_unreadable_images_neither_ask_nor_answer() -> None:
    measured, _ = CopiesSettings(distortions=("jpeg",), jpeg_quality=90).judge(
        examined(Unreadable(pictures(20), [0, 5]), pixels())
    )
    assert measured.statistic.n == 18
    assert measured.value == 1


def test_a_single_image_is_refused() -> None:
    with pytest.raises(DataError, match="only test image"):
        list(CopiesSettings().judge(examined(Unreadable(pictures(2), [0]), encoder())))
