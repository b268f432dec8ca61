"""Features of images on a CPU, against timm's plain eager forward of the same weights.

Both sides get the same NCHW images and run in turn in one process. The plain side, `model.eval()` under
`torch.no_grad()`, is measured at several batch sizes, of which the best counts.
"""

from collections.abc import Callable
from functools import partial

import timm
import torch
from torch import Tensor, nn

from bench.harness import Row, alternate, clocked, compare, spread_note
from crosscontext.backbones import BackboneSettings, ResNetSettings, TimmSettings
from crosscontext.encoders import Preprocessing, encoder_of
from crosscontext.inference import chunk_size, for_inference
from crosscontext.machine import keep_memory

COMMAND = "python -m bench inference"
CASES: tuple[tuple[str, BackboneSettings, int], ...] = (
    ("timm ResNet-18, 224 px", TimmSettings(model="resnet18"), 224),
    ("timm ResNet-50, 224 px", TimmSettings(model="resnet50"), 224),
    ("ResNet-18 with the small-image stem, 32 px", ResNetSettings(depth=18, stem="small"), 32),
)


def plain_network(settings: BackboneSettings, trained: nn.Module) -> nn.Module:
    """Build what a user of timm would: pooled features, no classifier."""
    if not isinstance(settings, TimmSettings):
        return nn.Sequential(trained, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    plain = timm.create_model(settings.model, num_classes=0)
    plain.load_state_dict(trained.state_dict())
    return plain.eval()


@torch.no_grad()
def run(network: Callable[[Tensor], Tensor], images: Tensor, batch: int) -> Tensor:
    """Compute the features of all images, some at a time."""
    return torch.cat([network(part) for part in images.split(batch)])


def compared(name: str, settings: BackboneSettings, size: int, rounds: int) -> Row:
    """Time one network."""
    torch.manual_seed(0)
    encoder = encoder_of(settings.build(), settings, Preprocessing.for_size(size), step=0).eval()
    plain, chunk = plain_network(settings, encoder.backbone.model), chunk_size(size, torch.get_num_threads())
    images = torch.randn(chunk, 3, size, size)
    batches = {str(batch): batch for batch in (chunk // 4, chunk // 2, chunk)}
    sides = {batch: partial(run, plain, images, number) for batch, number in batches.items()}
    sides["ours"] = partial(run, for_inference(encoder), images, len(images))
    vectors = {side: compute() for side, compute in sides.items()}
    difference = (vectors["ours"] - vectors[str(chunk)]).abs().max() / vectors[str(chunk)].abs().max()
    timings = alternate({side: clocked(compute) for side, compute in sides.items()}, rounds, warmup=1)
    best = min(batches, key=lambda batch: timings[batch].seconds)
    return compare(
        f"features, {name}",
        "images/s",
        len(images) / timings["ours"].seconds,
        len(images) / timings[best].seconds,
        f"plain eager, batch {best}",
        COMMAND,
        note=f"{spread_note(timings['ours'], timings[best])}; vectors within {difference:.0e} of the largest",
    )


def measure(short: bool) -> list[Row]:
    """Time all cases."""
    keep_memory()  # as `evaluate` does; here the peer has it too
    return [compared(*case, 3 if short else 9) for case in CASES]
