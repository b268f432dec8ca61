import shutil
from pathlib import Path

import pytest
import torch

from conftest import paint
from crosscontext import file_vectors
from crosscontext.embedding import embed
from crosscontext.encoders import load_encoder
from crosscontext.errors import CheckpointError, DataError
from crosscontext.file_vectors import compute, files_below, identify, printable, vectors_of
from crosscontext.index_settings import ModelOfIndex
from small_index import embedding, small_encoder


def test_a_file_is_read_again_only_where_size_or_time_have_changed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"one")
    (first, second), skipped = identify(tmp_path, ["a", "b"], {}, 1)
    assert first.sha256 == second.sha256 == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert (first.size, skipped) == (3, {})
    known = {"a": first._replace(sha256="trusted"), "b": second._replace(sha256="old", modified_ns=1)}
    (first_again, second_again), _ = identify(tmp_path, ["a", "b"], known, 1)
    assert first_again.sha256 == "trusted"
    assert second_again == second


def test_files_that_cannot_be_read_are_named_with_the_cause(tmp_path: Path) -> None:
    bad = b"\xff.jpg".decode("utf-8", "surrogateescape")
    images, skipped = identify(tmp_path, ["gone.jpg", bad], {}, 1)
    assert images == ()
    assert skipped == {
        "gone.jpg": "it cannot be read: No such file or directory",
        "�.jpg": "its name is not UTF-8; rename it",
    }
    assert printable("ü.jpg") == "ü.jpg"


def test_vectors_are_those_of_the_encoder_and_progress_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_vectors, "EVERY", -1.0)
    encoder = load_encoder(small_encoder(tmp_path / "run"))
    files = [tmp_path / f"{number}.jpg" for number in range(5)]
    for number, file in enumerate(files):
        paint(file, number, 0)
    files[2].write_bytes(b"no picture")
    skipped: dict[str, str] = {}
    said: list[str] = []
    found = {
        index: vector
        for indices, vectors in compute(encoder, files, 1, 2, skipped, said.append)
        for index, vector in zip(indices, vectors, strict=True)
    }
    assert list(found) == [0, 1, 3, 4]
    assert list(skipped) == [str(files[2])]
    from crosscontext.datasets.decoding import decode

    picture = encoder.preprocess(decode(files[3], "3"))
    with torch.no_grad():
        expected = encoder(picture[None])[0]
    torch.testing.assert_close(torch.from_numpy(found[3]), expected, atol=1e-4, rtol=1e-3)
    assert said[0].startswith("2 of 5 images, ")


def test_what_is_in_the_index_needs_no_model(tmp_path: Path) -> None:
    for number in range(3):
        paint(tmp_path / "pictures" / f"{number}.jpg", number, 0)
    run = small_encoder(tmp_path / "run")
    index = embed(embedding(run, tmp_path / "pictures", tmp_path / "index"))
    run.unlink()
    copy, new = tmp_path / "copy.jpg", tmp_path / "new.jpg"
    shutil.copy(tmp_path / "pictures" / "1.jpg", copy)
    settings = ModelOfIndex(index=index.folder)
    found = vectors_of([copy], index, settings, print)
    assert (found.vectors == index.vectors[1]).all()
    paint(new, 9, 0)
    with pytest.raises(CheckpointError, match="There is no encoder"):
        vectors_of([copy, new], index, settings, print)


def test_unreadable_files_are_left_out_unless_all_are(tmp_path: Path) -> None:
    for number in range(3):
        paint(tmp_path / "pictures" / f"{number}.jpg", number, 0)
    index = embed(embedding(small_encoder(tmp_path / "run"), tmp_path / "pictures", tmp_path / "index"))
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    paint(good, 9, 0)
    bad.write_bytes(b"no picture")
    said: list[str] = []
    found = vectors_of([bad, good], index, ModelOfIndex(index=index.folder), said.append)
    assert [image.path for image in found.images] == [str(good)]
    assert found.vectors.any()
    assert list(found.skipped) == [str(bad)]
    assert said[-1].startswith("1 unreadable images are left out: ")
    with pytest.raises(DataError, match=r"None of 1 images can be read: .*bad.jpg: cannot decode"):
        vectors_of([bad], index, ModelOfIndex(index=index.folder), print)


def test_folders_are_replaced_by_their_images(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/c/1.jpg", "0.jpg"):
        paint(tmp_path / name, 0, 0)
    found = files_below([tmp_path / "0.jpg", tmp_path / "b", tmp_path / "b" / "2.jpg"])
    assert found == [tmp_path / "0.jpg", tmp_path / "b" / "2.jpg", tmp_path / "b" / "c" / "1.jpg"]
    with pytest.raises(DataError, match=r"There is no image .*9.jpg"):
        files_below([tmp_path / "9.jpg"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no files at all"):
        files_below([tmp_path / "empty"])
