import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from crosscontext.datasets import Dataset, Splits, TarSettings, sources
from crosscontext.errors import DataError, ImageError
from packed import pictures, tar_bytes, tar_shards


def write(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    (folder / name).write_bytes(tar_bytes(files))
    return folder / name


def opened(*shards: Path, **settings: object) -> Splits:
    return TarSettings.model_validate({"shards": list(map(str, shards)), **settings}).open()


def class_of_each(dataset: Dataset) -> dict[str, str]:
    assert dataset.labels is not None
    return {
        name: dataset.labels.class_names[number]
        for name, number in zip(dataset.names, dataset.labels.classes.tolist(), strict=True)
    }


@pytest.fixture
def picture(image_folder: Path) -> bytes:
    return pictures(image_folder)[0][0]


def test_classes_come_from_cls_or_from_the_label_of_json(tmp_path: Path, picture: bytes) -> None:
    files = {
        "a.jpg": picture, "a.cls": b" 3\n",
        "b.json": b'{"label": "cat", "caption": "a cat"}', "b.jpg": picture,
        "sub/c.cls": b"dog", "sub/c.JPEG": picture, "sub/c.json": b'{"label": 9}',
        "d.jpg": picture, "d.json": b'{"label": 3}', "d.txt": b"a caption",
    }  # fmt: skip
    train = opened(write(tmp_path, "x.tar", files)).train
    assert class_of_each(train) == {
        "x.tar/a.jpg": "3", "x.tar/b.jpg": "cat", "x.tar/sub/c.JPEG": "dog", "x.tar/d.jpg": "3",
    }  # fmt: skip


def test_a_key_ends_at_the_first_dot(tmp_path: Path, picture: bytes) -> None:
    files = {"a.jpg": picture, "a.seg.png": b"a mask", "b.left.jpg": picture}
    assert list(opened(write(tmp_path, "x.tar", files)).train.names) == ["x.tar/a.jpg"]


def test_both_parts_share_the_classes(tmp_path: Path, picture: bytes) -> None:
    write(tmp_path, "a.tar", {"1.jpg": picture, "1.cls": b"x", "2.jpg": picture, "2.cls": b"z"})
    write(tmp_path, "b.tar", {"1.jpg": picture, "1.cls": b"y"})
    splits = opened(tmp_path / "a.tar", test_shards=[str(tmp_path / "b.tar")])
    assert splits.test is not None
    assert splits.train.class_names == splits.test.class_names == ("x", "y", "z")
    assert class_of_each(splits.test) == {"b.tar/1.jpg": "y"}


def test_without_classes_there_are_no_labels(tmp_path: Path, picture: bytes) -> None:
    assert opened(write(tmp_path, "x.tar", {"1.jpg": picture})).train.labels is None


def test_some_classes_without_the_others_are_refused(tmp_path: Path, picture: bytes) -> None:
    files = {"1.jpg": picture, "2.jpg": picture, "2.cls": b"x"}
    with pytest.raises(DataError, match=r"1 of 2 images of x.tar have no class, the first is '1.jpg'"):
        opened(write(tmp_path, "x.tar", files))


def test_shards_of_the_same_name_are_told_apart_by_their_folders(tmp_path: Path, picture: bytes) -> None:
    for part in ("one", "two"):
        (tmp_path / part).mkdir()
        write(tmp_path / part, "0.tar", {"1.jpg": picture})
    train = opened(tmp_path / "one" / "0.tar", tmp_path / "two" / "0.tar").train
    assert list(train.names) == ["one/0.tar/1.jpg", "two/0.tar/1.jpg"]


def test_one_image_is_read_without_the_rest_of_the_shard(tmp_path: Path, image_folder: Path) -> None:
    shard = tmp_path / "x.tar"
    shard.write_bytes(tar_shards(image_folder)[0])
    train = opened(shard).train
    expected = train.pixels(3)
    with tarfile.open(shard) as archive:
        place, size = archive.getmember("003.jpg").offset_data, archive.getmember("003.jpg").size
    content = shard.read_bytes()
    shard.write_bytes(bytes(place) + content[place : place + size])
    assert np.array_equal(train.pixels(3), expected)


def test_without_an_index_nothing_is_written(tmp_path: Path, picture: bytes) -> None:
    opened(write(tmp_path, "x.tar", {"1.jpg": picture})).train.pixels(0)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


def test_an_index_is_written_once_and_read_afterwards(tmp_path: Path, picture: bytes) -> None:
    shard, index = write(tmp_path, "x.tar", {"1.jpg": picture}), tmp_path / "new" / "index"
    first = opened(shard, index=index).train
    (kept,) = index.iterdir()
    assert kept.name == "x.tar.index.json"
    stamp = shard.stat()
    shard.write_bytes(bytes(stamp.st_size))  # an index that fits is believed: the shard is not read
    os.utime(shard, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    again = opened(shard, index=index).train
    assert (again.names, again.fingerprint()) == (first.names, first.fingerprint())


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000])
def test_a_damaged_index_is_made_anew(tmp_path: Path, picture: bytes, damage: bytes) -> None:
    shard = write(tmp_path, "x.tar", {"1.jpg": picture})
    first = opened(shard, index=tmp_path).train
    file = tmp_path / "x.tar.index.json"
    whole = file.read_bytes()
    file.write_bytes(damage)
    assert opened(shard, index=tmp_path).train.fingerprint() == first.fingerprint()
    assert file.read_bytes() == whole


def test_an_index_with_another_place_in_it_is_made_anew(tmp_path: Path, picture: bytes) -> None:
    shard = write(tmp_path, "x.tar", {"1.jpg": picture})
    opened(shard, index=tmp_path)
    file = tmp_path / "x.tar.index.json"
    whole = file.read_bytes()
    assert b'"1.jpg",512,' in whole
    file.write_bytes(whole.replace(b'"1.jpg",512,', b'"1.jpg",513,'))
    opened(shard, index=tmp_path).train.pixels(0)
    assert file.read_bytes() == whole


def test_a_shard_that_changed_is_indexed_anew(tmp_path: Path, picture: bytes) -> None:
    shard = write(tmp_path, "x.tar", {"1.jpg": picture})
    first = opened(shard, index=tmp_path).train
    write(tmp_path, "x.tar", {"1.jpg": picture, "2.jpg": picture})
    second = opened(shard, index=tmp_path).train
    assert list(second.names) == ["x.tar/1.jpg", "x.tar/2.jpg"]
    assert first.fingerprint() != second.fingerprint()


def test_an_index_that_cannot_be_written_is_an_error(tmp_path: Path, picture: bytes) -> None:
    shard = write(tmp_path, "x.tar", {"1.jpg": picture})
    with pytest.raises(DataError, match=r"index .* cannot be written.*--data.index"):
        opened(shard, index=shard / "index")


def test_a_flipped_bit_in_an_image_is_found_and_named(tmp_path: Path, picture: bytes) -> None:
    shard = write(tmp_path, "x.tar", {"1.jpg": picture, "2.jpg": picture})
    train = opened(shard, index=tmp_path / "index").train
    content = bytearray(shard.read_bytes())
    content[512 + len(picture) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ImageError, match=r"'x.tar/1.jpg'.*x\.tar have changed since the index"):
        train.pixels(0)
    assert train.pixels(1).shape == (40, 40, 3)


@pytest.mark.parametrize("index", [False, True])
def test_a_truncated_shard_is_named_at_the_start(tmp_path: Path, picture: bytes, index: bool) -> None:
    shard = write(tmp_path, "x.tar", {"1.jpg": picture, "2.jpg": picture})
    settings = {"index": tmp_path / "index"} if index else {}
    opened(shard, **settings)
    shard.write_bytes(shard.read_bytes()[: 512 + len(picture) // 2])
    with pytest.raises(DataError, match=r"x\.tar' cannot be used: it is truncated.*fetch or make"):
        opened(shard, **settings)


def test_a_shard_that_is_cut_during_training_costs_the_images_behind_the_cut(
    tmp_path: Path, picture: bytes
) -> None:
    shard = write(tmp_path, "x.tar", {"1.jpg": picture, "2.jpg": picture})
    train = opened(shard).train
    os.truncate(shard, 1024 + len(picture))
    assert train.pixels(0).shape == (40, 40, 3)
    with pytest.raises(ImageError, match=r"'x.tar/2.jpg'.*ends too early"):
        train.pixels(1)


def test_a_shard_that_is_removed_is_read_on_as_long_as_it_is_open(tmp_path: Path, picture: bytes) -> None:
    shard = write(tmp_path, "x.tar", {"1.jpg": picture})
    train = opened(shard).train
    shard.unlink()
    assert train.pixels(0).shape == (40, 40, 3)
    sources._file.cache_clear()
    with pytest.raises(ImageError, match=r"cannot read 'x.tar/1.jpg'.*No such file"):
        train.pixels(0)


def test_an_image_that_is_none_is_an_image_error(tmp_path: Path) -> None:
    train = opened(write(tmp_path, "x.tar", {"1.jpg": b"<html>", "2.jpg": b""})).train
    for index, cause in enumerate(("not of a known image format", "the file is empty")):
        with pytest.raises(ImageError, match=f"'x.tar/{index + 1}.jpg'.*{cause}"):
            train.pixels(index)


def test_a_class_that_is_a_film_is_refused(tmp_path: Path, picture: bytes) -> None:
    with pytest.raises(DataError, match=r"'1.cls', the class of an image, has 2000000 bytes"):
        opened(write(tmp_path, "x.tar", {"1.jpg": picture, "1.cls": bytes(2_000_000)}))


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b"\xff"])
def test_a_json_that_is_none_is_refused(tmp_path: Path, picture: bytes, content: bytes) -> None:
    with pytest.raises(DataError, match=r"x.tar' cannot be used: '1.json' gives no class"):
        opened(write(tmp_path, "x.tar", {"1.jpg": picture, "1.json": content}))


def test_a_name_twice_is_refused(tmp_path: Path, picture: bytes) -> None:
    archive = tar_bytes({"1.jpg": picture})
    content = archive[: -(len(archive) % 512 or 10240 - 512 * 3)]
    half = content[: 512 + -(-len(picture) // 512) * 512]
    (tmp_path / "x.tar").write_bytes(half + archive)
    with pytest.raises(DataError, match=r"holds '1\.jpg' twice"):
        opened(tmp_path / "x.tar")


def test_a_shard_without_images_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no image; endings seen: \.txt \(2\)"):
        opened(write(tmp_path, "x.tar", {"1.txt": b"", "2.txt": b""}))
