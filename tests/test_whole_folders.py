from collections.abc import Callable
from pathlib import Path

import pytest

from crosscontext.errors import RunFolderError
from crosscontext.whole_folders import written_whole


def fill(
    out: Path, text: str, overwrite: bool = False, is_ours: Callable[[str], bool] = lambda _: True
) -> None:
    with written_whole(out, overwrite=overwrite, is_ours=is_ours) as folder:
        (folder / "a.txt").write_text(text)
        assert not (out / "a.txt").exists() or (out / "a.txt").read_text() != text


def names_beside(out: Path) -> list[str]:
    return sorted(entry.name for entry in out.parent.iterdir())


def test_the_folder_appears_with_all_its_files_and_nothing_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    fill(out, "one")
    assert (out / "a.txt").read_text() == "one"
    assert names_beside(out) == ["out"]


def test_a_failure_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    fill(out, "one")

    def fail() -> None:
        with written_whole(out, overwrite=True) as folder:
            (folder / "a.txt").write_text("half")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert (out / "a.txt").read_text() == "one"
    assert names_beside(out) == ["out"]


def test_an_empty_folder_is_filled_and_a_full_one_is_replaced_only_if_asked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    fill(out, "one")
    with pytest.raises(RunFolderError, match=r"not empty: it holds a\.txt\. Replace it with --overwrite"):
        fill(out, "two")
    fill(out, "two", overwrite=True)
    assert (out / "a.txt").read_text() == "two"
    assert names_beside(out) == ["out"]


def test_what_others_wrote_is_never_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match=r"holds thesis\.tex, which was not written by such a command"):
        fill(out, "two", overwrite=True, is_ours=lambda name: name == "a.txt")
    assert (out / "thesis.tex").read_text() == "years of work"


def test_a_place_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunFolderError, match=r"is a file\. Name a folder with --out"):
            fill(out, "one")


def test_a_full_disk_while_writing_is_told_with_the_remedy(tmp_path: Path) -> None:
    def fail() -> None:
        with written_whole(tmp_path / "out", overwrite=False):
            raise OSError(28, "No space left on device")

    with pytest.raises(RunFolderError, match=r"No space left on device\. Nothing is left of it\. Make room"):
        fail()
    assert names_beside(tmp_path / "out") == []
