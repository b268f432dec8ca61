from pathlib import Path

import pytest

from crosscontext.datasets.sources import open_sources, parts_in, short_names
from crosscontext.errors import DataError


def test_wildcards_are_spelled_out_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar", "c.txt"):
        (tmp_path / name).write_bytes(name.encode())
    found = open_sources([str(tmp_path / "*.tar")])
    assert [Path(source.name).name for source in found] == ["a.tar", "b.tar"]
    assert [source.read(0, 100) for source in found] == [b"a.tar", b"b.tar"]


def test_a_file_that_bears_brackets_is_no_wildcard(tmp_path: Path) -> None:
    (tmp_path / "a[1].tar").write_bytes(b"x")
    assert len(open_sources([str(tmp_path / "a[1].tar")])) == 1


@pytest.mark.parametrize(
    "location", ["{}/none.tar", "{}/*.tar", "memory://nowhere/a.tar", "memory://nowhere/*.tar"]
)
def test_a_name_that_means_no_file_is_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(DataError, match=r"cannot open .*\.tar'.*Check the name"):
        open_sources([location.format(tmp_path)])


@pytest.mark.parametrize("location", ["noprotocol://a.tar", "x" * 300 + ".tar", "a\0.tar"])
def test_what_the_system_refuses_is_a_data_error(location: str) -> None:
    with pytest.raises(DataError, match="cannot open"):
        open_sources([location])


def test_a_file_named_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    with pytest.raises(DataError, match=r"a\.tar' is named twice"):
        open_sources([str(tmp_path / "a.tar"), str(tmp_path / "*.tar")])


@pytest.mark.parametrize("prefix", ["", "memory://"])
def test_ranges_end_where_the_file_ends(tmp_path: Path, prefix: str) -> None:
    import fsspec

    place = f"{prefix}{tmp_path}/a.bin"
    with fsspec.open(place, "wb") as file:
        file.write(bytes(range(10)))
    (source,) = open_sources([place])
    assert source.size == 10
    assert source.read(3, 4) == bytes([3, 4, 5, 6])
    assert source.read(8, 100) == bytes([8, 9])
    with source.open() as opened:
        assert opened.read() == bytes(range(10))


@pytest.mark.parametrize("prefix", ["", "memory://"])
def test_a_changed_file_has_another_identity(tmp_path: Path, prefix: str) -> None:
    import fsspec

    place, found = f"{prefix}{tmp_path}/a.bin", []
    for content in (b"1", b"12"):
        with fsspec.open(place, "wb") as file:
            file.write(content)
        found += [source.identity for _ in range(2) for source in open_sources([place])]
    assert found[0] == found[1] != found[2] == found[3]


def test_a_replaced_file_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    assert open_sources([str(path)])[0].read(0, 3) == b"old"
    (tmp_path / "b.bin").write_bytes(b"newer")
    (tmp_path / "b.bin").rename(path)
    assert open_sources([str(path)])[0].read(0, 5) == b"newer"


def test_short_names_are_what_sets_files_apart(tmp_path: Path) -> None:
    for name in ("a/1.tar", "a/2.tar", "b/1.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    of_all = open_sources([f"{tmp_path}/*/*.tar"])
    assert short_names(of_all) == ["a/1.tar", "a/2.tar", "b/1.tar"]
    assert short_names(of_all[:2]) == ["1.tar", "2.tar"]
    assert short_names(of_all[:1]) == ["1.tar"]


def test_parts_are_told_by_the_names_of_the_shards(tmp_path: Path) -> None:
    assert parts_in(tmp_path, ".tar") is None
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-0.tar").touch()
    data = str(tmp_path / "data")
    assert parts_in(tmp_path, ".tar") == {"shards": [f"{data}/*.tar"]}
    (tmp_path / "data" / "validation-0.tar").touch()
    assert parts_in(tmp_path, ".tar") == {
        "shards": [f"{data}/train*.tar"],
        "test_shards": [f"{data}/val*.tar"],
    }
    (tmp_path / "data" / "test-0.tar").touch()
    assert parts_in(tmp_path, ".tar") == {
        "shards": [f"{data}/train*.tar"],
        "test_shards": [f"{data}/test*.tar"],
    }


def test_an_archive_beside_its_images_is_no_shard(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "all.tar").touch()
    (tmp_path / "cats" / "1.jpg").touch()
    assert parts_in(tmp_path, ".tar") is None
