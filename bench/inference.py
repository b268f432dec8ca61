"""Images a second of feature extraction on a CPU, against timm's plain eager forward of the same weights.

Run: python bench/inference.py [--short]; about two minutes, or one, on two idle cores. Both sides get the
same NCHW images and run in turn in one process; medians over the rounds count. The plain side,
`model.eval()` under `torch.no_grad()`, is measured at several batch sizes; `ratio` is to the best of them.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import timm
import torch
from torch import Tensor, nn

from crosscontext.backbones import BackboneSettings, ResNetSettings, TimmSettings
from crosscontext.encoders import Preprocessing, encoder_of
from crosscontext.inference import chunk_size, for_inference
from crosscontext.machine import describe_machine

CASES: tuple[tuple[str, BackboneSettings, int], ...] = (
    ("timm resnet18, 224 px", TimmSettings(model="resnet18"), 224),
    ("timm resnet50, 224 px", TimmSettings(model="resnet50"), 224),
    ("resnet18 with the small-image stem, 32 px", ResNetSettings(depth=18, stem="small"), 32),
)
ROUNDS, ROUNDS_IF_SHORT = 7, 3


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


def compare(name: str, settings: BackboneSettings, size: int, rounds: int) -> dict[str, object]:
    """Time one network."""
    torch.manual_seed(0)
    encoder = encoder_of(settings.build(), settings, Preprocessing.for_size(size), step=0).eval()
    plain, chunk = plain_network(settings, encoder.backbone.model), chunk_size(size, torch.get_num_threads())
    images = torch.randn(4 * chunk, 3, size, size)
    start = time.perf_counter()
    ours = for_inference(encoder)
    seconds_to_make = time.perf_counter() - start

    sides = {batch: partial(run, plain, images, batch) for batch in (chunk // 2, chunk, 4 * chunk)}
    sides[0] = partial(run, ours, images, len(images))
    vectors = {side: compute() for side, compute in sides.items()}  # also warms up
    seconds: dict[int, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, compute in sides.items():
            start = time.perf_counter()
            compute()
            seconds[side].append(time.perf_counter() - start)
    rates = {side: len(images) / statistics.median(times) for side, times in seconds.items()}
    our_rate = rates.pop(0)
    return {
        "case": name,
        "ours_images_per_second": round(our_rate, 1),
        "plain_images_per_second_by_batch": {batch: round(rate, 1) for batch, rate in rates.items()},
        "ratio": round(our_rate / max(rates.values()), 2),
        "ratio_at_the_same_batch": round(our_rate / rates[chunk], 2),
        "largest_difference": float((vectors[0] - vectors[chunk]).abs().max() / vectors[chunk].abs().max()),
        "seconds_to_make": round(seconds_to_make, 2),
    }


def measure(short: bool) -> list[dict[str, object]]:
    """Time all cases."""
    return [compare(*case, ROUNDS_IF_SHORT if short else ROUNDS) for case in CASES]


def main() -> None:
    """Print all cases, with the machine, as JSON."""
    results = {"cases": measure("--short" in sys.argv[1:]), **describe_machine(torch.device("cpu"))}
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
