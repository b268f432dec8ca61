"""What we are compared with: MoCo of lightly, and the views of torchvision, with the peers' own settings.

Needs lightly (`pip install -e '.[bench]'`); so benchmarks import this file where they use it.
"""

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from lightly.loss import NTXentLoss
from lightly.models import ResNetGenerator
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import batch_shuffle, batch_unshuffle, deactivate_requires_grad, update_momentum
from lightly.transforms import MoCoV2Transform, SimCLRTransform
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.transforms import v2

from bench.images import Pictures
from crosscontext.datasets import Dataset
from crosscontext.encoders import Preprocessing
from crosscontext.views import IMAGENET_MEAN, IMAGENET_STD

SLOTS, WIDTH, EMA = 4096, 128, 0.99


class LightlySettings(NamedTuple):
    """Where lightly's two documented ways to train MoCo on CIFAR-10 differ."""

    temperature: float
    symmetric: bool
    """Each view is query once and key once: two passes forward and backward a step."""

    batchnorm_splits: int
    """Parts of the batch with statistics of their own; 0: one. With splits, keys are shuffled."""

    momentum: float
    weight_decay: float


EXAMPLE = LightlySettings(0.5, symmetric=False, batchnorm_splits=0, momentum=0.0, weight_decay=0.0)
"""The MoCo page of its documentation: one pass a step, plain SGD. The cheapest step; taken for speed."""

CIFAR_BENCHMARK = LightlySettings(0.1, symmetric=True, batchnorm_splits=8, momentum=0.9, weight_decay=5e-4)
"""Its CIFAR-10 benchmark, which reports 84 % k-NN after 200 epochs at full width; taken for accuracy."""

LEARNING_RATE = 0.06  # of both, for batches of 128


class LightlyMoCo(nn.Module):
    """MoCo put together from lightly's parts as its documentation does.

    Args:
        settings: one of the two above.
        width: of its ResNet-18 for small images; 1 has 64 to 512 channels.
    """

    def __init__(self, settings: LightlySettings, width: float):
        super().__init__()
        resnet = ResNetGenerator("resnet-18", width=width, num_splits=settings.batchnorm_splits)
        self.settings, self.channels = settings, int(resnet.linear.in_features)
        self.backbone = nn.Sequential(*list(resnet.children())[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = MoCoProjectionHead(self.channels, 512, WIDTH)
        self.key_backbone = copy.deepcopy(self.backbone)
        self.key_head = copy.deepcopy(self.head)
        deactivate_requires_grad(self.key_backbone)
        deactivate_requires_grad(self.key_head)
        self.criterion = NTXentLoss(temperature=settings.temperature, memory_bank_size=(SLOTS, WIDTH))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Move the key network, then compute the loss of two views."""
        update_momentum(self.backbone, self.key_backbone, m=EMA)
        update_momentum(self.head, self.key_head, m=EMA)
        if self.settings.symmetric:
            both = self._contrast(first, second) + self._contrast(second, first)
            return 0.5 * both
        return self._contrast(first, second)

    def _contrast(self, query_view: Tensor, key_view: Tensor) -> Tensor:
        query = self.head(self.backbone(query_view))
        if not self.settings.batchnorm_splits:
            key = self.key_head(self.key_backbone(key_view)).detach()
        else:
            shuffled, order = batch_shuffle(key_view)
            key = batch_unshuffle(self.key_head(self.key_backbone(shuffled)), order)
        loss: Tensor = self.criterion(query, key)
        return loss

    def optimizer(self) -> torch.optim.SGD:
        """SGD as documented."""
        _, _, _, momentum, weight_decay = self.settings
        trained = [*self.backbone.parameters(), *self.head.parameters()]
        return torch.optim.SGD(trained, lr=LEARNING_RATE, momentum=momentum, weight_decay=weight_decay)


class PeerEncoder(nn.Module):
    """The backbone of lightly's MoCo as our feature extraction takes a model; the weights are shared."""

    digest = "in training"

    def __init__(self, model: LightlyMoCo):
        super().__init__()
        self.backbone, self.width = model.backbone, model.channels
        self.preprocess = self.preprocessing = Preprocessing.for_size(32)

    def forward(self, images: Tensor) -> Tensor:
        """Compute one vector an image: the global average of the last maps."""
        features: Tensor = self.backbone(images)
        return features


def lightly_step(model: LightlyMoCo, optimizer: torch.optim.Optimizer, views: list[Tensor]) -> Tensor:
    """Do one training step in the order of the documentation; the loss comes back."""
    loss: Tensor = model(*views)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def lightly_batches(
    dataset: Dataset, views: Callable[[Image.Image], list[Tensor]], batch_size: int, workers: int
) -> Iterator[list[Tensor]]:
    """Yield the two views of batch after batch, epoch after epoch, from a DataLoader as documented."""
    pictures = Pictures(dataset, views)
    loader = DataLoader(pictures, batch_size, shuffle=True, drop_last=True, num_workers=workers)
    while True:
        for pair, _ in loader:
            yield pair


def lightly_views(size: int, blur: float) -> Callable[[Image.Image], list[Tensor]]:
    """Lightly's two views of MoCo v2."""
    transform: Callable[[Image.Image], list[Tensor]] = MoCoV2Transform(input_size=size, gaussian_blur=blur)
    return transform


def lightly_cifar_views() -> Callable[[Image.Image], list[Tensor]]:
    """The two views of lightly's CIFAR-10 benchmark."""
    transform: Callable[[Image.Image], list[Tensor]] = SimCLRTransform(
        input_size=32, cj_strength=0.5, gaussian_blur=0.0
    )
    return transform


def torchvision_view(size: int, blur: float) -> Callable[[Image.Image], Tensor]:
    """One view of MoCo v2 from torchvision's transforms of pictures, with the authors' blur by Pillow."""
    jitter = transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)
    view: Callable[[Image.Image], Tensor] = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.2, 1.0)),
            transforms.RandomApply([jitter], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            *([transforms.RandomApply([_blur], p=blur)] if blur else []),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    return view


def torchvision_tensor_view(size: int) -> Callable[[Tensor], Tensor]:
    """One view of MoCo v2 from torchvision's second transforms, for decoded uint8 tensors."""
    jitter, blur = v2.ColorJitter(0.4, 0.4, 0.4, 0.1), v2.GaussianBlur(size // 20 * 2 + 1, (0.1, 2.0))
    view: Callable[[Tensor], Tensor] = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.2, 1.0), antialias=True),
            v2.RandomApply([jitter], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.RandomApply([blur], p=0.5),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    return view


def _blur(picture: Image.Image) -> Image.Image:
    radius = 0.1 + 1.9 * torch.rand(()).item()
    return picture.filter(ImageFilter.GaussianBlur(radius))
