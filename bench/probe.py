"""A linear probe on a frozen ResNet-18: features computed once, against the network run again in every epoch.

The peer's cost is one measured epoch times 90, the epochs of lightly's linear evaluation; its views and its
evaluations during training are left out, in its favour.
"""

import torch
import torch.nn.functional as F
from torch import nn

from bench.harness import Row, alternate, clocked, compare, spread_note
from bench.images import small_images, small_set
from bench.step import SIZE, our_settings
from crosscontext.datasets.subset import Subset
from crosscontext.encoders import Encoder, Preprocessing, encoder_of
from crosscontext.features import extract, load_batches
from crosscontext.tasks import LinearSettings

BATCH, EPOCHS, WORKERS = 256, 90, 2
COMMAND = "python -m bench probe"


def measure(short: bool) -> list[Row]:
    """Compare the linear task with a probe that makes its features anew in each epoch."""
    num_train, num_test = (600, 200) if short else (10_000, 2_000)
    data = small_set()
    images = small_images(data, num_train + num_test)
    train = Subset(images, range(num_train))
    encoder = frozen_encoder()
    train_features = extract(encoder, train, BATCH, WORKERS)
    test_features = extract(encoder, Subset(images, range(num_train, num_train + num_test)), BATCH, WORKERS)
    timings = alternate(
        {
            "fit": clocked(lambda: list(LinearSettings().measure(train_features, test_features, seed=0))),
            "features": clocked(lambda: extract(encoder, train, BATCH, WORKERS)),
            "epoch": clocked(lambda: forwarding_epoch(encoder, train)),
        },
        rounds=2 if short else 3,
    )
    fit, features, epoch = (timings[name].seconds for name in ("fit", "features", "epoch"))
    size = f"{num_train} × {encoder.width} features ({data})"
    note = f"{spread_note(timings['fit'], timings['epoch'])}; peer: one epoch of {epoch:.3g} s × {EPOCHS}"
    return [
        compare(claim, "s", ours, EPOCHS * epoch, "the network in each epoch", COMMAND, note=note)
        for claim, ours in (
            (f"linear probe, {size}, features at hand", fit),
            (f"linear probe, {size}, features made first", fit + features),
        )
    ]


def frozen_encoder() -> Encoder:
    """ResNet-18 for small images; its weights do not matter to its speed."""
    settings = our_settings("cgh", 1.0).backbone
    torch.manual_seed(0)
    encoder = encoder_of(settings.build(), settings, Preprocessing.for_size(SIZE), step=0)
    encoder.to(memory_format=torch.channels_last)
    return encoder.eval()


def forwarding_epoch(encoder: Encoder, train: Subset) -> None:
    """The peers' way: each epoch of the linear layer runs the frozen network on all images."""
    assert train.labels is not None
    classes = torch.from_numpy(train.labels.classes)
    layer = nn.Linear(encoder.width, len(train.labels.class_names))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    for images, indices in load_batches(encoder, train, BATCH, WORKERS, skipped={}):
        with torch.no_grad():
            features = encoder(images)
        optimizer.zero_grad()
        F.cross_entropy(layer(features), classes[indices]).backward()
        optimizer.step()
