from typing import Any

import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.overrides import TorchFunctionMode

from crosscontext import neighbours
from crosscontext.neighbours import nearest, rank_by_class


def noise(size: int, seed: int, width: int = 5) -> Tensor:
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def coarse(size: int, seed: int) -> Tensor:
    """Features with many equal ones among them, and so with many equal similarities."""
    return noise(size, seed, width=3).sign()


def labels(size: int, seed: int) -> Tensor:
    return torch.randint(4, (size,), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[2**22, 30 * 7], ids=["at once", "in chunks"])
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_SIMILARITIES_AT_ONCE", request.param)


both_ways = pytest.mark.usefixtures("_chunks")


@both_ways
def test_the_nearest_are_those_of_scikit_learn() -> None:
    queries, gallery = noise(23, 0), noise(30, 1)
    oracle = NearestNeighbors(n_neighbors=9, metric="cosine", algorithm="brute").fit(gallery.numpy())
    distances, rows = oracle.kneighbors(queries.numpy())
    found = nearest(queries * 7, gallery, 9)
    assert found.rows.tolist() == rows.tolist()
    torch.testing.assert_close(1 - found.similarity, torch.from_numpy(distances), rtol=0, atol=1e-12)


@both_ways
def test_an_image_is_passed_over_also_where_others_equal_it() -> None:
    values = noise(30, 0)
    values[7] = values[3]
    found = nearest(values, values, 29, without=torch.arange(30))
    assert not found.rows.eq(torch.arange(30)[:, None]).any()
    assert found.rows[3, 0] == 7
    assert found.rows[7, 0] == 3


@both_ways
@pytest.mark.parametrize("values", [noise, coarse])
def test_the_average_precision_is_that_of_scikit_learn(values: object) -> None:
    assert callable(values)
    queries, gallery = values(23, 0), values(30, 1)
    query_classes, gallery_classes = labels(23, 2), labels(30, 3)
    ranking = rank_by_class(queries, query_classes, gallery, gallery_classes)
    similarity = torch.nn.functional.cosine_similarity(queries[:, None], gallery[None], dim=2).round(
        decimals=9
    )
    expected = [
        average_precision_score((gallery_classes == label).numpy(), row.numpy())
        for label, row in zip(query_classes, similarity, strict=True)
    ]
    assert ranking.average_precision.tolist() == pytest.approx(expected)


@both_ways
@pytest.mark.parametrize("values", [noise, coarse])
def test_the_first_hit_is_that_of_a_loop(values: object) -> None:
    assert callable(values)
    queries, gallery = values(23, 0), values(30, 1)
    query_classes, gallery_classes = labels(23, 2), labels(30, 3)
    ranking = rank_by_class(queries, query_classes, gallery, gallery_classes)
    similarity = torch.nn.functional.cosine_similarity(queries[:, None], gallery[None], dim=2).round(
        decimals=9
    )
    for label, row, first in zip(query_classes, similarity, ranking.first.tolist(), strict=True):
        best = max(float(row[i]) for i in range(30) if gallery_classes[i] == label)
        others = [float(row[i]) for i in range(30) if gallery_classes[i] != label]
        assert first == 1 + sum(other >= best for other in others)


def test_features_that_are_all_alike_find_nothing() -> None:
    query_classes, gallery_classes = torch.tensor([0, 1]), torch.tensor([0, 0, 0, 1])
    ranking = rank_by_class(torch.ones(2, 4), query_classes, torch.ones(4, 4), gallery_classes)
    assert ranking.first.tolist() == [2, 4]
    assert ranking.average_precision.tolist() == [0.75, 0.25]


@both_ways
def test_the_order_of_the_gallery_does_not_matter() -> None:
    queries, gallery = coarse(23, 0), coarse(30, 1)
    query_classes, gallery_classes = labels(23, 2), labels(30, 3)
    shuffled = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    plain = rank_by_class(queries, query_classes, gallery, gallery_classes)
    other = rank_by_class(queries, query_classes, gallery[shuffled], gallery_classes[shuffled])
    assert torch.equal(plain.first, other.first)
    torch.testing.assert_close(plain.average_precision, other.average_precision)


class Largest(TorchFunctionMode):
    """Sees the size of every tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.num_values = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, list | tuple) else [made]:
            self.num_values = max(self.num_values, each.numel() if isinstance(each, Tensor) else 0)
        return made


def test_no_matrix_of_all_queries_by_all_images_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_SIMILARITIES_AT_ONCE", 1000)
    queries, gallery = noise(300, 0), noise(100, 1)
    with Largest() as largest:
        nearest(queries, gallery, 5)
        rank_by_class(queries, labels(300, 2), gallery, labels(100, 3))
    assert 1000 <= largest.num_values <= 3000  # neither are the features themselves larger
