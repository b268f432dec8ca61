import json
from pathlib import Path
from typing import Any

import pytest

from crosscontext.datasets import ParquetSettings
from crosscontext.datasets.contract import Dataset
from crosscontext.errors import DataError, ImageError
from packed import parquet_bytes, pictures


def opened(place: Path, content: bytes, **settings: object) -> Dataset:
    (place / "x.parquet").write_bytes(content)
    found = ParquetSettings.model_validate({"shards": [str(place / "x.parquet")], **settings})
    return found.open().train


@pytest.fixture
def picture(image_folder: Path) -> bytes:
    return pictures(image_folder)[0][0]


def described(names: object) -> bytes:
    return json.dumps({"info": {"features": {"label": {"names": names}}}}).encode()


@pytest.mark.parametrize(
    ("labels", "description", "classes"),
    [
        ([1, 0], described(["cat", "dog"]), ["dog", "cat"]),
        ([1, 0], b"", ["1", "0"]),
        (["b", "a"], b"", ["b", "a"]),
        ([1, 7], described(["cat", "dog"]), ["dog", "7"]),
        ([1, 0], described(["cat", "cat"]), ["1", "0"]),
        ([1, 0], described(3), ["1", "0"]),
        ([1, 0], b"[" * 100_000, ["1", "0"]),
        ([-1, -1], described(["cat", "dog"]), None),
        ([None, None], b"", None),
        (None, b"", None),
    ],
)
def test_classes_are_numbers_names_or_texts(
    tmp_path: Path, picture: bytes, labels: Any, description: bytes, classes: list[str] | None
) -> None:
    train = opened(tmp_path, parquet_bytes([picture] * 2, labels, described=description))
    found = train.labels and [train.labels.class_names[number] for number in train.labels.classes]
    assert found == classes


def test_names_are_file_and_row(tmp_path: Path, picture: bytes) -> None:
    train = opened(tmp_path, parquet_bytes([picture] * 9, rows=4))
    assert list(train.names)[7:] == ["x.parquet/000007", "x.parquet/000008"]


def test_the_test_part_shares_the_classes(tmp_path: Path, picture: bytes) -> None:
    (tmp_path / "t.parquet").write_bytes(parquet_bytes([picture], ["y"]))
    (tmp_path / "x.parquet").write_bytes(parquet_bytes([picture] * 2, ["x", "z"]))
    shards = {"shards": [str(tmp_path / "x.parquet")], "test_shards": [str(tmp_path / "t.parquet")]}
    splits = ParquetSettings.model_validate(shards).open()
    assert splits.test is not None
    assert splits.test.class_names == splits.train.class_names == ("x", "y", "z")


def test_a_column_of_another_name_is_named(tmp_path: Path, picture: bytes) -> None:
    content = parquet_bytes([picture] * 2, ["x", "y"])
    with pytest.raises(DataError, match=r"no column 'img' of bytes.*image \(binary\), label \(string\)"):
        opened(tmp_path, content, image_column="img")
    with pytest.raises(DataError, match=r"no column 'label' of bytes"):
        opened(tmp_path, content, image_column="label")
    with pytest.raises(DataError, match=r"no column 'class'; there are image, label"):
        opened(tmp_path, content, label_column="class")


@pytest.mark.parametrize("row", [None, {"bytes": None, "path": "/etc/passwd"}])
def test_a_row_without_bytes_is_an_image_error(tmp_path: Path, picture: bytes, row: Any) -> None:
    train = opened(tmp_path, parquet_bytes([{"bytes": picture, "path": "a"}, row]))
    assert train.pixels(0).shape == (40, 40, 3)
    with pytest.raises(ImageError, match=r"'x.parquet/000001': its row holds no bytes"):
        train.pixels(1)


def test_labels_for_some_rows_alone_are_refused(tmp_path: Path, picture: bytes) -> None:
    with pytest.raises(DataError, match=r"1 of 2 images of x\.parquet have no class"):
        opened(tmp_path, parquet_bytes([picture] * 2, ["x", None]))


def test_several_labels_a_row_are_refused(tmp_path: Path, picture: bytes) -> None:
    with pytest.raises(DataError, match=r"column 'label' .* more than one number or text a row"):
        opened(tmp_path, parquet_bytes([picture] * 2, [[1, 2], [3]]))


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    import pyarrow

    empty = pyarrow.array([], pyarrow.binary()).to_pylist()
    with pytest.raises(DataError, match="0 rows"):
        opened(tmp_path, parquet_bytes(empty))


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_truncated_file_is_named(tmp_path: Path, picture: bytes, kept: int) -> None:
    with pytest.raises(DataError, match=r"cannot read .*x\.parquet' as parquet"):
        opened(tmp_path, parquet_bytes([picture] * 9)[:kept])


def test_a_damaged_page_costs_the_images_in_it(tmp_path: Path, picture: bytes) -> None:
    content = bytearray(parquet_bytes([picture] * 2, rows=1))
    place = content.find(picture[:64])
    content[4:place] = bytes(place - 4)  # the head of the first page
    train = opened(tmp_path, bytes(content))
    with pytest.raises(ImageError, match=r"cannot read 'x.parquet/000000'"):
        train.pixels(0)
    assert train.pixels(1).shape == (40, 40, 3)


def test_a_row_group_that_would_not_fit_into_memory_is_refused(
    tmp_path: Path, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crosscontext.datasets.parquet._LARGEST_GROUP", 4 * len(picture))
    assert opened(tmp_path, parquet_bytes([picture] * 4, rows=1)).pixels(3).shape == (40, 40, 3)
    with pytest.raises(DataError, match=r"groups of up to \d+ bytes.*row_group_size=100"):
        opened(tmp_path, parquet_bytes([bytes([i]) + picture for i in range(4)], rows=4))


def test_row_groups_are_forgotten_when_they_are_too_many(
    tmp_path: Path, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crosscontext.datasets.parquet._BYTES_KEPT", len(picture) + 100)
    train = opened(tmp_path, parquet_bytes([picture] * 6, rows=2))
    assert {train.pixels(index).shape for index in (0, 5, 1, 4, 2, 3, 0)} == {(40, 40, 3)}
