import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from crosscontext import vector_search
from crosscontext.errors import SettingsError
from crosscontext.vector_search import NONE, Graph, at_least, cosines, nearest_rows


def noise(size: int, seed: int, width: int = 6) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((size, width)).astype(np.float32)


def nobody(size: int) -> NDArray[np.int64]:
    return np.full(size, NONE, np.int64)


def similarities(queries: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    one, other = (torch.from_numpy(part).double() for part in (queries, vectors))
    return (F.normalize(one, dim=1) @ F.normalize(other, dim=1).T).numpy()


@pytest.fixture(params=[(512, 2**14), (7, 11)], ids=["at once", "in blocks"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_search, "_QUERIES_AT_ONCE", request.param[0])
    monkeypatch.setattr(vector_search, "_VECTORS_AT_ONCE", request.param[1])


both_ways = pytest.mark.usefixtures("_blocks")


@both_ways
def test_the_nearest_are_those_of_the_whole_matrix() -> None:
    queries, vectors = noise(23, 0), noise(50, 1)
    found = nearest_rows(queries * 9, vectors, 12, nobody(23))
    expected = similarities(queries, vectors)
    order = np.argsort(-expected, axis=1)[:, :12]
    assert found.rows.tolist() == order.tolist()
    np.testing.assert_allclose(found.similarity.numpy(), np.take_along_axis(expected, order, 1), atol=1e-6)


@both_ways
def test_a_row_is_passed_over() -> None:
    vectors = noise(30, 0)
    vectors[7] = vectors[3]
    found = nearest_rows(vectors, vectors, 29, np.arange(30))
    assert not found.rows.eq(torch.arange(30)[:, None]).any()
    assert found.rows[3, 0] == 7
    assert found.rows[7, 0] == 3
    assert found.similarity.isfinite().all()


@both_ways
def test_where_too_few_are_left_the_last_similarity_says_so() -> None:
    found = nearest_rows(noise(2, 0), noise(13, 1), 99, np.array([4, NONE]))
    assert found.rows.shape == (2, 13)
    assert found.similarity[0, -1] == -torch.inf
    assert found.rows[0, -1] == 4
    assert found.similarity[1].isfinite().all()


@both_ways
def test_vectors_on_disk_are_searched_without_being_written_to(tmp_path: Path) -> None:
    vectors = noise(40, 0)
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    found = nearest_rows(mapped, mapped, 3, nobody(40))
    assert found.rows[:, 0].tolist() == list(range(40))
    assert found.similarity.max() <= 1
    assert at_least(mapped[:2], mapped, -1.0).all()


@both_ways
def test_those_above_a_threshold_are_those_of_the_whole_matrix() -> None:
    queries, vectors = noise(9, 0), noise(50, 1)
    expected = similarities(queries, vectors)
    found = at_least(queries, vectors, 0.25)
    assert 0 < found.sum() < found.size
    assert found.tolist() == (expected >= 0.25).tolist()


def test_cosines_are_taken_row_by_row_or_with_a_single_row() -> None:
    one, other = noise(5, 0), noise(5, 1)
    expected = similarities(one, other)
    np.testing.assert_allclose(cosines(one, other).numpy(), expected.diagonal(), atol=1e-6)
    np.testing.assert_allclose(cosines(one, other[:1]).numpy(), expected[:, 0], atol=1e-6)
    assert cosines(one, one).max() <= 1


@pytest.mark.parametrize("size", [1, 40])
def test_the_graph_finds_nearly_what_the_exact_search_finds(tmp_path: Path, size: int) -> None:
    pytest.importorskip("usearch")
    vectors, queries = noise(400, 0, 16), noise(size, 1, 16)
    exact = nearest_rows(queries, vectors, 10, nobody(size))
    graph = Graph(vectors, tmp_path / "graph.usearch")
    found = graph.nearest_rows(queries, 10, nobody(size))
    assert found.rows.shape == (size, 10)
    common = [
        len(set(one) & set(two)) for one, two in zip(found.rows.tolist(), exact.rows.tolist(), strict=True)
    ]
    assert sum(common) >= 9 * size
    assert (found.similarity[:, :-1] >= found.similarity[:, 1:]).all()
    again = Graph(vectors, tmp_path / "graph.usearch").nearest_rows(queries, 10, nobody(size))
    assert torch.equal(again.rows, found.rows)


def test_the_graph_passes_a_row_over_and_says_where_too_few_are_left(tmp_path: Path) -> None:
    pytest.importorskip("usearch")
    vectors = noise(6, 0, 16)
    found = Graph(vectors, tmp_path / "graph.usearch").nearest_rows(vectors, 99, np.arange(6))
    assert found.rows.shape == (6, 6)
    assert not found.rows[:, :5].eq(torch.arange(6)[:, None]).any()
    assert (found.similarity[:, 5] == -torch.inf).all()


def test_without_usearch_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(SettingsError, match=r'pip install "crosscontext\[usearch\]"'):
        Graph(noise(6, 0), tmp_path / "graph.usearch")
