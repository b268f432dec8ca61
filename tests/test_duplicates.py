from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crosscontext import duplicates
from crosscontext.duplicates import DedupeSettings, Duplicates, dedupe, explanation
from crosscontext.errors import ImageIndexError
from small_index import handmade_index


def around(*degrees: float) -> list[list[float]]:
    """Vectors in the plane: the cosine of two is that of the angle between them."""
    return [[float(np.cos(np.radians(angle))), float(np.sin(np.radians(angle)))] for angle in degrees]


def find(folder: Path, threshold: float, **changes: Any) -> Duplicates:
    return dedupe(DedupeSettings(index=folder, threshold=threshold, **changes))


def groups(found: Duplicates) -> list[list[str]]:
    return [[group.first, *(other.path for other in group.others)] for group in found.groups]


@pytest.fixture(params=[256, 2], ids=["at once", "in blocks"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_ROWS_AT_ONCE", request.param)


both_ways = pytest.mark.usefixtures("_blocks")


@both_ways
def test_similar_images_are_grouped_around_the_largest_file(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d", "e", "f"]
    handmade_index(tmp_path / "i", around(0, 4, 90, 91, 180, 270), names, [5, 9, 1, 2, 1, 1])
    found = find(tmp_path / "i", float(np.cos(np.radians(5))))
    assert groups(found) == [["d", "c"], ["b", "a"]]  # the most similar ones first
    assert found.groups[0].others[0].similarity == pytest.approx(np.cos(np.radians(1)), abs=1e-6)
    assert not found.groups[0].others[0].identical


@both_ways
def test_a_chain_does_not_become_one_group(tmp_path: Path) -> None:
    handmade_index(tmp_path / "i", around(0, 4, 8, 12), sizes=[9, 8, 7, 6])
    found = find(tmp_path / "i", float(np.cos(np.radians(5))))
    assert sorted(groups(found)) == [["0.jpg", "1.jpg"], ["2.jpg", "3.jpg"]]


@both_ways
def test_all_images_alike_are_one_group(tmp_path: Path) -> None:
    handmade_index(tmp_path / "i", around(*[33] * 7))
    (group,) = groups(find(tmp_path / "i", 1.0))
    assert sorted(group) == [f"{number}.jpg" for number in range(7)]


def test_no_duplicates_are_no_groups(tmp_path: Path) -> None:
    handmade_index(tmp_path / "i", around(0, 90))
    assert find(tmp_path / "i", 0.9, gallery=tmp_path / "page.html").groups == ()
    assert (tmp_path / "page.html").exists()


def test_nothing_is_deleted_and_removed_images_are_named(tmp_path: Path) -> None:
    index = handmade_index(tmp_path / "i", around(0, 1), sizes=[9, 8])
    index.file(0).touch()
    found = find(tmp_path / "i", 0.9)
    assert found.missing == ("1.jpg",)
    assert index.file(0).exists()


def test_a_threshold_without_images_has_to_be_given(tmp_path: Path) -> None:
    handmade_index(tmp_path / "i", around(0, 1))
    with pytest.raises(ImageIndexError, match=r"are gone, .* --threshold 0.95"):
        dedupe(DedupeSettings(index=tmp_path / "i"))


def test_a_given_threshold_is_said_without_measurements(tmp_path: Path) -> None:
    handmade_index(tmp_path / "i", around(0, 1))
    said = explanation(find(tmp_path / "i", 0.9))
    assert said == "Images whose similarity (cosine) is at least 0.9000 count as duplicates."
