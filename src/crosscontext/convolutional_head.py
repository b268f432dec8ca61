"""A network trained on with a convolutional head: images, masks → **convolutional head** → a class a pixel.

Sources: FCN (Long et al., CVPR 2015) and DeepLabv3 (Chen et al., arXiv 1706.05587), by torchvision's heads.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from crosscontext.backbones import Backbone
from crosscontext.backbones.resnet import ResNet
from crosscontext.datasets.contract import IGNORED, MaskDataset
from crosscontext.dense import (
    Learned,
    all_places,
    at_places,
    normalised,
    read_pair,
    stage_maps,
)
from crosscontext.encoders import Preprocessing
from crosscontext.errors import NonFiniteError
from crosscontext.heartbeat import Beat
from crosscontext.prefetching import ahead, in_batches
from crosscontext.randomness import permutation
from crosscontext.schedules import warmup_cosine
from crosscontext.settings import Settings
from crosscontext.shapes import Float, Int64
from crosscontext.subjects import Subject

Positive = Annotated[float, Field(gt=0)]


class FinetuneSettings(Settings):
    """Network and head trained by SGD on crops; the defaults suit CamVid at 240 × 180 px and a CPU."""

    name: Literal["finetune"] = "finetune"
    """The network is trained too."""

    head: Literal["fcn", "deeplabv3"] = "fcn"
    """What reads the last stage map. fcn: two convolutions. deeplabv3: dilated ones of several widths side by
    side, better and slower."""

    output_stride: Literal[8, 16, 32] = 8
    """Pixels a cell of the last stage map at most: coarser stages of a ResNet are dilated (DeepLab); other
    backbones stay as they are."""

    epochs: float = Field(20, gt=0)
    """Passes over the training images."""

    batch_size: int = Field(8, ge=2)
    """Crops in a step."""

    crop: int = Field(128, ge=16)
    """Side of the square crops in pixels."""

    scales: tuple[Positive, Positive] = (0.5, 2.0)
    """Smallest and largest factor by which images are resized before they are cropped, besides `scale`."""

    learning_rate: float = Field(0.01, gt=0)
    """Of the backbone in the first step, for SGD with momentum 0.9; it falls to 0 along half a cosine."""

    head_factor: float = Field(10.0, gt=0)
    """Learning rate of the head over that of the backbone."""

    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay of all parameters."""

    def learn(self, subject: Subject, train: MaskDataset, scale: float) -> Learned:
        """Train a copy of the network and a new head.

        Args:
            subject: with an encoder.
            train: images that can be read.
            scale: factor of the sides of the images.

        Raises:
            NonFiniteError: the loss is no number.
        """
        encoder = subject.network()
        if isinstance(encoder.backbone, ResNet):
            encoder.backbone.dilate(self.output_stride)
        smallest, largest = (factor * scale for factor in self.scales)
        crops = Crops(train, self.crop, (smallest, largest), encoder.preprocessing, subject.seed)
        device = next(encoder.parameters()).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(subject.seed)  # of the head's weights and its dropout
            segmenter = ConvolutionalSegmenter(encoder.backbone, self.head, len(train.class_names))
            segmenter.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            steps = self._train(segmenter, crops, subject.workers, subject.beat(self.head))
        stride = encoder.backbone.stages[-1].stride
        return Learned(segmenter.eval(), {self.head: {"steps": steps, "output_stride": stride}})

    def _train(self, segmenter: "ConvolutionalSegmenter", crops: "Crops", workers: int, beat: Beat) -> int:
        """Run all steps; their number is returned."""
        device = next(segmenter.parameters()).device
        rates = {
            segmenter.backbone: self.learning_rate,
            segmenter.head: self.learning_rate * self.head_factor,
        }
        groups = [{"params": list(part.parameters()), "rate": rate} for part, rate in rates.items()]
        optimizer = torch.optim.SGD(
            groups, self.learning_rate, 0.9, weight_decay=self.weight_decay, foreach=True
        )
        steps = max(1, round(self.epochs * crops.num_images / self.batch_size))
        segmenter.train()
        batches = in_batches(steps * self.batch_size, self.batch_size)
        for step, loads in enumerate(ahead(crops.load, batches, workers)):
            images, masks = (torch.stack(parts).to(device) for parts in zip(*loads, strict=True))
            images = images.contiguous(memory_format=torch.channels_last)
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * warmup_cosine(step, total_steps=steps, warmup_steps=0)
            logits = segmenter(images, masks.shape[1:])[self.head]
            total = F.cross_entropy(logits, masks, ignore_index=IGNORED, reduction="sum")
            loss = total / (masks != IGNORED).sum().clamp(min=1)
            if not loss.isfinite():
                raise NonFiniteError(
                    f"The loss of segmentation is {loss.item()} in step {step} of {steps}. Lower "
                    f"mode.learning_rate, which is {self.learning_rate}."
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            beat(step, steps, loss.detach())
        return steps


class Crops:
    """Random crops of images and masks, by number: a function of the seed and that number alone.

    Args:
        dataset: of images that can be read.
        size: side S of the crops, in pixels.
        scales: smallest and largest factor of the images before they are cropped.
        preprocessing: its normalisation is used.
        seed: of order, scales, places and flips.
    """

    def __init__(
        self,
        dataset: MaskDataset,
        size: int,
        scales: tuple[float, float],
        preprocessing: Preprocessing,
        seed: int,
    ) -> None:
        self.num_images = len(dataset.names)
        self._dataset, self._size, self._scales = dataset, size, scales
        self._preprocessing, self._seed = preprocessing, seed
        self._order = lru_cache(maxsize=4)(partial(permutation, seed, size=self.num_images))

    def load(self, number: int) -> tuple[Float[Tensor, "3 S S"], Int64[Tensor, "S S"]]:
        """Cut one crop; each image is shown once in so many crops as there are images.

        Where the crop is larger than the image, it has the mean colour, which is ignored.
        """
        epoch, place = divmod(number, self.num_images)
        index = int(self._order(epoch)[place])
        pixels, mask = read_pair(self._dataset, index)
        draws = np.random.default_rng((self._seed, epoch, index))
        side = max(1, round(self._size / draws.uniform(*self._scales)))  # in the file's pixels
        top, left = (
            int(draws.integers(min(0, length - side), max(0, length - side), endpoint=True))
            for length in mask.shape
        )
        margins = (-left, left + side - mask.shape[1], -top, top + side - mask.shape[0])
        inside = F.pad(pixels, [min(margin, 0) for margin in margins])  # negative: cut off
        around = [max(margin, 0) for margin in margins]
        image = F.pad(normalised(inside[None], self._preprocessing), around)
        image = F.interpolate(image, (self._size, self._size), mode="bilinear", antialias=True)[0]
        nearest = ((torch.arange(self._size) + 0.5) * (side / self._size)).long()
        mask = F.pad(mask, margins, value=IGNORED)[nearest][:, nearest]
        if draws.random() < 0.5:
            image, mask = image.flip(-1), mask.flip(-1)
        return image, mask.long()


class ConvolutionalSegmenter(nn.Module):
    """Last stage map → head → logits.

    Args:
        backbone: is trained in place.
        head: which one; it names the logits.
        num_classes: V.
    """

    def __init__(self, backbone: Backbone, head: Literal["fcn", "deeplabv3"], num_classes: int):
        from torchvision.models.segmentation.deeplabv3 import DeepLabHead
        from torchvision.models.segmentation.fcn import FCNHead

        super().__init__()
        self.backbone = backbone
        self.name = head
        channels = backbone.stages[-1].channels
        self.head: nn.Module = {"fcn": FCNHead, "deeplabv3": DeepLabHead}[head](channels, num_classes)

    def forward(
        self, images: Float[Tensor, "B 3 h w"], mask_size: Sequence[int]
    ) -> dict[str, Float[Tensor, "B V H W"]]:
        """Judge every pixel."""
        logits = self.head(stage_maps(self.backbone, images)[-1])
        return {self.name: at_places(logits, all_places(mask_size, images.shape[-2:], self.backbone))}
