import pytest
import torch

from crosscontext.errors import DataError
from crosscontext.stratified import draw, folds, hold_out

CLASSES = torch.tensor([0] * 50 + [1] * 10 + [2] * 3 + [3])[
    torch.randperm(64, generator=torch.Generator().manual_seed(0))
]


def per_class(picked: torch.Tensor) -> list[int]:
    return torch.bincount(CLASSES[picked], minlength=4).tolist()


def test_a_draw_has_the_number_of_each_class_that_was_asked_for() -> None:
    assert per_class(draw(CLASSES, lambda size: size // 2, seed=0)) == [25, 5, 1, 0]
    assert per_class(draw(CLASSES, lambda _: 3, seed=0)) == [3, 3, 3, 1]


def test_a_draw_is_a_function_of_the_seed() -> None:
    first, second, other = (draw(CLASSES, lambda size: size // 2, seed) for seed in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_small_draw_is_part_of_a_larger_one() -> None:
    small, large = draw(CLASSES, lambda _: 2, seed=0), draw(CLASSES, lambda _: 8, seed=0)
    assert not (small & ~large).any()
    assert small.sum() < large.sum()


def test_the_held_out_part_has_its_share_of_each_class() -> None:
    assert per_class(hold_out(CLASSES, 0.2, seed=0)) == [10, 2, 1, 0]
    assert not torch.equal(hold_out(CLASSES, 0.2, seed=0), hold_out(CLASSES, 0.2, seed=1))


def test_one_image_of_each_class_stays() -> None:
    assert per_class(~hold_out(CLASSES, 0.99, seed=0)) == [1, 1, 1, 1]


def test_classes_of_one_image_each_are_refused() -> None:
    with pytest.raises(DataError, match=r"Each of the 3 training images has a class of its own"):
        hold_out(torch.arange(3), 0.2, seed=0)


def test_folds_share_every_class_alike() -> None:
    classes = torch.tensor([0] * 50 + [1] * 11 + [2] * 3)
    fold_of = folds(classes, 3, seed=0)
    sizes = [[int(((fold_of == fold) & (classes == c)).sum()) for fold in range(3)] for c in range(3)]
    assert [sorted(size, reverse=True) for size in sizes] == [[17, 17, 16], [4, 4, 3], [1, 1, 1]]
    assert torch.equal(fold_of, folds(classes, 3, seed=0))
    assert not torch.equal(fold_of, folds(classes, 3, seed=1))


def test_a_class_with_fewer_images_than_folds_is_refused() -> None:
    with pytest.raises(DataError, match=r"has 1 training images, too few .* 3 folds.*fewer folds"):
        folds(CLASSES, 3, seed=0)
