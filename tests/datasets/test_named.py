import functools
import gzip
import hashlib
import pickle
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image
from pydantic import ValidationError

from crosscontext.datasets import NamedSettings
from crosscontext.datasets.named import DATA_DIR_VARIABLE
from crosscontext.errors import DataError
from idx_files import lay_out_idx


def write_mnist(root: Path, folder: str) -> None:
    lay_out_idx(root / folder / "raw")


def accept_any_content(monkeypatch: pytest.MonkeyPatch, kind: type, *lists: str) -> None:
    """Drop the MD5 sums from torchvision's lists of files, so that a test may write small ones."""
    for name in lists:
        monkeypatch.setattr(kind, name, [[file, None] for file, _ in getattr(kind, name)])


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


def test_files_of_a_linux_distribution_are_read_as_they_are(root: Path) -> None:
    lay_out_idx(root / "fashion-mnist", compressed=True)
    train, test = NamedSettings(dataset="fashion-mnist").open()
    assert train.labels is not None
    assert [train.labels.class_names[number] for number in train.labels.classes] == [
        "Ankle boot",
        "Bag",
        "Sneaker",
        "Shirt",
    ]
    assert test is not None
    assert test.class_names == train.class_names


def test_classes_are_numbered_in_the_order_of_their_names(root: Path) -> None:
    write_mnist(root, "FashionMNIST")
    labels = NamedSettings(dataset="fashion-mnist").open().train.labels
    assert labels is not None
    assert list(labels.class_names) == sorted(labels.class_names)
    # Published classes 9, 8, 7, 6 of Fashion-MNIST.
    assert [labels.class_names[c] for c in labels.classes] == ["Ankle boot", "Bag", "Sneaker", "Shirt"]


def test_cifar_keeps_colours_upright(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accept_any_content(monkeypatch, torchvision.datasets.CIFAR10, "train_list", "test_list")
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    meta = pickle.dumps({"label_names": names})
    monkeypatch.setitem(torchvision.datasets.CIFAR10.meta, "md5", hashlib.md5(meta).hexdigest())
    folder = root / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "batches.meta").write_bytes(meta)
    images = np.zeros((1, 3, 32, 32), np.uint8)
    images[:, 2, 1, 30] = 255  # blue, second row, last column but one
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps({"data": images.reshape(1, -1), "labels": [9]}))
    train, test = NamedSettings(dataset="cifar10").open()
    assert test is not None
    assert (len(train.names), len(test.names)) == (5, 1)
    assert test.image(0).getpixel((30, 1)) == (0, 0, 255)
    assert test.labels is not None
    assert test.labels.class_names[test.labels.classes[0]] == "truck"


def test_stl10_gives_its_unlabelled_images_only_when_asked(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept_any_content(monkeypatch, torchvision.datasets.STL10, "train_list", "test_list")
    folder = root / "stl10_binary"
    folder.mkdir()
    images = np.zeros((3, 3, 96, 96), np.uint8)
    images[:, 1, 90, 2] = 255  # green; the file stores columns first, so column 90 of row 2
    for part, count in (("train", 2), ("unlabeled", 3), ("test", 1)):
        images[:count].tofile(folder / f"{part}_X.bin")
        np.full(count, 10, np.uint8).tofile(folder / f"{part}_y.bin")
    (folder / "class_names.txt").write_text(
        "airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n"
    )
    train, test = NamedSettings(dataset="stl10").open()
    assert train.labels is not None
    assert (train.labels.classes.tolist(), train.labels.class_names[9]) == ([9, 9], "truck")
    assert train.image(0).getpixel((90, 2)) == (0, 255, 0)
    everything, same_test = NamedSettings(dataset="stl10", unlabelled=True).open()
    assert (len(everything.names), everything.labels) == (5, None)
    assert test is not None
    assert same_test is not None
    assert same_test.labels is not None
    assert list(same_test.names) == list(test.names) == ["test/000000"]


def test_svhn_counts_from_zero(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matlab = pytest.importorskip("scipy.io")
    lists = {part: [url, file, None] for part, (url, file, _) in torchvision.datasets.SVHN.split_list.items()}
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", lists)
    images = np.zeros((32, 32, 3, 2), np.uint8)
    images[4, 20, 0] = 255  # red, row 4, column 20
    for part in ("train", "test"):
        matlab.savemat(root / f"{part}_32x32.mat", {"X": images, "y": np.array([[10], [3]], np.uint8)})
    train = NamedSettings(dataset="svhn").open().train
    assert train.labels is not None
    assert [train.labels.class_names[c] for c in train.labels.classes] == ["0", "3"]  # stored as 10 and 3
    assert train.image(1).getpixel((20, 4)) == (255, 0, 0)


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


def test_missing_files_are_fetched_when_asked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = root / "publisher"
    write_mnist(publisher, ".")
    for path in list((publisher / "raw").iterdir()):
        with gzip.open(path.with_suffix(".gz"), "wb") as archive:
            archive.write(path.read_bytes())
    accept_any_content(monkeypatch, torchvision.datasets.MNIST, "resources")
    monkeypatch.setenv("no_proxy", "*")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(publisher / "raw"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
        assert len(NamedSettings(dataset="mnist", download=True).open().train.names) == 4
        server.shutdown()
    assert len(NamedSettings(dataset="mnist").open().train.names) == 4


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
