import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign, roi_align

from crosscontext.regions import RegionPool


def test_a_box_is_cut_from_the_map_that_suits_its_size() -> None:
    pool = RegionPool(7, (4, 8, 16, 32))
    sides = torch.tensor([1.0, 55, 57, 111, 113, 223, 225, 449, 2000])
    boxes = torch.stack([torch.zeros(9), torch.zeros(9), sides, sides], dim=1)
    assert pool.levels(boxes).tolist() == [0, 0, 0, 0, 1, 1, 2, 3, 3]


def test_one_map_takes_boxes_of_all_sizes() -> None:
    pool = RegionPool(2, (16,))
    assert pool.levels(torch.tensor([[0.0, 0, 1, 1], [0, 0, 900, 900]])).tolist() == [0, 0]


def test_what_is_cut_out_is_what_lies_below_the_box() -> None:
    down, across = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    fine = torch.stack([4 * across + 2, 4 * down + 2])[None]  # the place of each cell's centre in pixels
    coarse = fine[:, :, ::2, ::2] + 2
    boxes = [torch.tensor([[8.0, 16, 40, 48], [0, 0, 120, 120]]), torch.tensor([[64.0, 8, 96, 40]])]
    maps = {"0": fine.repeat(2, 1, 1, 1), "1": coarse.repeat(2, 1, 1, 1)}
    cells = RegionPool(4, (4, 8))(maps, boxes, None)
    assert cells.shape == (3, 2, 4, 4)
    for box, cut in zip(torch.cat(boxes), cells, strict=True):
        width, height = (box[2:] - box[:2]).tolist()
        centres = (torch.arange(4) + 0.5) / 4
        torch.testing.assert_close(cut[0, 0], box[0] + centres * width, atol=0.7, rtol=0)
        torch.testing.assert_close(cut[1, :, 0], box[1] + centres * height, atol=0.7, rtol=0)


@pytest.mark.parametrize("strides", [(4, 8, 16), (4,)])
def test_large_images_are_treated_as_by_torchvision_but_for_half_a_cell(strides: tuple[int, ...]) -> None:
    """torchvision's pool does not shift boxes by half a cell, as Mask R-CNN's authors do by now."""
    generator = torch.Generator().manual_seed(0)
    maps = {str(s): torch.randn(2, 3, 512 // s, 512 // s, generator=generator) for s in strides}
    corners = torch.rand(40, 2, generator=generator) * 200
    boxes = torch.cat([corners, corners + 4 + torch.rand(40, 2, generator=generator) * 250], dim=1)
    of_image = [boxes[:15], boxes[15:]]
    theirs = MultiScaleRoIAlign([str(s) for s in strides], 7, -1)
    pool = RegionPool(7, strides)
    expected = theirs(maps, of_image, [(512, 512)] * 2)
    stride = torch.tensor(strides)[pool.levels(boxes)][:, None]
    shifted = (boxes + stride / 2).split([15, 25])
    levels = pool.levels(boxes)
    ours = pool(maps, of_image, None)
    for level, s in enumerate(strides):
        chosen = [levels[:15] == level, levels[15:] == level]
        moved = [part[which] for part, which in zip(shifted, chosen, strict=True)]
        aligned = roi_align(maps[str(s)], moved, 7, 1 / s, aligned=True)
        torch.testing.assert_close(aligned, expected[torch.cat(chosen)])
        again = [part[which] for part, which in zip(of_image, chosen, strict=True)]
        torch.testing.assert_close(
            ours[torch.cat(chosen)], roi_align(maps[str(s)], again, 7, 1 / s, aligned=True)
        )


def test_gradients_reach_the_maps_from_every_level() -> None:
    maps = {s: torch.ones(1, 2, 64 // int(s), 64 // int(s), requires_grad=True) for s in ("4", "8")}
    boxes = [torch.tensor([[0.0, 0, 30, 30], [0, 0, 1000, 1000], [8, 8, 20, 20]])]
    RegionPool(2, (4, 8))(maps, boxes, None).sum().backward()
    for stage_map in maps.values():
        assert stage_map.grad is not None
        assert stage_map.grad.abs().sum() > 0
