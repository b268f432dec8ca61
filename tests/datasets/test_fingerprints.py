"""A fingerprint changes with any image and with nothing else."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.datasets.contract import Dataset, Labels
from crosscontext.datasets.files import ImageFiles
from crosscontext.datasets.folder import FolderSettings
from crosscontext.datasets.held import HeldDataset
from crosscontext.datasets.masks import MasksSettings
from crosscontext.datasets.shapes import ShapesSettings
from crosscontext.datasets.subset import Subset
from crosscontext.datasets.voc import VocSettings
from drawn import draw_set
from drawn_masks import write_set


class Unknown(Dataset):
    labels = None
    names = ("0", "1")

    def image(self, index: int) -> Image.Image:
        return Image.new("RGB", (2, 2), (index, 0, 0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "pictures"
    place.mkdir()
    for index in range(3):
        Image.new("RGB", (4, 4), (index, 0, 0)).save(place / f"{index}.png")
    return place


def of(folder: Path) -> str | None:
    return FolderSettings(path=folder).open().train.fingerprint()


def test_a_folder_is_recognised_after_a_move(folder: Path) -> None:
    before = of(folder)
    assert before is not None
    assert len(before) == 16
    assert of(folder.rename(folder.with_name("moved"))) == before


def test_a_change_of_any_file_is_noticed(folder: Path) -> None:
    found = [of(folder)]
    os.utime(folder / "1.png", ns=(1, 1))
    found.append(of(folder))
    for content in (b"", b"x"):
        (folder / "2.png").write_bytes(content)
        os.utime(folder / "2.png", ns=(1, 1))
        found.append(of(folder))
    (folder / "2.png").rename(folder / "3.png")
    found.append(of(folder))
    shutil.copy2(folder / "3.png", folder / "4.png")
    found.append(of(folder))
    (folder / "0.png").unlink()
    found.append(of(folder))
    assert len(set(found)) == len(found)


def test_files_are_not_read(folder: Path) -> None:
    before = of(folder)
    stamp = (folder / "0.png").stat()
    (folder / "0.png").write_bytes(bytes(stamp.st_size))
    os.utime(folder / "0.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert of(folder) == before


def test_a_file_that_is_gone_is_left_to_decoding(folder: Path) -> None:
    (folder / "9.png").symlink_to("nowhere")
    assert of(folder) is not None


def test_files_are_recognised_whatever_is_known_of_them(tmp_path: Path) -> None:
    boxed = VocSettings(path=draw_set(tmp_path / "boxes", train=2, test=1)).open().train
    masked = MasksSettings(path=write_set(tmp_path / "masks", train=2, test=1)).open().train
    for dataset in (boxed, masked):
        assert isinstance(dataset, ImageFiles)
        before = dataset.fingerprint()
        assert before == ImageFiles(dataset.root, dataset.names).fingerprint()
        os.utime(dataset.root / dataset.names[0], ns=(1, 1))
        assert dataset.fingerprint() != before


def test_arrays_are_recognised_by_every_byte_by_shape_and_by_names() -> None:
    pixels = np.zeros((2, 4, 6, 3), dtype=np.uint8)
    changed = pixels.copy()
    changed[1, 3, 5, 2] = 1
    sets = [
        ArrayDataset(pixels, ["0", "1"], None),
        ArrayDataset(changed, ["0", "1"], None),
        ArrayDataset(pixels.reshape(2, 6, 4, 3), ["0", "1"], None),
        ArrayDataset(pixels, ["0", "2"], None),
    ]
    assert len({dataset.fingerprint() for dataset in sets}) == len(sets)
    otherwise_stored = ArrayDataset(np.asfortranarray(changed), ["0", "1"], None)
    assert otherwise_stored.fingerprint() == sets[1].fingerprint()


def test_labels_make_no_difference() -> None:
    pixels, names = np.zeros((2, 4, 6, 3), dtype=np.uint8), ["0", "1"]
    labelled = ArrayDataset(pixels, names, Labels(("a", "b"), np.array([0, 1])))
    assert labelled.fingerprint() == ArrayDataset(pixels, names, None).fingerprint()


def test_a_procedural_set_is_recognised_by_what_it_renders() -> None:
    first, again, other = (
        ShapesSettings(num_train=3, num_test=0, seed=seed).open().train.fingerprint() for seed in (0, 0, 1)
    )
    assert first == again != other


def test_a_part_is_recognised_by_whole_choice_and_order(folder: Path) -> None:
    whole = FolderSettings(path=folder).open().train
    found = [Subset(whole, indices).fingerprint() for indices in ([0, 1], [0, 2], [1, 0], [0])]
    assert len({whole.fingerprint(), *found}) == 5
    assert Subset(whole, [0, 1]).fingerprint() == found[0]


def test_holding_a_set_changes_nothing(folder: Path) -> None:
    whole = FolderSettings(path=folder).open().train
    assert HeldDataset(whole).fingerprint() == whole.fingerprint()


def test_a_set_that_says_nothing_has_no_fingerprint_nor_have_its_parts() -> None:
    assert Unknown().fingerprint() is None
    assert Subset(Unknown(), [0]).fingerprint() is None
    assert HeldDataset(Unknown()).fingerprint() is None
