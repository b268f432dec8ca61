import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crosscontext.backbones import ResNetSettings
from crosscontext.datasets import FolderSettings
from crosscontext.datasets.contract import Dataset, Labels
from crosscontext.encoders import Encoder, Preprocessing, encoder_of
from crosscontext.errors import DataError, ImageError, NonFiniteError
from crosscontext.features import extract, load_batches

NARROW = ResNetSettings(depth=10, width=0.125, stem="small")
BROKEN = (3, 11)


class Watched(Dataset):
    """Counts how many images have been decoded and not yet asked back."""

    labels: Labels | None = None

    def __init__(self, size: int) -> None:
        self.names: Sequence[str] = [f"{i}" for i in range(size)]
        self.decoded = 0
        self._lock = threading.Lock()

    def image(self, index: int) -> Image.Image:
        with self._lock:
            self.decoded += 1
        return Image.new("RGB", (16, 16), (index % 256, 0, 0))


def encoder() -> Encoder:
    torch.manual_seed(0)
    made = encoder_of(NARROW.build(), NARROW, Preprocessing.for_size(16), step=0)
    made(torch.randn(8, 3, 16, 16))  # running statistics unlike those of a batch
    return made.train()


@pytest.fixture
def folder_with_broken_files(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for i in range(20):
        path = tmp_path / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (16, 20, 3), dtype=np.uint8)).save(path)
        if i in BROKEN:
            path.write_bytes(path.read_bytes()[:60])
    return tmp_path


def test_each_readable_image_counts_once_in_order(folder_with_broken_files: Path) -> None:
    dataset = FolderSettings(path=folder_with_broken_files).open().train
    features = extract(encoder(), dataset, batch_size=4, workers=2)
    readable = [name for name in dataset.names if int(Path(name).stem) not in BROKEN]
    assert list(features.names) == readable
    assert features.values.shape == (18, NARROW.build().stages[-1].channels)
    assert features.classes is not None
    assert features.classes.tolist() == [0] * 10 + [1] * 8


def test_unreadable_images_are_named_with_their_cause(folder_with_broken_files: Path) -> None:
    dataset = FolderSettings(path=folder_with_broken_files).open().train
    skipped = extract(encoder(), dataset, batch_size=4, workers=2).skipped
    assert set(skipped) == {"b/03.png", "b/11.png"}
    assert "b/03.png" in skipped["b/03.png"]


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (3, 1), (7, 3), (64, 2)])
def test_batch_size_and_workers_change_nothing(image_folder: Path, batch_size: int, workers: int) -> None:
    dataset, model = FolderSettings(path=image_folder).open().train, encoder()
    reference = extract(model, dataset, batch_size=40, workers=1)
    other = extract(model, dataset, batch_size=batch_size, workers=workers)
    torch.testing.assert_close(other.values, reference.values, rtol=1e-4, atol=1e-5)
    assert other.names == reference.names


def test_features_are_those_of_single_images_in_evaluation_mode(image_folder: Path) -> None:
    dataset, model = FolderSettings(path=image_folder).open().train, encoder()
    features = extract(model, dataset, batch_size=16, workers=2)
    model.eval()
    with torch.no_grad():
        alone = model(model.preprocess(dataset.image(17))[None])[0]
    torch.testing.assert_close(features.values[17], alone, rtol=1e-4, atol=1e-5)


def test_a_batch_holds_what_the_encoder_makes_of_each_picture_and_lies_in_channels_last(
    image_folder: Path,
) -> None:
    dataset, model = FolderSettings(path=image_folder).open().train, encoder()
    first = next(load_batches(model, dataset, batch_size=7, workers=2, skipped={}))
    assert torch.equal(first.images, torch.stack([model.preprocess(dataset.image(i)) for i in first.indices]))
    assert first.images.is_contiguous(memory_format=torch.channels_last)


def test_the_mode_and_the_running_statistics_are_left_as_they_were(image_folder: Path) -> None:
    dataset, model = FolderSettings(path=image_folder).open().train, encoder()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    features = extract(model, dataset, batch_size=16, workers=2)
    assert model.training
    assert not features.values.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_no_more_than_a_few_batches_are_decoded_ahead() -> None:
    dataset = Watched(100)
    batches = load_batches(encoder(), dataset, batch_size=5, workers=4, skipped={})
    for taken in range(1, 5):
        next(batches)
        assert dataset.decoded <= 5 * (taken + 2)


def test_a_set_without_labels_has_no_classes() -> None:
    assert extract(encoder(), Watched(3), batch_size=2, workers=1).classes is None


def test_a_set_that_cannot_be_read_is_refused() -> None:
    class Unreadable(Watched):
        def image(self, index: int) -> Image.Image:
            raise ImageError(f"{index}: no picture")

    with pytest.raises(DataError, match=r"None of 3 images can be read: .*no picture"):
        extract(encoder(), Unreadable(3), batch_size=2, workers=1)


def test_features_that_are_no_numbers_are_refused() -> None:
    model = encoder()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="features of 3 of 3 images"):
        extract(model, Watched(3), batch_size=2, workers=1)


def test_classes_follow_the_labels_when_images_drop_out() -> None:
    class Holed(Watched):
        labels = Labels(("a", "b"), np.array([0, 1, 0, 1, 1], dtype=np.int64))

        def image(self, index: int) -> Image.Image:
            if index == 2:
                raise ImageError("2: no picture")
            return super().image(index)

    features = extract(encoder(), Holed(5), batch_size=2, workers=2)
    assert features.classes is not None
    assert features.classes.tolist() == [0, 1, 1, 1]
    assert features.names == ("0", "1", "3", "4")
