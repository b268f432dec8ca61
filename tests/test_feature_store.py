from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from crosscontext.backbones import ResNetSettings
from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.datasets.contract import Dataset, Labels
from crosscontext.encoders import Encoder, Preprocessing, encoder_of
from crosscontext.errors import ImageError
from crosscontext.feature_store import FeatureStore
from crosscontext.features import FeatureModel, Features
from crosscontext.references import Pixels

NARROW = ResNetSettings(depth=10, width=0.125, stem="small")
NUM_IMAGES = 6


class Counted(Dataset):
    """Counts how often an image is decoded; the third one cannot be."""

    def __init__(self, seed: int = 0, classes: Sequence[int] = (0, 1, 0, 1, 0, 1)) -> None:
        pixels = np.random.default_rng(seed).integers(0, 256, (NUM_IMAGES, 16, 16, 3), dtype=np.uint8)
        self.names = [f"{index}.png" for index in range(NUM_IMAGES)]
        self.labels = Labels(("a", "b"), np.array(classes))
        self._array = ArrayDataset(pixels, self.names, None)
        self.decoded = 0

    def fingerprint(self) -> str | None:
        return self._array.fingerprint()

    def image(self, index: int) -> Image.Image:
        self.decoded += 1
        if index == 2:
            raise ImageError("2.png: no picture")
        return self._array.image(index)


def encoder(seed: int = 0, image_size: int = 16) -> Encoder:
    torch.manual_seed(seed)
    return encoder_of(NARROW.build(), NARROW, Preprocessing.for_size(image_size), step=0).eval()


def take(
    folder: Path | None, dataset: Dataset, model: FeatureModel | None = None, said: list[str] | None = None
) -> Features:
    heard: list[str] = [] if said is None else said
    store = FeatureStore(folder, heard.append)
    return store.features("it", model or encoder(), dataset, batch_size=4, workers=1)


def same(one: Features, other: Features) -> bool:
    assert one.classes is not None
    assert other.classes is not None
    tensors_are = torch.equal(one.values, other.values) and torch.equal(one.classes, other.classes)
    return tensors_are and (one.names, one.skipped) == (other.names, other.skipped)


def test_features_come_back_bitwise_and_no_image_is_decoded_again(tmp_path: Path) -> None:
    dataset = Counted()
    computed = take(tmp_path / "features", dataset)
    assert dataset.decoded == NUM_IMAGES
    assert computed.skipped == {"2.png": "2.png: no picture"}
    said: list[str] = []
    again = Counted()
    kept = take(tmp_path / "features", again, said=said)
    assert again.decoded == 0
    assert same(kept, computed)
    assert said == ["it: features of 6 images were computed before"]


def test_with_and_without_a_folder_features_are_the_same(tmp_path: Path) -> None:
    assert same(take(None, Counted()), take(tmp_path, Counted()))
    assert list(tmp_path.iterdir()) != []


def test_classes_are_those_of_the_set_as_it_is_now(tmp_path: Path) -> None:
    take(tmp_path, Counted())
    relabelled = Counted(classes=(1, 1, 1, 0, 0, 0))
    features = take(tmp_path, relabelled)
    assert relabelled.decoded == 0
    assert features.classes is not None
    assert features.classes.tolist() == [1, 1, 0, 0, 0]


@pytest.mark.parametrize("change", ["weights", "preprocessing", "images"])
def test_whatever_has_a_say_makes_other_features(tmp_path: Path, change: str) -> None:
    take(tmp_path, Counted())
    dataset = Counted(seed=int(change == "images"))
    model = encoder(seed=int(change == "weights"), image_size=24 if change == "preprocessing" else 16)
    features = take(tmp_path, dataset, model)
    assert dataset.decoded == NUM_IMAGES
    assert same(features, take(None, dataset, model))
    assert len(list(tmp_path.iterdir())) == 2


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def _flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(content)


def _replace(file: Path) -> None:
    save_file({"values": torch.zeros(5, 64)}, file)


def _swap(file: Path) -> None:
    other = file.with_name("other")
    take(other, Counted(seed=1))
    (kept,) = other.iterdir()
    kept.rename(file)


def _empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _flip_a_bit, _replace, _swap, _empty])
def test_a_damaged_or_foreign_file_is_said_and_computed_again(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    computed = take(tmp_path, Counted())
    (file,) = tmp_path.iterdir()
    damage(file)
    said: list[str] = []
    assert same(take(tmp_path, Counted(), said=said), computed)
    assert len(said) == 2
    assert said[0].startswith(f"it: {file} is not what was kept there (")
    mended = Counted()
    assert same(take(tmp_path, mended), computed)
    assert mended.decoded == 0


def test_pixels_are_never_kept(tmp_path: Path) -> None:
    take(tmp_path, Counted(), Pixels(Preprocessing.for_size(16)))
    assert list(tmp_path.iterdir()) == []


def test_a_set_that_is_not_recognised_is_never_kept(tmp_path: Path) -> None:
    class Anonymous(Counted):
        def fingerprint(self) -> str | None:
            return None

    take(tmp_path, Anonymous())
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_costs_the_file_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    features = take(tmp_path / "file" / "features", Counted(), said=said)
    assert len(features.values) == NUM_IMAGES - 1
    assert said[-1].startswith("it: the features are not kept: ")


def test_features_above_the_limit_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crosscontext.feature_store.LARGEST_BYTES", 100)
    said: list[str] = []
    take(tmp_path, Counted(), said=said)
    assert list(tmp_path.iterdir()) == []
    assert "are not kept" in said[-1]
