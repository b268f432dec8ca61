from pathlib import Path

import pytest

from crosscontext.datasets import ListSettings
from crosscontext.errors import DataError, ImageError


def written(folder: Path, text: str | bytes, name: str = "all.txt") -> Path:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


def test_paths_begin_at_the_folder_of_the_list_or_at_the_root(tmp_path: Path, image_folder: Path) -> None:
    names = "red/00.jpg\nblue/01.jpg\n"
    train = ListSettings(path=written(tmp_path, names), root=image_folder).open().train
    assert list(train.names) == ["red/00.jpg", "blue/01.jpg"]
    assert train.labels is None
    assert train.image(1).size == (40, 40)
    with pytest.raises(ImageError, match=r"'red/00\.jpg'"):
        ListSettings(path=tmp_path / "all.txt").open().train.image(0)


def test_what_follows_a_tab_is_the_class_and_windows_may_have_written_it(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbfa b.jpg\tcat \r\n\r\nc.jpg\tdog\r\n"
    train = ListSettings(path=written(tmp_path, text)).open().train
    assert list(train.names) == ["a b.jpg", "c.jpg"]
    assert train.labels is not None
    assert (train.labels.class_names, train.labels.classes.tolist()) == (("cat", "dog"), [0, 1])


def test_the_test_list_shares_the_classes(tmp_path: Path) -> None:
    train = written(tmp_path, "a.jpg\tx\nb.jpg\tz\n")
    splits = ListSettings(path=train, test_path=written(tmp_path, "c.jpg\ty\n", "test.txt")).open()
    assert splits.test is not None
    assert splits.test.labels is not None
    assert splits.test.labels.class_names == ("x", "y", "z")
    assert splits.test.labels.classes.tolist() == [1]


def test_an_image_in_both_lists_is_refused(tmp_path: Path) -> None:
    train, test = written(tmp_path, "a.jpg\nb.jpg"), written(tmp_path, f"{tmp_path}/b.jpg", "test.txt")
    with pytest.raises(DataError, match=r"1 images are in .*all\.txt and in .*test\.txt, e\.g\. '.*b\.jpg'"):
        ListSettings(path=train, test_path=test).open()


@pytest.mark.parametrize(
    ("text", "number"),
    [("a.jpg\na.jpg", 2), ("\n\tcat", 2), ("a.jpg\t", 1), ("a\0.jpg", 1), ("a.jpg\t \n", 1)],
)
def test_a_line_that_cannot_be_meant_is_named(tmp_path: Path, text: str, number: int) -> None:
    with pytest.raises(DataError, match=rf"line {number} of .*all\.txt' is .*Mend that line"):
        ListSettings(path=written(tmp_path, text)).open()


def test_classes_for_some_images_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 2 images of .*all\.txt have no class, the first is 'b\.jpg'"):
        ListSettings(path=written(tmp_path, "a.jpg\tx\nb.jpg\n")).open()


@pytest.mark.parametrize(
    ("content", "cause"), [(b"", "is empty"), (b"\n\n", "is empty"), (b"\xff\xfe", "not UTF-8 text")]
)
def test_a_file_that_is_no_list_is_refused(tmp_path: Path, content: bytes, cause: str) -> None:
    with pytest.raises(DataError, match=f"all.txt'.*{cause}"):
        ListSettings(path=written(tmp_path, content)).open()


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt': No such file"):
        ListSettings(path=tmp_path / "none.txt").open()


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "/dev/zero", "."])
def test_what_is_no_ordinary_file_is_an_image_error(tmp_path: Path, name: str) -> None:
    train = ListSettings(path=written(tmp_path, name)).open().train
    for read in (train.image, train.pixels):
        with pytest.raises(ImageError, match="cannot decode"):
            read(0)
