import numpy as np
import torch

from crosscontext.layout import layout, principal


def clusters(size: int) -> torch.Tensor:
    """Three heaps of directions, `size` images each."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(3, 16).repeat_interleave(size, dim=0)
    return centres + 0.05 * torch.randn(3 * size, 16, generator=generator)


def test_images_that_are_alike_lie_beside_each_other() -> None:
    points = layout(clusters(20))
    assert points.shape == (60, 2)
    middles = points.reshape(3, 20, 2).mean(axis=1, keepdims=True)
    inside = np.abs(points.reshape(3, 20, 2) - middles).max()
    apart = min(np.abs(middles[i] - middles[j]).max() for i, j in ((0, 1), (0, 2), (1, 2)))
    assert inside < apart


def test_a_map_fills_the_square_and_is_the_same_each_time() -> None:
    first, second = layout(clusters(10)), layout(clusters(10))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first.min(axis=0), 0)
    np.testing.assert_allclose(first.max(axis=0), 1)


def test_the_length_of_features_does_not_matter() -> None:
    features = clusters(10)
    np.testing.assert_array_equal(layout(features), layout(1024 * features))  # no rounding


def test_collapsed_features_lie_on_one_spot() -> None:
    assert (layout(torch.ones(30, 8)) == 0.5).all()


def test_a_handful_of_images_is_laid_out_too() -> None:
    assert layout(clusters(1)).shape == (3, 2)
    assert layout(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).shape == (2, 2)


def test_principal_coordinates_do_not_depend_on_the_sign_that_a_library_chose() -> None:
    rows = clusters(4).double()
    rows -= rows.mean(dim=0)
    projected = principal(rows, 2)
    assert (projected.amax(dim=0) >= -projected.amin(dim=0)).all()
    torch.testing.assert_close(principal(rows, 100).square().sum(), rows.square().sum())
