"""Faster R-CNN on an encoder: network → **detectors** → detection.

Source: Ren et al., "Faster R-CNN", NeurIPS 2015, with the parts of torchvision. The two heads are those of He
et al., "Momentum Contrast", CVPR 2020 (R50-C4), and Lin et al., "Feature Pyramid Networks", CVPR 2017.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from crosscontext.backbones import Backbone
from crosscontext.encoders import Encoder, Preprocessing
from crosscontext.errors import SettingsError
from crosscontext.regions import RegionPool
from crosscontext.settings import Settings
from crosscontext.shapes import Float

_FINEST_STRIDE = 4
_RES5_CELLS, _PYRAMID_CELLS = 14, 7
_MODES = ("training", "testing")

_Share = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(ge=1)]


class DetectorSettings(Settings):
    """The parts of Faster R-CNN beside the encoder."""

    head: Literal["c4", "fpn"] = "c4"
    """c4: proposals come from the last map but one of a ResNet, whose last stage is the head of each box
    (arXiv 1911.05722). fpn: a feature pyramid on all stage maps from stride 4 on (arXiv 1612.03144)."""

    batch_norm: Literal["train", "frozen"] = "train"
    """train: statistics and weights of BatchNorm are trained on, and the new layers have it too, as in MoCo
    (there over several GPUs). frozen: both stay as pretraining left them."""

    anchor_sides: tuple[_Share, ...] = Field((0.04, 0.08, 0.16, 0.32, 0.64), min_length=1)
    """Sides of the anchors over the short side of the test images; published: 32 to 512 px at 800. The levels
    of a pyramid share them out."""

    anchor_ratios: tuple[_Share, ...] = Field((0.5, 1.0, 2.0), min_length=1)
    """Heights of the anchors over their widths."""

    anchors_per_image: int = Field(256, ge=1)
    """Anchors of an image that the proposals learn from; published: 256."""

    candidates: tuple[_Count, _Count] = (1000, 1000)
    """Proposals of an image before overlapping ones are left out, for each map, in training and in the test;
    published for C4: 12 000 and 6 000."""

    proposals: tuple[_Count, _Count] = (500, 300)
    """Proposals of an image that are left then, in training and in the test; published: 2 000 and 1 000."""

    rois_per_image: int = Field(64, ge=1)
    """Proposals of an image that the head learns from; published: 512."""

    pyramid_channels: int = Field(64, ge=1)
    """Channels of a feature pyramid; published: 256."""

    pyramid_hidden: int = Field(256, ge=1)
    """Width of the two layers of the head of a feature pyramid; published: 1024."""

    proposal_nms: float = Field(0.7, gt=0, le=1)
    """Overlap from which on the less sure one of two proposals is left out."""

    nms: float = Field(0.5, gt=0, le=1)
    """Overlap from which on the less sure one of two detections of a class is left out."""

    score_threshold: float = Field(0.05, ge=0, lt=1)
    """Less sure detections are left out."""

    max_detections: int = Field(100, ge=1)
    """Detections of an image, the surest ones."""


class Detector(nn.Module):
    """Faster R-CNN whose frozen layers stay frozen in training mode.

    Args:
        network: of torchvision.
        frozen: layers that stay in evaluation mode, and whose weights are not trained.
    """

    def __init__(self, network: nn.Module, frozen: Sequence[nn.Module]):
        super().__init__()
        self.network = network
        self._frozen = tuple(frozen)
        for layer in frozen:
            layer.requires_grad_(False)

    def train(self, mode: bool = True) -> "Detector":
        """Switch all but the frozen layers."""
        super().train(mode)
        for layer in self._frozen:
            layer.eval()
        return self

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Compute the losses in training mode, the detections in evaluation mode.

        Args:
            images: each of shape (3, height, width), in [0, 1].
            targets: ``boxes`` (M, 4) in pixels and ``labels`` (M,) from 1 on, of each image.

        Returns:
            The four losses of Faster R-CNN, or ``boxes``, ``labels`` and ``scores`` of each image.
        """
        outcome: dict[str, Tensor] | list[dict[str, Tensor]] = self.network(images, targets)
        return outcome


def build_detector(
    encoder: Encoder, num_classes: int, settings: DetectorSettings, short_side: int
) -> Detector:
    """Put Faster R-CNN on an encoder; new weights come from the global generator.

    Args:
        encoder: is taken apart, and trained with the detector.
        num_classes: without the background.
        settings: of the other parts.
        short_side: of the test images, in pixels.

    Raises:
        SettingsError: the head does not suit the backbone.
    """
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
    from torchvision.models.detection.roi_heads import RoIHeads
    from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

    trained_norm = settings.batch_norm == "train"
    frozen = [] if trained_norm else [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    build = _c4 if settings.head == "c4" else _fpn
    maps, pool, head, width = build(encoder.backbone, settings)
    sides = [share * short_side for share in settings.anchor_sides]
    anchors = AnchorGenerator(
        sizes=_shared_out(sides, maps.num_levels), aspect_ratios=(settings.anchor_ratios,) * maps.num_levels
    )
    proposing = RegionProposalNetwork(
        anchors,
        RPNHead(maps.channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=settings.anchors_per_image,
        positive_fraction=0.5,
        pre_nms_top_n=dict(zip(_MODES, settings.candidates, strict=True)),
        post_nms_top_n=dict(zip(_MODES, settings.proposals, strict=True)),
        nms_thresh=settings.proposal_nms,
    )
    judging = RoIHeads(
        pool,
        head,
        _Predictor(width, num_classes),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=settings.rois_per_image,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=settings.score_threshold,
        nms_thresh=settings.nms,
        detections_per_img=settings.max_detections,
    )
    padding = _Normalising(encoder.preprocessing, max(stage.stride for stage in encoder.backbone.stages))
    return Detector(GeneralizedRCNN(maps, proposing, judging, padding), frozen)


def _c4(backbone: Backbone, settings: DetectorSettings) -> tuple["_Maps", RegionPool, nn.Module, int]:
    """Split a ResNet before its last stage."""
    *_, stage, last = backbone.stages
    if last.name != "layer4":
        raise SettingsError(
            f"The head c4 splits a ResNet before layer4, and the last stage of this backbone is {last.name}. "
            "Set detector.head to fpn."
        )
    res5 = backbone.model.get_submodule(last.name)
    backbone.model.set_submodule(last.name, nn.Identity())
    norm = nn.BatchNorm2d(last.channels) if settings.batch_norm == "train" else nn.Identity()
    head = nn.Sequential(res5, norm, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    maps = _Maps(backbone, [len(backbone.stages) - 2], None, stage.channels)
    return maps, RegionPool(_RES5_CELLS, [stage.stride]), head, last.channels


def _fpn(backbone: Backbone, settings: DetectorSettings) -> tuple["_Maps", RegionPool, nn.Module, int]:
    from torchvision.models.detection.faster_rcnn import TwoMLPHead
    from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

    chosen = [i for i, stage in enumerate(backbone.stages) if stage.stride >= _FINEST_STRIDE]
    strides = [backbone.stages[i].stride for i in chosen]
    if not chosen or any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
        raise SettingsError(
            f"A feature pyramid needs stage maps whose strides double from {_FINEST_STRIDE} on, and those of "
            f"this backbone are {[stage.stride for stage in backbone.stages]}. Choose a ResNet, ConvNeXt or "
            "EfficientNet."
        )
    channels = settings.pyramid_channels
    pyramid = FeaturePyramidNetwork(
        [backbone.stages[i].channels for i in chosen],
        channels,
        extra_blocks=LastLevelMaxPool(),
        norm_layer=nn.BatchNorm2d if settings.batch_norm == "train" else None,
    )
    head = TwoMLPHead(channels * _PYRAMID_CELLS**2, settings.pyramid_hidden)
    maps = _Maps(backbone, chosen, pyramid, channels)
    return maps, RegionPool(_PYRAMID_CELLS, strides), head, settings.pyramid_hidden


def _shared_out(sides: Sequence[float], num_levels: int) -> tuple[tuple[float, ...], ...]:
    """Give each level a run of neighbouring sides, all runs equally long: one each if there are as many."""
    if num_levels > len(sides):
        raise SettingsError(
            f"The pyramid has {num_levels} levels, and there are {len(sides)} anchor sides. Give one a "
            "level, or more, in detector.anchor_sides."
        )
    length = len(sides) - num_levels + 1
    return tuple(tuple(sides[level : level + length]) for level in range(num_levels))


class _Maps(nn.Module):
    """Images → the maps that proposals are made on."""

    def __init__(self, backbone: Backbone, chosen: Sequence[int], pyramid: nn.Module | None, channels: int):
        super().__init__()
        self.backbone, self.pyramid = backbone, pyramid
        self.chosen, self.channels = tuple(chosen), channels
        self.num_levels = len(self.chosen) + (pyramid is not None)  # a pyramid adds a coarser one

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        stage_maps = self.backbone(images)
        maps = {str(index): stage_maps[index] for index in self.chosen}
        if self.pyramid is not None:
            maps = self.pyramid(maps)
        return maps


class _Predictor(nn.Module):
    """Vectors of boxes → logits of the classes, background first, and a better box for each class."""

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        self.classes = nn.Linear(width, num_classes + 1)
        self.corrections = nn.Linear(width, 4 * (num_classes + 1))
        for layer, deviation in ((self.classes, 0.01), (self.corrections, 0.001)):  # Fast R-CNN, section 2.3
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, vectors: Float[Tensor, "M D"]) -> tuple[Tensor, Tensor]:
        return self.classes(vectors), self.corrections(vectors)


class _Normalising(nn.Module):
    """Images in [0, 1] → normalised ones, padded with zeros to a common size that the backbone divides.

    Takes the place of torchvision's transform, which resizes without antialiasing: here images come in their
    final size.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing, coarsest_stride: int):
        super().__init__()
        self.multiple = 2 * coarsest_stride  # a pyramid has one level more
        self.register_buffer("mean", torch.tensor(preprocessing.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std)[:, None, None], persistent=False)

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[object, list[dict[str, Tensor]] | None]:
        from torchvision.models.detection.image_list import ImageList

        sizes = [(image.shape[1], image.shape[2]) for image in images]
        height, width = (
            -(-max(sides) // self.multiple) * self.multiple for sides in zip(*sizes, strict=True)
        )
        batch = images[0].new_zeros((len(images), 3, height, width))
        for row, image in zip(batch, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = (image - self.mean) / self.std
        return ImageList(batch.contiguous(memory_format=torch.channels_last), sizes), targets

    def postprocess(
        self, detections: list[dict[str, Tensor]], _sizes: object, _original_sizes: object
    ) -> list[dict[str, Tensor]]:
        """Leave the boxes in pixels of the images that came in."""
        return detections
