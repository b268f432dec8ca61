"""Stage maps → one unit vector a context: the global one and the hypercolumn.

backbones, heads → **contexts** → relations
"""

from collections.abc import Collection, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from crosscontext.backbones.contract import Backbone, Stage
from crosscontext.errors import SettingsError
from crosscontext.heads import mlp
from crosscontext.settings import Settings

ContextName = Literal["global", "hyper"]


class ContextSettings(Settings):
    """Widths and stages of the two contexts (published for ImageNet: 512, 512, 4096, layer3 + layer4)."""

    global_width: int = 128
    """Width D of the global embedding; published for ImageNet: 512."""

    hyper_width: int = 128
    """Width D of the hypercolumn embedding; published for ImageNet: 512."""

    hidden_width: int = 512
    """Hidden width of both projections; published for ImageNet: 4096."""

    hidden_norm: bool = False
    """BatchNorm after the hidden layer of both projections, as small-data recipes have it (SimCLR, SCE);
    published: no."""

    hyper_stages: tuple[int, ...] = (-2, -1)
    """Stages stacked into the hypercolumn, counted as in a Python list: -1 is the last one."""

    def build(
        self, backbone: Backbone, names: Collection[ContextName] = ("global", "hyper")
    ) -> "ContextNetwork":
        """Put a head for each named context on top of a backbone.

        Raises:
            SettingsError: a stage of the hypercolumn does not exist.
        """
        stages = backbone.stages
        check_stages(self.hyper_stages, stages, "contexts.hyper_stages")
        heads: dict[str, nn.Module] = {}
        if "global" in names:
            heads["global"] = GlobalContext(
                stages[-1].channels, self.hidden_width, self.global_width, self.hidden_norm
            )
        if "hyper" in names:
            heads["hyper"] = HypercolumnContext(
                [stages[i].channels for i in self.hyper_stages],
                stages[-1].channels,
                self.hidden_width,
                self.hyper_width,
                self.hyper_stages,
                self.hidden_norm,
            )
        return ContextNetwork(backbone, heads)

    def widths(self, names: Collection[ContextName]) -> dict[str, int]:
        """Width of the embedding of each named context."""
        widths = {"global": self.global_width, "hyper": self.hyper_width}
        return {name: width for name, width in widths.items() if name in names}


def check_stages(chosen: Sequence[int], stages: Sequence[Stage], setting: str) -> None:
    """Refuse a choice of stages that is empty or names one that the backbone lacks.

    Args:
        chosen: indices as in a Python list.
        stages: of the backbone.
        setting: that the choice comes from.

    Raises:
        SettingsError: lists the stages that there are.
    """
    if chosen and all(-len(stages) <= i < len(stages) for i in chosen):
        return
    listing = ", ".join(f"{i - len(stages)}: {stage.name}" for i, stage in enumerate(stages))
    raise SettingsError(
        f"{setting} is {tuple(chosen)}, but the backbone has these stages: {listing}. "
        "Name at least one of them."
    )


def pool(stage_map: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C"]:
    """Global average pooling."""
    return stage_map.mean(dim=(2, 3))


class GlobalContext(nn.Module):
    """Last stage map → global average → MLP."""

    def __init__(self, channels: int, hidden_width: int, width: int, hidden_norm: bool = False):
        super().__init__()
        self.project = mlp((channels, hidden_width, width), hidden_norm=hidden_norm)

    def forward(self, maps: Sequence[Tensor]) -> Float[Tensor, "B D"]:
        """Embed the image as a whole; rows are not normalised yet."""
        embedding: Tensor = self.project(pool(maps[-1]))
        return embedding


class HypercolumnContext(nn.Module):
    """Chosen stage maps, on one grid, stacked → 1×1 convolution, BatchNorm, ReLU → global average → MLP.

    Source: CGH, arXiv 2308.13392, figure 2; Hariharan et al., CVPR 2015, for hypercolumns.

    Args:
        channels: of each chosen map.
        mixed_channels: after the 1×1 convolution, which has no bias; published: the width of the last stage.
        hidden_width: of the MLP.
        width: of the embedding.
        stages: which maps to choose; the grid is that of the last one named.
        hidden_norm: whether the MLP has a BatchNorm.
    """

    def __init__(
        self,
        channels: Sequence[int],
        mixed_channels: int,
        hidden_width: int,
        width: int,
        stages: Sequence[int],
        hidden_norm: bool = False,
    ):
        super().__init__()
        self.stages = tuple(stages)
        self.mix = nn.Sequential(
            nn.Conv2d(sum(channels), mixed_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(mixed_channels),
            nn.ReLU(),
        )
        self.project = mlp((mixed_channels, hidden_width, width), hidden_norm=hidden_norm)

    def forward(self, maps: Sequence[Tensor]) -> Float[Tensor, "B D"]:
        """Embed the stacked maps; rows are not normalised yet."""
        embedding: Tensor = self.project(pool(self.mix(hypercolumn([maps[i] for i in self.stages]))))
        return embedding


def hypercolumn(maps: Sequence[Tensor]) -> Float[Tensor, "B C h w"]:
    """Stack maps along the channels, each resized to the grid of the last one.

    Bilinear, half-pixel centres (align_corners=False), no antialiasing, as published: halving a map takes
    the mean of 2×2 cells, quartering it the mean of the two central cells along each side.
    """
    grid = maps[-1].shape[2:]
    same_grid = [
        m if m.shape[2:] == grid else F.interpolate(m, grid, mode="bilinear", align_corners=False)
        for m in maps
    ]
    return torch.cat(same_grid, dim=1)


def unit_rows(rows: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """Divide each row by its L2 norm, in float32 at least: similarities differ in their third digit."""
    return F.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=1)


class ContextNetwork(nn.Module):
    """A backbone with a head for each context: what student and teacher are made of."""

    def __init__(self, backbone: Backbone, heads: dict[str, nn.Module]):
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict(heads)

    def forward(
        self, images: Float[Tensor, "B 3 H W"], only: Collection[str] | None = None
    ) -> dict[str, Float[Tensor, "B D"]]:
        """Embed images in every context.

        Args:
            images: normalised.
            only: names of the contexts to compute; None: all of them.

        Returns:
            Context name → unit rows.
        """
        maps = self.backbone(images)
        return {
            name: unit_rows(head(maps)) for name, head in self.heads.items() if only is None or name in only
        }
