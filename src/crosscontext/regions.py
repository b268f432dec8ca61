"""Boxes on stage maps: maps, boxes → **regions** → one square of cells a box.

Sources: He et al., "Mask R-CNN", ICCV 2017 (RoIAlign); Lin et al., "Feature Pyramid Networks", CVPR 2017
(equation 1: the map that suits a box).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from crosscontext.shapes import Float, Int64

_CANONICAL_SIDE, _CANONICAL_STRIDE = 224, 16  # a box of 224 px is pooled from the map of stride 16


class RegionPool(nn.Module):
    """Cuts what lies below each box out of the map that suits the size of the box.

    torchvision's MultiScaleRoIAlign guesses the strides from the first images that it sees, and is wrong
    where these are small and padded.

    Args:
        cells: along each side of what is cut out.
        strides: pixels of the image per cell of each map, each twice the one before.
    """

    def __init__(self, cells: int, strides: Sequence[int]):
        super().__init__()
        self.cells, self.strides = cells, tuple(strides)

    def forward(
        self, maps: dict[str, Tensor], boxes: list[Tensor], _image_sizes: object
    ) -> Float[Tensor, "M C cells cells"]:
        """Cut out all boxes of all images.

        Args:
            maps: finest first; those beyond the strides are not cut from.
            boxes: of each image, shape (M, 4), in pixels of the padded images.
            _image_sizes: is not needed; torchvision passes it.
        """
        of_image = torch.cat([corners.new_full((len(corners), 1), i) for i, corners in enumerate(boxes)])
        regions = torch.cat([of_image, torch.cat(boxes)], dim=1)  # (M, 5)
        levels = self.levels(regions[:, 1:])
        cuts, places = [], []
        for level, (stage_map, stride) in enumerate(zip(maps.values(), self.strides, strict=False)):
            chosen = (levels == level).nonzero().flatten()
            cuts.append(self._cut(stage_map, regions[chosen], stride))
            places.append(chosen)
        return cuts[0] if len(cuts) == 1 else torch.cat(cuts)[torch.cat(places).argsort()]

    def levels(self, boxes: Float[Tensor, "M 4"]) -> Int64[Tensor, " M"]:
        """Choose the map of each box, by the root of its area."""
        sides = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(dim=1).sqrt()
        cells = sides * _CANONICAL_STRIDE / _CANONICAL_SIDE / self.strides[0]
        return torch.log2(cells.clamp_min(1) + 1e-6).long().clamp_max(len(self.strides) - 1)

    def _cut(self, stage_map: Tensor, regions: Tensor, stride: int) -> Tensor:
        from torchvision.ops import roi_align

        cut: Tensor = roi_align(stage_map, regions, self.cells, spatial_scale=1 / stride, aligned=True)
        return cut
