from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from crosscontext.datasets import FolderSettings, ShapesSettings
from crosscontext.encoders import Encoder
from crosscontext.errors import DataError, ParityError
from crosscontext.formats import PREPROCESSING, SafetensorsFormat
from crosscontext.parity import prove, spread_pictures
from handed_over import NARROW, encoder, photo


def written(folder: Path, which: Encoder) -> None:
    SafetensorsFormat().write(which, folder)
    (folder / PREPROCESSING).write_text(which.preprocessing.model_dump_json())


def test_equal_files_are_proven_and_recorded(tmp_path: Path) -> None:
    which = encoder(NARROW, 16)
    written(tmp_path, which)
    parity = prove(SafetensorsFormat(), which, tmp_path, [photo(), photo(30, 40)], "two pictures")
    assert (parity.images, parity.source, parity.encoder_digest) == (2, "two pictures", which.digest)
    assert max(parity.network.relative, parity.pictures.relative) <= 1e-5
    assert parity.files.keys() == {"model.safetensors", PREPROCESSING}
    assert parity.versions.keys() == {"crosscontext", "safetensors", "torch", "timm"}


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_one_changed_weight_is_found(value: float, tmp_path: Path) -> None:
    which = encoder(NARROW, 16)
    written(tmp_path, which)
    weights = load_file(tmp_path / "model.safetensors")
    weights["conv1.weight"][0, 0, 0, 0] += value
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(
        ParityError, match=r"largest difference is (nan|\d\.\de-\d+) of the largest feature, and 1e-05"
    ):
        prove(SafetensorsFormat(), which, tmp_path, [photo()], "")


def test_another_preprocessing_is_found(tmp_path: Path) -> None:
    which = encoder(NARROW, 16)
    written(tmp_path, which)
    other = which.preprocessing.model_copy(update={"mean": (0.5, 0.5, 0.5)})
    (tmp_path / PREPROCESSING).write_text(other.model_dump_json())
    with pytest.raises(ParityError, match="do not compute what the encoder computes"):
        prove(SafetensorsFormat(), which, tmp_path, [photo()], "")


def test_files_that_do_not_load_are_told_with_the_cause(tmp_path: Path) -> None:
    which = encoder(NARROW, 16)
    written(tmp_path, which)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(
        ParityError, match="pytorch does not load what was written as safetensors: Safetensor"
    ):
        prove(SafetensorsFormat(), which, tmp_path, [photo()], "")


def test_pictures_are_spread_evenly_and_unreadable_ones_left_out(tmp_path: Path, image_folder: Path) -> None:
    shapes = ShapesSettings(num_train=10, num_test=0).open().train
    found = list(spread_pictures(shapes, 4))
    assert [picture.tobytes() for picture in found] == [shapes.image(i).tobytes() for i in (0, 3, 6, 9)]
    assert len(list(spread_pictures(shapes, 99))) == 10
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"None of 1 pictures can be read: .*Give others with --data"):
        list(spread_pictures(FolderSettings(path=tmp_path).open().train, 4))
    (tmp_path / "b.jpg").write_bytes((image_folder / "red" / "00.jpg").read_bytes())
    assert len(list(spread_pictures(FolderSettings(path=tmp_path).open().train, 4))) == 1


def test_no_gradients_are_kept(tmp_path: Path) -> None:
    which = encoder(NARROW, 16)
    written(tmp_path, which)
    with torch.enable_grad():
        prove(SafetensorsFormat(), which, tmp_path, [photo()], "")
    assert all(weight.grad is None for weight in which.parameters())
