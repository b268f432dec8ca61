import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from crosscontext import CrossContextEncoder, extract
from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.errors import CrossContextError, DataError, ImageError, SettingsError

SIDE = 16


def small(**parameters: Any) -> CrossContextEncoder:
    tiny: dict[str, Any] = {
        "backbone": {"name": "resnet", "depth": 10, "width": 0.125},
        "batch_size": 8,
        "steps": 2,
    }
    return CrossContextEncoder(**tiny | {"workers": 1} | parameters)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Two classes of noise: dark and bright."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 100, (24, SIDE, SIDE, 3))
    images[::2] += 150
    return images.astype(np.uint8)


@pytest.fixture(scope="module")
def fitted(pixels: np.ndarray) -> CrossContextEncoder:
    return small().fit(pixels)


def as_files(pixels: np.ndarray, folder: Path) -> list[Path]:
    paths = [folder / f"{number:02}.png" for number in range(len(pixels))]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    return paths


def test_features_are_those_of_the_encoder(fitted: CrossContextEncoder, pixels: np.ndarray) -> None:
    dataset = ArrayDataset(pixels, [str(i) for i in range(len(pixels))], None)
    expected = extract(fitted.encoder_, dataset, batch_size=5, workers=1).values.numpy()
    np.testing.assert_allclose(fitted.transform(pixels), expected, atol=1e-5)
    assert expected.shape == (len(pixels), fitted.encoder_.width)


def test_fit_is_a_function_of_images_and_random_state(
    fitted: CrossContextEncoder, pixels: np.ndarray
) -> None:
    before = fitted.transform(pixels)
    np.testing.assert_array_equal(before, clone(fitted).fit(pixels).transform(pixels))
    assert not np.allclose(before, small(random_state=1).fit(pixels).transform(pixels))


def test_arrays_pictures_paths_and_folders_are_the_same_images(
    fitted: CrossContextEncoder, pixels: np.ndarray, tmp_path: Path
) -> None:
    paths = as_files(pixels, tmp_path)
    expected = fitted.transform(pixels)
    for images in (
        [Image.fromarray(image) for image in pixels],
        paths,
        [str(p) for p in paths],
        str(tmp_path),
    ):
        np.testing.assert_array_equal(fitted.transform(images), expected)
        np.testing.assert_array_equal(small().fit(images).transform(pixels), expected)


def test_grey_images_are_taken(pixels: np.ndarray) -> None:
    assert small().fit_transform(pixels[..., 0]).shape[0] == len(pixels)


def test_it_works_in_a_pipeline_with_a_classifier(pixels: np.ndarray) -> None:
    classes = np.arange(len(pixels)) % 2
    pipeline = make_pipeline(small(), LogisticRegression()).fit(pixels, classes)
    assert pipeline.score(pixels, classes) == 1.0


def test_a_pickle_holds_an_encoder_file_and_gives_the_same_features(
    fitted: CrossContextEncoder, pixels: np.ndarray
) -> None:
    assert isinstance(fitted.__getstate__()["encoder_"], bytes)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.transform(pixels), fitted.transform(pixels))
    assert isinstance(pickle.loads(pickle.dumps(small())), CrossContextEncoder)


def test_scikit_learn_finds_no_fault() -> None:
    check_estimator(CrossContextEncoder())


def test_features_have_names(fitted: CrossContextEncoder) -> None:
    names = fitted.get_feature_names_out()
    assert names[0] == "crosscontextencoder0"
    assert len(names) == fitted.encoder_.width


def test_the_run_is_kept_where_asked_and_else_thrown_away(pixels: np.ndarray, tmp_path: Path) -> None:
    small(out=tmp_path / "run").fit(pixels)
    assert (tmp_path / "run" / "encoder.safetensors").is_file()


def test_settings_reach_training(pixels: np.ndarray, tmp_path: Path) -> None:
    small(method="moco", settings={"method": {"temperature": 0.3}}, out=tmp_path / "run").fit(pixels)
    assert "temperature: 0.3" in (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(SettingsError, match="temprature"):
        small(settings={"method": {"temprature": 0.3}}).fit(pixels)


@pytest.mark.parametrize(
    ("images", "complaint"),
    [
        (np.zeros((4, SIDE, SIDE, 3)), r"array of float64 of shape \(4, 16, 16, 3\)"),
        (np.zeros((4, 3, SIDE, SIDE), dtype=np.uint8), r"shape \(4, 3, 16, 16\)"),
        (np.zeros((0, SIDE, SIDE, 3), dtype=np.uint8), "no image"),
        ([], "no image"),
        ([Image.new("RGB", (4, 4)), "a.png"], "a list of Image, str"),
    ],
)
def test_what_is_no_image_is_refused(images: Any, complaint: str, fitted: CrossContextEncoder) -> None:
    attempts: list[Callable[[Any], object]] = [small().fit, fitted.transform]
    for attempt in attempts:
        with pytest.raises(DataError, match=complaint):
            attempt(images)


def test_no_row_is_left_out(fitted: CrossContextEncoder, pixels: np.ndarray, tmp_path: Path) -> None:
    paths = as_files(pixels[:3], tmp_path)
    paths[1].write_bytes(b"no image")
    with pytest.raises(ImageError, match=paths[1].name):
        fitted.transform(paths)


def test_fit_comes_before_transform(pixels: np.ndarray) -> None:
    with pytest.raises(NotFittedError):
        small().transform(pixels)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CrossContextError, match="nowhere"):
        small().fit(tmp_path / "nowhere")
