from pathlib import Path

import numpy as np
import pytest

from crosscontext.errors import DataError
from crosscontext.outlying import OutliersSettings, outliers
from small_index import handmade_index


def crowd(seed: int = 0) -> list[list[float]]:
    """Forty vectors near each other, two that are near each other alone, and one that is alone."""
    generator = np.random.default_rng(seed)
    rows = generator.normal((1, 0, 0), 0.05, (43, 3))
    rows[10:12] += [-1, 3, 0]
    rows[20] += [-1, 0, -3]
    return [[float(value) for value in row] for row in rows]


def test_the_most_distant_come_first(tmp_path: Path) -> None:
    handmade_index(tmp_path / "i", crowd())
    found = outliers(OutliersSettings(index=tmp_path / "i", top=5))
    assert {outlier.path for outlier in found.outliers[:3]} == {"10.jpg", "11.jpg", "20.jpg"}
    distances = [outlier.distance for outlier in found.outliers]
    assert len(distances) == 5
    assert distances == sorted(distances, reverse=True)
    assert distances[2] > 0.5 > distances[3]
    assert found.median < 0.1
    pair = next(outlier for outlier in found.outliers if outlier.path == "10.jpg")
    assert (pair.nearest, pair.similarity > 0.9) == ("11.jpg", True)


def test_with_the_first_neighbour_alone_a_pair_is_no_outlier(tmp_path: Path) -> None:
    handmade_index(tmp_path / "i", crowd())
    found = outliers(OutliersSettings(index=tmp_path / "i", k=1))
    assert found.outliers[0].path == "20.jpg"
    assert found.outliers[1].distance < 0.1


def test_distances_are_those_of_a_loop(tmp_path: Path) -> None:
    index = handmade_index(tmp_path / "i", crowd())
    found = outliers(OutliersSettings(index=tmp_path / "i", k=4, top=43))
    unit = index.vectors / np.linalg.norm(index.vectors, axis=1, keepdims=True)
    for outlier in found.outliers:
        row = index.rows[outlier.path]
        others = sorted(1 - float(unit[row] @ unit[other]) for other in range(43) if other != row)
        assert outlier.distance == pytest.approx(others[3], abs=1e-6)


def test_few_images_are_compared_with_all_others(tmp_path: Path) -> None:
    handmade_index(tmp_path / "i", [[1, 0], [0, 1], [1, 1]])
    found = outliers(OutliersSettings(index=tmp_path / "i", gallery=tmp_path / "page.html"))
    assert found.k == 2
    assert len(found.outliers) == 3
    assert found.missing == tuple(outlier.path for outlier in found.outliers)
    assert "number 2." in (tmp_path / "page.html").read_text()


def test_a_graph_finds_the_same(tmp_path: Path) -> None:
    pytest.importorskip("usearch")
    handmade_index(tmp_path / "i", crowd())
    exact = outliers(OutliersSettings(index=tmp_path / "i", top=3))
    found = outliers(OutliersSettings(index=tmp_path / "i", top=3, approximate=True))
    assert [each.path for each in found.outliers] == [each.path for each in exact.outliers]


def test_a_single_image_cannot_be_an_outlier(tmp_path: Path) -> None:
    handmade_index(tmp_path / "i", [[1, 0]])
    with pytest.raises(DataError, match=r"holds 0.jpg alone"):
        outliers(OutliersSettings(index=tmp_path / "i"))
