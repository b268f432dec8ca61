"""Labelled images train a linear head on an encoder, or both: what tasks do with a network.

encoders, loading, optimizers → **finetuning** → tasks. Order, crops and flips are functions of the seed.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import nn
from torch.nn.utils import skip_init

from crosscontext.datasets.contract import Dataset
from crosscontext.datasets.held import hold
from crosscontext.encoders import Encoder
from crosscontext.errors import NonFiniteError
from crosscontext.heartbeat import Beat, silent
from crosscontext.inference import InferenceEncoder, for_inference
from crosscontext.loading import Loader
from crosscontext.optimizers import OptimizerSettings
from crosscontext.photometry import Probability, ordered
from crosscontext.probe import LinearClassifier
from crosscontext.schedules import Plan
from crosscontext.settings import Settings
from crosscontext.views import Share, ViewSettings, ViewsSettings, resolve

_HELD_GIGABYTES = 1.0


class HeadTraining(Settings):
    """SGD with a cosine schedule on random crops and flips, by default as in the linear protocol of CGH.

    Source: Gao et al., arXiv 2308.13392; crops as in the published code of MoCo (arXiv 1911.05722).
    """

    epochs: float = Field(100, gt=0)
    """Length of the training in passes over the labelled images."""

    batch_size: int = Field(256, ge=2)
    """Images in a step; all of them where there are fewer."""

    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD."""

    weight_decay: float = Field(0.0, ge=0)
    """Weight decay, not of normalisation weights and biases."""

    crop_scale: Annotated[tuple[Share, Share], AfterValidator(ordered)] = (0.08, 1.0)
    """Smallest and largest share of the image's area that a crop takes; its sides are 3:4 to 4:3."""

    flip_probability: Probability = 0.5
    """Share of the crops that are mirrored left to right."""

    def optimizer(self, learning_rate: float) -> OptimizerSettings:
        """What moves parameters that start with this learning rate at a batch of 256."""
        return OptimizerSettings(
            learning_rate=learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            warmup="0 steps",
        )


class NetworkTraining(HeadTraining):
    """The same for the whole network, with length and learning rates of SwAV for 10 % of the labels.

    Source: Caron et al., arXiv 2006.09882, and the published code, which takes a batch of 256.
    """

    epochs: float = Field(20, gt=0)
    """Length of the training in passes over the labelled images."""

    batch_size: int = Field(64, ge=2)
    """Images in a step, all of them where there are fewer; few images have few steps in an epoch."""

    backbone_learning_rate: float = Field(0.01, gt=0)
    """First learning rate of the backbone for a batch of 256, scaled in proportion to the batch."""

    head_learning_rate: float = Field(0.2, gt=0)
    """First learning rate of the linear head, likewise."""

    batch_norm: Literal["train", "frozen"] = "train"
    """Of BatchNorm. train: it uses the statistics of the batch, and averages them for the test. frozen: it
    uses those of pretraining throughout. Its weights are trained either way."""


class Trained(NamedTuple):
    """What came of a training."""

    heads: tuple[LinearClassifier, ...]
    """On features of the encoder, on the CPU."""

    batch_size: int
    steps: int
    skipped: dict[str, str]
    """Name of each unreadable image → why; other images took their places."""

    def details(self, skipped_in_test: Mapping[str, str]) -> dict[str, object]:
        """What a score says about the training, and about the images that could not be read."""
        unreadable = sorted({*self.skipped, *skipped_in_test})
        return {"batch_size": self.batch_size, "steps": self.steps, "unreadable": unreadable}


def train_heads(
    encoder: Encoder,
    dataset: Dataset,
    learning_rates: Sequence[float],
    settings: HeadTraining,
    seed: int,
    workers: int,
    beat: Beat = silent,
) -> Trained:
    """Train a linear head on the features of a frozen encoder, for several learning rates at once.

    Args:
        encoder: is left untouched; its features are those of evaluation mode.
        dataset: with labels.
        learning_rates: of one head each, all of which see the same crops.
        settings: of the training.
        seed: of order, crops and flips, in [0, 2³²).
        workers: threads that decode; they change nothing but the speed.
        beat: is told of each step.

    Raises:
        DataError: more than 5 % of the images are unreadable.
        NonFiniteError: a loss is no number.
    """
    frozen = for_inference(encoder)
    heads = [_head(frozen, dataset) for _ in learning_rates]
    moved = [(head, settings.optimizer(rate)) for head, rate in zip(heads, learning_rates, strict=True)]
    return _train(frozen, heads, moved, dataset, settings, seed, workers, beat)


def finetune(
    encoder: Encoder,
    dataset: Dataset,
    settings: NetworkTraining,
    seed: int,
    workers: int,
    beat: Beat = silent,
) -> Trained:
    """Train an encoder and a linear head on top of it.

    Args:
        encoder: is changed, and left in evaluation mode.
        dataset: with labels.
        settings: of the training.
        seed: of order, crops and flips, in [0, 2³²).
        workers: threads that decode; they change nothing but the speed.
        beat: is told of each step.

    Returns:
        With one head.

    Raises:
        DataError: more than 5 % of the images are unreadable.
        NonFiniteError: the loss is no number.
    """
    encoder.train()
    if settings.batch_norm == "frozen":
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    head = _head(encoder, dataset)
    moved = [
        (encoder, settings.optimizer(settings.backbone_learning_rate)),
        (head, settings.optimizer(settings.head_learning_rate)),
    ]
    trained = _train(encoder, [head], moved, dataset, settings, seed, workers, beat)
    encoder.eval()
    return trained


def _head(network: Encoder | InferenceEncoder, dataset: Dataset) -> nn.Linear:
    """Make a head to which all classes are equal."""
    device = next(network.parameters()).device
    head: nn.Linear = skip_init(nn.Linear, network.width, len(dataset.class_names), device=device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _train(
    network: Encoder | InferenceEncoder,
    heads: Sequence[nn.Linear],
    moved: Sequence[tuple[nn.Module, OptimizerSettings]],
    dataset: Dataset,
    settings: HeadTraining,
    seed: int,
    workers: int,
    beat: Beat,
) -> Trained:
    """Minimise the cross-entropy of every head on the features of the network.

    Args:
        network: images → features.
        heads: features → scores of the classes; none touches another.
        moved: what is trained, and how.
        dataset: with labels.
        settings: of the training.
        seed: of order, crops, flips, and of what the network draws.
        workers: threads that decode.
        beat: is told of each step.
    """
    assert dataset.labels is not None
    classes = dataset.labels.classes
    device = heads[0].weight.device
    plan = _plan(settings, len(dataset.names))
    optimizers = [(how, how.build(module)) for module, how in moved]
    loader = _loader(settings, plan, dataset, network.preprocessing.image_size, seed, workers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for backbones that draw, as dropout does
        for batch in loader.batches(0, plan.total_steps):
            (crops,) = batch.crops["weak"]
            images = network.preprocessing.normalise(crops.to(device, memory_format=torch.channels_last))
            right = torch.from_numpy(classes[batch.indices]).to(device)
            features = network(images)
            loss = torch.stack([F.cross_entropy(head(features), right) for head in heads]).sum()
            if not loss.isfinite():
                raise NonFiniteError(
                    f"At step {batch.step} of {plan.total_steps} the loss of the classifier is "
                    f"{loss.item()}. Lower the learning rates of the task."
                )
            for how, optimizer in optimizers:
                optimizer.zero_grad()
                for group in optimizer.param_groups:
                    group["lr"] = how.learning_rate_at(batch.step, plan)
            loss.backward()
            for _, optimizer in optimizers:
                optimizer.step()
            beat(batch.step, plan.total_steps, loss.detach() / len(heads))
    fitted = tuple(LinearClassifier(head.weight.detach().cpu(), head.bias.detach().cpu()) for head in heads)
    return Trained(fitted, plan.batch_size, plan.total_steps, loader.skipped)


def _plan(settings: HeadTraining, num_images: int) -> Plan:
    """Settle batch and steps: as many images are seen as in the epochs asked for, also by whole batches."""
    batch_size = min(settings.batch_size, num_images)
    return Plan(num_images, batch_size, max(round(settings.epochs * num_images / batch_size), 1))


def _loader(
    settings: HeadTraining, plan: Plan, dataset: Dataset, image_size: int, seed: int, workers: int
) -> Loader:
    """Make the loader of crops and flips; small sets are decoded once."""
    weak = ViewSettings(scale=settings.crop_scale, flip_probability=settings.flip_probability)
    views = resolve(ViewsSettings(weak=weak), image_size)
    dataset = hold(dataset, _HELD_GIGABYTES)
    return Loader(dataset, views, {"weak": 1}, image_size, plan.batch_size, seed, workers)
