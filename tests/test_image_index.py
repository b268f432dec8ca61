import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import quiet
from crosscontext.encoders import load_encoder
from crosscontext.errors import CheckpointError, ImageIndexError, RunFolderError
from crosscontext.image_index import ImageIndex, claimed, open_index
from small_index import card, content, handmade_index, small_encoder

VECTORS = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_an_index_is_opened_as_it_was_written(tmp_path: Path) -> None:
    written = handmade_index(tmp_path / "index", VECTORS)
    opened = open_index(tmp_path / "index")
    assert opened.card == written.card
    assert opened.images == written.images
    np.testing.assert_array_equal(opened.vectors, VECTORS)
    assert opened.card.model.digest == "0123456789abcdef"


def test_the_card_names_the_files_and_no_others_are_left(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    handmade_index(folder, VECTORS)
    before = files(folder)
    index = handmade_index(folder, [*VECTORS, [2.0, 1.0]])
    assert len(index.images) == 4
    assert files(folder) == {"index.json", *index.card.files.values()}
    assert before & files(folder) == {"index.json"}
    assert json.loads((folder / "index.json").read_text())["files"] == index.card.files


def test_files_of_a_write_that_was_broken_off_do_not_matter_and_go_away(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    handmade_index(folder, VECTORS)
    (folder / "vectors-00000000.npy").write_bytes(b"the first half")
    (folder / ".images-00000000.jsonl.4711").write_bytes(b"{")
    assert len(open_index(folder).images) == 3
    index = handmade_index(folder, VECTORS[:2])
    assert files(folder) == {"index.json", *index.card.files.values()}


def test_a_folder_without_index_is_answered_with_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ImageIndexError, match=r"There is no index in .*crosscontext embed RUN"):
        open_index(tmp_path)


def _cut_vectors(index: ImageIndex) -> None:
    file = index.folder / index.card.files["vectors"]
    file.write_bytes(file.read_bytes()[:-4])


def _lose_vectors(index: ImageIndex) -> None:
    (index.folder / index.card.files["vectors"]).unlink()


def _cut_lines(index: ImageIndex) -> None:
    file = index.folder / index.card.files["images"]
    file.write_bytes(file.read_bytes()[:-20])


def _lose_a_line(index: ImageIndex) -> None:
    file = index.folder / index.card.files["images"]
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))


def _narrow(index: ImageIndex) -> None:
    np.save(index.folder / index.card.files["vectors"], np.zeros((3, 1), np.float32))


def _round(index: ImageIndex) -> None:
    np.save(index.folder / index.card.files["vectors"], np.zeros((3, 2), np.float16))


@pytest.mark.parametrize("damage", [_cut_vectors, _lose_vectors, _cut_lines])
def test_a_damaged_index_is_refused(tmp_path: Path, damage: Callable[[ImageIndex], None]) -> None:
    damage(handmade_index(tmp_path / "index", VECTORS))
    with pytest.raises(ImageIndexError, match=r"is damaged: .*--overwrite"):
        open_index(tmp_path / "index")


@pytest.mark.parametrize("damage", [_lose_a_line, _narrow, _round])
def test_an_index_of_parts_that_do_not_fit_is_refused(
    tmp_path: Path, damage: Callable[[ImageIndex], None]
) -> None:
    damage(handmade_index(tmp_path / "index", VECTORS))
    with pytest.raises(
        ImageIndexError, match=r"does not fit together: index.json says 3 vectors of 2 float32"
    ):
        open_index(tmp_path / "index")


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "its text"), ('{"format_version": 2}', "format_version"), ("[]", "its text"), ("\ud800", "UTF-8")],
)
def test_a_card_that_cannot_be_read_is_refused(tmp_path: Path, text: str, said: str) -> None:
    handmade_index(tmp_path / "index", VECTORS)
    (tmp_path / "index" / "index.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ImageIndexError, match=said):
        open_index(tmp_path / "index")


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with (
        pytest.raises(ImageIndexError, match=r"is no index, and holds holiday.jpg"),
        claimed(tmp_path, quiet),
    ):
        pass
    assert files(tmp_path) == {"holiday.jpg"}


def test_a_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index").touch()
    with (
        pytest.raises(RunFolderError, match="cannot be the folder of an index"),
        claimed(tmp_path / "index", quiet),
    ):
        pass


def test_a_failure_before_the_first_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no light"), claimed(tmp_path / "deep" / "index", quiet):
        raise RuntimeError("no light")
    assert files(tmp_path / "deep") == set()


def test_a_failure_leaves_the_earlier_index(tmp_path: Path) -> None:
    before = handmade_index(tmp_path / "index", VECTORS)
    with pytest.raises(RuntimeError, match="no light"), claimed(tmp_path / "index", quiet):
        raise RuntimeError("no light")
    assert open_index(tmp_path / "index").card == before.card


def test_two_do_not_write_at_once(tmp_path: Path) -> None:
    with (
        claimed(tmp_path / "index", quiet),
        pytest.raises(RunFolderError, match=f"Another process is writing .*index: process {os.getpid()} on "),
        claimed(tmp_path / "index", quiet),
    ):
        pass


def test_a_file_is_found_by_any_of_its_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "pictures"
    (root / "a").mkdir(parents=True)
    (root / "a" / "1.jpg").touch()
    (tmp_path / "link").symlink_to(root)
    index = handmade_index(tmp_path / "index", VECTORS[:2], ["a/1.jpg", "a/2.jpg"], root=root)
    monkeypatch.chdir(root)
    assert index.row_of(Path("a/1.jpg")) == 0
    assert index.row_of(root / "a" / "2.jpg") == 1
    assert index.row_of(tmp_path / "link" / "a" / "1.jpg") == 0
    assert index.row_of(root / "b" / ".." / "a" / "1.jpg") == 0
    assert index.row_of(tmp_path / "1.jpg") is None
    assert index.missing(["a/1.jpg", "a/2.jpg", "a/2.jpg"]) == ["a/2.jpg"]


def test_another_model_is_refused_with_both_digests_and_widths(tmp_path: Path) -> None:
    one, other = small_encoder(tmp_path / "one", 1), small_encoder(tmp_path / "other", 2, width=0.25)
    held = content(VECTORS)
    with claimed(tmp_path / "index", quiet) as write:
        index = write(card(held, tmp_path, digest=load_encoder(one).digest), held)
    assert index.load_model(one).preprocessing == index.card.model.preprocessing
    digest, width = load_encoder(other).digest, load_encoder(other).width
    with pytest.raises(
        ImageIndexError, match=f"has the digest {digest} and gives {width} numbers .* holds 2"
    ):
        index.load_model(other)
    with pytest.raises(CheckpointError, match=r"There is no encoder .*nowhere"):
        index.load_model(None)
