import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import paint
from crosscontext import embedding as module
from crosscontext import file_vectors
from crosscontext.datasets.folder import whole_folder
from crosscontext.embedding import embed
from crosscontext.encoders import load_encoder
from crosscontext.errors import CheckpointError, CrossContextError, DataError, ImageIndexError, RunFolderError
from crosscontext.features import extract
from crosscontext.image_index import ImageIndex, open_index
from small_index import embedding, small_encoder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten pictures in two folders that look like parts of a data set."""
    for number in range(10):
        paint(tmp_path / "pictures" / ("train" if number % 2 else "test") / f"{number}.jpg", number, 0)
    return tmp_path / "pictures"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return small_encoder(tmp_path / "run")


def plan(run: Path, pictures: Path, **changes: object) -> tuple[ImageIndex, str]:
    """Embed, and what is said of the work to do."""
    said: list[str] = []
    index = embed(embedding(run, pictures, pictures.parent / "index", **changes), said.append)
    return index, said[0]


def test_an_index_has_the_vectors_of_all_images_in_the_order_of_their_paths(
    run: Path, pictures: Path
) -> None:
    index, said = plan(run, pictures)
    encoder, dataset = load_encoder(run), whole_folder(pictures)
    assert [image.path for image in index.images] == list(dataset.names)
    assert len(index.images) == 10
    np.testing.assert_allclose(index.vectors, extract(encoder, dataset, 4, 1).values.numpy(), atol=1e-5)
    assert (index.card.model.digest, index.card.width) == (encoder.digest, encoder.width)
    assert said == "10 images to compute, 0 are known, 0 are gone"
    opened = open_index(pictures.parent / "index")
    assert (opened.card, opened.images) == (index.card, index.images)
    np.testing.assert_array_equal(opened.vectors, index.vectors)


def test_only_new_and_changed_files_are_computed_and_removed_ones_disappear(
    run: Path, pictures: Path
) -> None:
    before, _ = plan(run, pictures)
    paint(pictures / "new" / "a.jpg", 90, 1)
    paint(pictures / "test" / "4.jpg", 91, 1)
    (pictures / "train" / "1.jpg").unlink()
    after, said = plan(run, pictures)
    assert said == "2 images to compute, 8 are known, 1 are gone"
    assert {image.path for image in after.images} - {image.path for image in before.images} == {"new/a.jpg"}
    assert "train/1.jpg" not in after.rows
    kept = [path for path in after.rows if path not in ("new/a.jpg", "test/4.jpg")]
    for path in kept:
        assert (after.vectors[after.rows[path]] == before.vectors[before.rows[path]]).all()
    fresh, _ = plan(run, pictures, overwrite=True)
    np.testing.assert_allclose(after.vectors, fresh.vectors, atol=1e-5)


def test_an_index_that_is_up_to_date_is_not_written(run: Path, pictures: Path) -> None:
    plan(run, pictures)
    folder = pictures.parent / "index"
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    _, said = plan(run, pictures)
    assert said == "0 images to compute, 10 are known, 0 are gone"
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_moved_copied_and_touched_files_are_known_by_their_content(run: Path, pictures: Path) -> None:
    before, _ = plan(run, pictures)
    (pictures / "train" / "1.jpg").rename(pictures / "moved.jpg")
    shutil.copy(pictures / "test" / "2.jpg", pictures / "copy.jpg")
    os.utime(pictures / "test" / "4.jpg", ns=(5, 5))
    after, said = plan(run, pictures)
    assert said == "0 images to compute, 11 are known, 1 are gone"
    for old, new in (("train/1.jpg", "moved.jpg"), ("test/2.jpg", "copy.jpg"), ("test/4.jpg", "test/4.jpg")):
        assert (after.vectors[after.rows[new]] == before.vectors[before.rows[old]]).all()


def test_equal_files_are_computed_once(run: Path, pictures: Path) -> None:
    shutil.copy(pictures / "test" / "2.jpg", pictures / "copy.jpg")
    index, said = plan(run, pictures)
    assert said.startswith("10 images to compute, 1 are known")
    assert (index.vectors[index.rows["copy.jpg"]] == index.vectors[index.rows["test/2.jpg"]]).all()


def test_unreadable_images_are_left_out_and_named_until_they_are_mended(run: Path, pictures: Path) -> None:
    for name in ("torn.jpg", "twin.jpg"):
        (pictures / name).write_bytes(b"no picture")
    index, _ = plan(run, pictures)
    assert len(index.images) == 10
    assert list(index.card.skipped) == ["torn.jpg", "twin.jpg"]
    assert "not of a known image format" in open_index(index.folder).card.skipped["twin.jpg"]
    paint(pictures / "torn.jpg", 50, 2)
    (pictures / "twin.jpg").unlink()
    index, _ = plan(run, pictures)
    assert (len(index.images), index.card.skipped) == (11, {})


def test_a_computation_that_was_broken_off_goes_on(
    run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SAVED_EVERY", -1.0)
    monkeypatch.setattr(file_vectors, "EVERY", -1.0)

    def tire(line: str) -> None:
        if line.startswith("8 of 10"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(embedding(run, pictures, pictures.parent / "index", batch_size=4), tire)
    assert 4 <= len(open_index(pictures.parent / "index").images) < 10
    index, said = plan(run, pictures)
    assert said in (
        "2 images to compute, 8 are known, 0 are gone",
        "6 images to compute, 4 are known, 0 are gone",
    )
    fresh, _ = plan(run, pictures, overwrite=True)
    np.testing.assert_allclose(index.vectors, fresh.vectors, atol=1e-5)


def test_vectors_of_another_model_are_never_mixed_in(run: Path, pictures: Path, tmp_path: Path) -> None:
    before, _ = plan(run, pictures)
    other = small_encoder(tmp_path / "other", seed=1, width=0.25)
    with pytest.raises(ImageIndexError, match=f"of the model {before.card.model.digest} .*--overwrite"):
        plan(other, pictures)
    with pytest.raises(ImageIndexError, match="of images of 16 pixels, not 24"):
        plan(run, pictures, image_size=24)
    assert open_index(before.folder).card == before.card
    after, _ = plan(other, pictures, overwrite=True)
    assert after.card.model.digest != before.card.model.digest
    assert after.card.width > before.card.width


def test_the_size_of_the_images_stays_that_of_the_index(run: Path, pictures: Path) -> None:
    plan(run, pictures, image_size=24)
    index, said = plan(run, pictures)
    assert index.card.model.preprocessing.image_size == 24
    assert said.startswith("0 images to compute")


def test_another_folder_is_refused_and_a_moved_one_is_known(
    run: Path, pictures: Path, tmp_path: Path
) -> None:
    plan(run, pictures)
    shutil.copytree(pictures, tmp_path / "others")
    with pytest.raises(ImageIndexError, match=r"which is still there, not .*others"):
        plan(run, tmp_path / "others")
    shutil.rmtree(pictures)
    index, said = plan(run, tmp_path / "others")
    assert said == "0 images to compute, 10 are known, 0 are gone"
    assert index.card.root == tmp_path / "others"


def test_the_format_stays_until_another_one_is_asked_for(run: Path, pictures: Path) -> None:
    first, _ = plan(run, pictures, format="safetensors")
    again, _ = plan(run, pictures)
    assert again.card.format == "safetensors"
    other, said = plan(run, pictures, format="npy")
    assert said.startswith("0 images to compute")
    assert other.card.format == open_index(other.folder).card.format == "npy"
    np.testing.assert_array_equal(other.vectors, first.vectors)
    assert not list(other.folder.glob("*.safetensors"))


def test_what_cannot_work_is_said_before_anything_is_written(
    run: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "0.jpg").write_bytes(b"no picture")
    cases: list[tuple[type[CrossContextError], Path, Path, Path, str]] = [
        (RunFolderError, run, pictures, tmp_path / "file", "cannot be the folder of an index"),
        (ImageIndexError, run, pictures, pictures, "is no index, and holds"),
        (DataError, run, tmp_path / "nowhere", tmp_path / "new", "does not exist"),
        (DataError, run, tmp_path / "mnist", tmp_path / "new", r"mnist is a data set by name.*Write its"),
        (DataError, run, tmp_path / "empty", tmp_path / "new", "no files at all"),
        (
            DataError,
            run,
            tmp_path / "torn",
            tmp_path / "new",
            "None of 1 images can be read: 0.jpg: cannot decode",
        ),
        (CheckpointError, tmp_path / "nowhere", pictures, tmp_path / "new", "There is no encoder"),
    ]
    for error, model, data, out, said in cases:
        with pytest.raises(error, match=said):
            embed(embedding(model, data, out))
        assert not (tmp_path / "new").exists()


def test_images_that_are_all_gone_leave_the_index_as_it_was(run: Path, pictures: Path) -> None:
    before, _ = plan(run, pictures)
    for file in pictures.rglob("*.jpg"):
        file.unlink()
    with pytest.raises(DataError, match="no files at all"):
        plan(run, pictures)
    assert open_index(before.folder).card == before.card
