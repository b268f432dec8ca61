import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from crosscontext.datasets import NamedSettings
from crosscontext.datasets.named import DATA_DIR_VARIABLE
from crosscontext.errors import DataError


def write_idx(path: Path, values: np.ndarray) -> None:
    """The file format of MNIST: magic number with the rank, sizes, bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def write_mnist(root: Path, folder: str) -> None:
    """Four training and two test images; image i is filled with i, and of class 9 − i."""
    for prefix, size in (("train", 4), ("t10k", 2)):
        numbers = np.arange(size)
        raw = root / folder / "raw"
        write_idx(raw / f"{prefix}-images-idx3-ubyte", np.tile(numbers[:, None, None], (1, 28, 28)))
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", 9 - numbers)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("place", [".", "mnist"])
def test_files_of_torchvision_are_read_in_either_place(root: Path, place: str) -> None:
    write_mnist(root / place, "MNIST")
    train, test = NamedSettings(dataset="mnist").open()
    assert test is not None
    assert (len(train.names), len(test.names)) == (4, 2)
    assert list(test.names) == ["test/000000", "test/000001"]
    image = train.image(3)
    assert (image.mode, image.size, image.getpixel((5, 5))) == ("RGB", (28, 28), (3, 3, 3))


def test_classes_are_numbered_in_the_order_of_their_names(root: Path) -> None:
    write_mnist(root, "FashionMNIST")
    labels = NamedSettings(dataset="fashion-mnist").open().train.labels
    assert labels is not None
    assert list(labels.class_names) == sorted(labels.class_names)
    # Published classes 9, 8, 7, 6 of Fashion-MNIST.
    assert [labels.class_names[c] for c in labels.classes] == ["Ankle boot", "Bag", "Sneaker", "Shirt"]


def test_folders_of_images_come_first(root: Path) -> None:
    for name in ("train/cat/1.png", "train/dog/2.png", "test/cat/3.png"):
        path = root / "cifar10" / name
        path.parent.mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(path)
    train, test = NamedSettings(dataset="cifar10").open()
    assert list(train.names) == ["train/cat/1.png", "train/dog/2.png"]
    assert test is not None
    assert test.labels is not None
    assert test.labels.class_names == ("cat", "dog")


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "stl10", "fashion-mnist", "mnist", "svhn"])
def test_a_missing_set_says_where_it_was_looked_for_and_downloads_nothing(root: Path, dataset: str) -> None:
    with pytest.raises(DataError, match="not found") as caught:
        NamedSettings.model_validate({"dataset": dataset}).open()
    for part in (dataset, DATA_DIR_VARIABLE, str(root / dataset / "train"), f"{root}: ", "download"):
        assert part in str(caught.value)
    assert list(root.iterdir()) == []


def test_damaged_files_are_a_data_error(root: Path) -> None:
    write_mnist(root, "MNIST")
    (root / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03\0\0\0\x02")
    with pytest.raises(DataError, match="'mnist' not found"):
        NamedSettings(dataset="mnist").open()


def test_files_that_are_not_the_published_ones_are_never_unpickled(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(b"cos\nabort\n(tR.")  # would end the process
    with pytest.raises(DataError, match="corrupted"):
        NamedSettings(dataset="cifar10").open()


@pytest.mark.parametrize("value", [None, ""])
def test_an_unset_variable_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(DATA_DIR_VARIABLE, value)
    with pytest.raises(DataError, match=f"{DATA_DIR_VARIABLE} is not set.*export"):
        NamedSettings(dataset="cifar10").open()


def test_unlabelled_images_are_for_stl10_alone() -> None:
    with pytest.raises(ValidationError, match="unlabelled is for stl10; cifar10 has labels"):
        NamedSettings(dataset="cifar10", unlabelled=True)
    assert NamedSettings(dataset="stl10", unlabelled=True).unlabelled
