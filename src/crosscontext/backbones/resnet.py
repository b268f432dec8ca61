"""ResNets, also narrow ones and with a stem for small images, with the key names of torchvision and timm."""

from typing import Any, Literal, cast

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from crosscontext.backbones.contract import Backbone, Stage
from crosscontext.settings import AbsolutePath, Settings
from crosscontext.weights import load_exactly, read_weights

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Blocks of the four stages, by depth."""

FIRST_BOTTLENECK_DEPTH = 50
SMALL_IMAGE = 64


class ResNetSettings(Settings):
    """A ResNet of He et al., CVPR 2016."""

    name: Literal["resnet"] = "resnet"
    depth: Literal[10, 18, 34, 50, 101] = 18
    """Number of layers; basic blocks up to 34, bottlenecks from 50 on."""

    width: float = Field(1.0, gt=0)
    """Multiplies the channels of all layers, 64 to 512 of them; 0.25 suits a computer without GPU."""

    stem: Literal["auto", "small", "medium", "large"] = "auto"
    """small: one 3×3 convolution of stride 1, for images below 64 px. medium: the same of stride 2, for a
    quarter of the cost. large: 7×7 of stride 2 and max-pooling. auto: small or large, by the image size."""

    weights: AbsolutePath | None = None
    """Start from this file (.safetensors, or a PyTorch state dict) instead of random weights."""

    def resolve(self, image_size: int) -> "ResNetSettings":
        """Settle the stem: small for images below 64 px."""
        if self.stem != "auto":
            return self
        return self.model_copy(update={"stem": "small" if image_size < SMALL_IMAGE else "large"})

    def build(self) -> "ResNet":
        """Build the network, on the CPU, with random or given weights."""
        return ResNet(self)


class ResNet(Backbone):
    """Images → the maps of layer1 … layer4."""

    def __init__(self, settings: ResNetSettings):
        from timm.models.resnet import BasicBlock, Bottleneck, make_blocks
        from timm.models.resnet import ResNet as TimmResNet

        super().__init__()
        block = Bottleneck if settings.depth >= FIRST_BOTTLENECK_DEPTH else BasicBlock
        blocks = BLOCKS[settings.depth]
        stem_channels, *_ = channels = [
            max(8, round(width * settings.width)) for width in (64, 128, 256, 512)
        ]
        model: Any = TimmResNet(
            cast(Any, block), blocks, num_classes=0, global_pool="", channels=tuple(channels)
        )
        pools = settings.stem not in ("small", "medium")
        if not pools or stem_channels != model.bn1.num_features:  # timm fixes the stem at 64 channels
            kernel, stride = (7 if pools else 3), (1 if settings.stem == "small" else 2)
            model.conv1 = nn.Conv2d(3, stem_channels, kernel, stride, kernel // 2, bias=False)
            model.bn1 = nn.BatchNorm2d(stem_channels)
            for name, layer in make_blocks((block,) * 4, tuple(channels), blocks, stem_channels)[0]:
                setattr(model, name, layer)
        if not pools:
            model.maxpool = nn.Identity()
        model.init_weights(zero_init_last=False)  # zero costs short runs on CIFAR-10 five points of k-NN
        self.model = model
        first_stride = {"small": 1, "medium": 2}.get(settings.stem, 4)
        self.stages = tuple(
            Stage(f"layer{i + 1}", channels[i] * block.expansion, first_stride * 2**i) for i in range(4)
        )
        if settings.weights is not None:
            weights = {k: v for k, v in read_weights(settings.weights).items() if not k.startswith("fc.")}
            load_exactly(self.model, weights, str(settings.weights))

    def forward(self, images: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """Compute the maps of layer1 … layer4."""
        maps: list[Tensor] = cast(Any, self.model).forward_intermediates(
            images, indices=[1, 2, 3, 4], intermediates_only=True
        )
        return maps

    def dilate(self, stride: int) -> None:
        """Let no stage be coarser than a stride: where one does not halve its map, kernels are spread.

        Those cells of the maps that were there before keep their values. Source: Chen et al., arXiv
        1706.05587, section 3.1.

        Args:
            stride: pixels a cell, at least those of the first stage.
        """
        dilation = 1
        for stage in self.stages:
            if stage.stride <= stride:
                continue
            before, dilation = dilation, 2 * dilation
            for module in getattr(self.model, stage.name).modules():
                if isinstance(module, nn.Conv2d):
                    spread = (
                        dilation if module.stride == (1, 1) else before
                    )  # what halved reads the finer map
                    module.stride = (1, 1)
                    if module.kernel_size == (3, 3):
                        module.dilation = module.padding = (spread, spread)
        self.stages = tuple(stage._replace(stride=min(stage.stride, stride)) for stage in self.stages)
