import numpy as np
import torch

from crosscontext.stage_pictures import stage_pictures


def test_equal_features_have_equal_colours_in_all_images() -> None:
    generator = torch.Generator().manual_seed(0)
    things = torch.randn(3, 8, generator=generator)  # three kinds of cells
    kinds = torch.randint(0, 3, (4, 5, 6), generator=generator)
    pictures = stage_pictures(things[kinds].permute(0, 3, 1, 2))
    assert [picture.size for picture in pictures] == [(6, 5)] * 4
    pixels, cells = np.stack([np.asarray(picture) for picture in pictures]), kinds.numpy()
    colours = [{tuple(pixel) for pixel in pixels[cells == kind]} for kind in range(3)]
    assert [len(colour) for colour in colours] == [1, 1, 1]
    assert len(set.union(*colours)) == 3


def test_a_constant_map_is_grey() -> None:
    (picture,) = stage_pictures(torch.ones(1, 2, 3, 3))
    assert (np.asarray(picture) == 128).all()


def test_colours_use_their_whole_range() -> None:
    maps = torch.randn(2, 16, 12, 12, generator=torch.Generator().manual_seed(0))
    pixels = np.stack([np.asarray(picture) for picture in stage_pictures(maps)])
    assert (pixels.reshape(-1, 3).min(axis=0) == 0).all()
    assert (pixels.reshape(-1, 3).max(axis=0) == 255).all()
