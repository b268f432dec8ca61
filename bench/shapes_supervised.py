"""What a supervised network reaches on the procedural set: the ceiling of the demo.

Run: python bench/shapes_supervised.py. Network and crops are those of the recipe `demo`, for more images;
it takes some minutes and prints the top-1 accuracy on the test images.
"""

import torch
import torch.nn.functional as F
from torch import nn

from crosscontext.backbones import ResNetSettings
from crosscontext.contexts import pool
from crosscontext.datasets import ShapesSettings
from crosscontext.encoders import Preprocessing, encoder_of
from crosscontext.features import extract
from crosscontext.loading import Loader
from crosscontext.views import ViewSettings, ViewsSettings, resolve

STEPS, BATCH, SEED = 1600, 128, 0


def main() -> None:
    """Train with labels, then score."""
    train, test = ShapesSettings().open()
    assert train.labels is not None
    assert test is not None
    views = resolve(ViewsSettings(weak=ViewSettings(scale=(0.5, 1.0))), 32)
    settings = ResNetSettings(depth=10, width=0.125, stem="small")
    torch.manual_seed(SEED)
    backbone = settings.build()
    classify = nn.Linear(backbone.stages[-1].channels, len(train.labels.class_names))
    parameters = [*backbone.parameters(), *classify.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=STEPS)
    classes = torch.from_numpy(train.labels.classes)
    loader = Loader(train, views, {"weak": 1}, 32, BATCH, SEED, workers=1, device=torch.device("cpu"))
    for batch in loader.batches(0, STEPS):
        (images,) = batch.views["weak"]
        optimizer.zero_grad()
        F.cross_entropy(classify(pool(backbone(images)[-1])), classes[batch.indices]).backward()
        optimizer.step()
        schedule.step()
    features = extract(encoder_of(backbone, settings, Preprocessing.for_size(32), STEPS), test, 256, 1)
    with torch.no_grad():
        right = classify(features.values).argmax(dim=1) == features.classes
    accuracy = right.double().mean()
    print(f"supervised, {STEPS * BATCH} images seen: top-1 {accuracy:.1%} of {len(right)} test images")


if __name__ == "__main__":
    main()
