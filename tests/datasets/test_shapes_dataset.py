from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from crosscontext.datasets import Dataset, ShapesSettings
from crosscontext.datasets.shapes import CLASS_NAMES, _Draws, _object_distances, classes_of, render
from crosscontext.datasets.silhouettes import SILHOUETTES
from crosscontext.datasets.textures import BACKGROUNDS, NUM_DRAWS, SURFACES, Family, textures

NUM_TRAIN, NUM_TEST = 3000, 1000


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Training and test images, (N, 32, 32, 3) in [0, 1]."""
    train, test = ShapesSettings(num_train=NUM_TRAIN, num_test=NUM_TEST).open()
    assert test is not None
    return pixels(train), pixels(test)


def pixels(part: Dataset) -> np.ndarray:
    return np.stack([np.asarray(part.image(i), np.float32) for i in range(len(part.names))]) / 255


def test_an_image_is_a_function_of_seed_split_and_index_alone() -> None:
    together = render(7, "train", np.arange(40), 32)
    np.testing.assert_array_equal(render(7, "train", np.array([33, 5]), 32), together[[33, 5]])


def test_seeds_splits_and_indices_give_different_images() -> None:
    images = np.concatenate(
        [render(seed, split, np.arange(20), 32) for seed in (0, 1) for split in ("train", "test")]
    ).reshape(80, -1)
    assert len(np.unique(images, axis=0)) == 80


def test_splits_have_the_sizes_classes_and_pixels_asked_for() -> None:
    train, test = ShapesSettings(num_train=300, num_test=25, image_size=48, seed=2).open()
    assert test is not None
    assert test.labels is not None
    assert (len(train.names), len(test.names)) == (300, 25)
    assert test.labels.class_names == CLASS_NAMES == tuple(sorted(CLASS_NAMES))
    assert np.bincount(test.labels.classes).tolist() == [3] * 5 + [2] * 5
    assert len(set(train.names)) == 300
    image = train.image(299)
    assert (image.mode, image.size) == ("RGB", (48, 48))
    np.testing.assert_array_equal(np.asarray(image), render(2, "train", np.array([299]), 48)[0])


def test_no_test_part_may_be_asked_for() -> None:
    assert ShapesSettings(num_train=10, num_test=0).open().test is None


def test_images_may_be_read_by_several_threads() -> None:
    train = ShapesSettings(num_train=64, num_test=0).open().train
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda index: train.image(index).tobytes(), list(range(64)) * 4))
    assert read == [train.image(index).tobytes() for index in range(64)] * 4


@pytest.mark.parametrize(
    "wrong", [{"num_train": 0}, {"num_test": -1}, {"image_size": 8}, {"seed": -1}, {"seed": 2**32}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ShapesSettings.model_validate(wrong)


def test_the_same_scene_is_drawn_at_any_size() -> None:
    small = render(0, "train", np.arange(20), 32).astype(float)
    large = render(0, "train", np.arange(20), 128).astype(float)
    shrunk = large.reshape(20, 32, 4, 32, 4, 3).mean(axis=(2, 4))
    correlations = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(small, shrunk, strict=True)]
    assert min(correlations) > 0.85


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_every_outline_has_the_area_of_the_unit_disc_around_the_origin(name: str) -> None:
    centres = ((np.arange(500) + 0.5) / 100 - 2.5).astype(np.float32)
    x, y = np.meshgrid(centres, centres)
    inside = SILHOUETTES[name](x[None], y[None])[0] < 0
    assert inside.mean() * 25 == pytest.approx(np.pi, rel=0.01)
    assert x[inside].mean() == pytest.approx(0, abs=0.01)
    assert y[inside].mean() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_outlines_are_distances_near_the_edge(name: str) -> None:
    centres = ((np.arange(500) + 0.5) / 100 - 2.5).astype(np.float32)
    x, y = np.meshgrid(centres, centres)
    distances = SILHOUETTES[name](x[None], y[None])[0]
    slopes = np.hypot(*np.gradient(distances, 0.01))[np.abs(distances) < 0.05]
    assert np.median(slopes) == pytest.approx(1, abs=0.01)
    assert slopes.max() < 1.01


@pytest.mark.parametrize("family", SURFACES + BACKGROUNDS)
def test_every_texture_keeps_the_range_and_favours_no_side(family: Family) -> None:
    numbers = np.random.default_rng(0).random((400, NUM_DRAWS), dtype=np.float32)
    values = textures([family], np.zeros(400, dtype=np.int64), numbers, 32)
    assert np.abs(values).max() <= 1
    assert abs(values.mean()) < 0.08
    assert values.std() > 0.1


def test_mean_intensity_is_the_same_for_all_classes(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    intensities = pictures[0].mean(axis=(1, 2, 3))
    classes = classes_of(np.arange(NUM_TRAIN))
    means = np.array([intensities[classes == c].mean() for c in range(len(CLASS_NAMES))])
    standard_error = intensities.std() / (NUM_TRAIN / len(CLASS_NAMES)) ** 0.5
    assert np.abs(means - intensities.mean()).max() < 3.5 * standard_error


def test_colour_says_little_about_the_class(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    train_classes, test_classes = classes_of(np.arange(NUM_TRAIN)), classes_of(np.arange(NUM_TEST))
    histograms = [
        np.stack([np.histogram(image[..., c], 16, (0, 1))[0] for image in part for c in range(3)])
        .reshape(len(part), -1)
        .astype(float)
        / 1024
        for part in pictures
    ]
    mean_colours = [part.mean(axis=(1, 2)) for part in pictures]
    scores = {
        (name, type(probe).__name__): probe.fit(train, train_classes).score(test, test_classes)
        for name, (train, test) in (("mean", mean_colours), ("histogram", histograms))
        for probe in (LogisticRegression(max_iter=200), KNeighborsClassifier(20))
    }
    assert max(scores.values()) < 0.2, scores  # chance is 0.10 ± 0.01


def test_raw_pixels_are_a_weak_feature(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    train, test = (part.reshape(len(part), -1) - pictures[0].mean() for part in pictures)
    probe = KNeighborsClassifier(20, metric="cosine").fit(train, classes_of(np.arange(NUM_TRAIN)))
    assert probe.score(test, classes_of(np.arange(NUM_TEST))) < 0.35


def test_objects_stand_out_from_their_background() -> None:
    """With the object's outline alone known, the mean colours inside and outside differ in most images."""
    indices = np.arange(500)
    images = render(0, "train", indices, 32) / 255
    inside = (_object_distances(_Draws(0, "train", indices), 32) < 0)[..., None]
    object_colour = (images * inside).sum(axis=(1, 2)) / inside.sum(axis=(1, 2))
    background_colour = (images * ~inside).sum(axis=(1, 2)) / (~inside).sum(axis=(1, 2))
    contrast = np.linalg.norm(object_colour - background_colour, axis=1)
    assert np.quantile(contrast, 0.05) > 0.2
