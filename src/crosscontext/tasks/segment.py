"""The segmentation task: a class for each pixel, by a linear head on a frozen network or by fine-tuning."""

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from crosscontext.convolutional_head import FinetuneSettings
from crosscontext.datasets import Annotation
from crosscontext.datasets.contract import MaskDataset
from crosscontext.dense import Segmenter, load_pairs, nothing_counts, usable
from crosscontext.encoders import Encoder
from crosscontext.hypercolumn_head import FrozenSettings
from crosscontext.overlap import MeanIoU, Overlap, PixelAccuracy
from crosscontext.settings import BY_NAME
from crosscontext.subjects import Subject
from crosscontext.tasks.contract import Measurement, Task


class SegmentSettings(Task):
    """Intersection over union of predicted and true masks; images keep their size and shape."""

    name: Literal["segment"] = "segment"

    reads: ClassVar[Annotation] = "masks"
    takes_network: ClassVar[bool] = True

    mode: Annotated[FrozenSettings | FinetuneSettings, Field(discriminator="name"), BY_NAME] = (
        FrozenSettings()
    )
    """frozen: a linear head on hypercolumns. finetune: the network is trained too, with a convolutional
    head."""

    scale: float = Field(1.0, gt=0)
    """Factor by which the sides of all images are resized for the network; masks are predicted and judged at
    the size of the files."""

    def judge(self, subject: Subject) -> Iterator[Measurement]:
        """Yield mIoU and pixel accuracy of each head.

        Images that cannot be read are left out, and so are images all of whose pixels are ignored. A class
        without training pixels is hardly ever predicted, and counts with its 0 if the test masks have it; one
        that the test masks lack is left out of the mean. The details name all of these.
        """
        train, test = subject.parts.train, subject.parts.test
        assert isinstance(train, MaskDataset)
        assert isinstance(test, MaskDataset)
        skipped: dict[str, str] = {}
        images, pixels = usable(train, subject.workers, skipped)
        empty = len(train.names) - len(images.names) - len(skipped)
        learned = self.mode.learn(subject, images, self.scale)
        for name, found in self._examine(learned.segmenter, subject, test, skipped).items():
            overlap = found.judged()
            mean_iou, once = MeanIoU(overlap), torch.ones(1, len(overlap.hits), dtype=torch.float64)
            ious = zip(test.class_names, mean_iou.of_classes(once)[0].tolist(), strict=True)
            by_class = {class_name: iou for class_name, iou in ious if not math.isnan(iou)}
            exceptions = {
                "unreadable_images": sorted(skipped),
                "images_without_counted_pixels": empty + len(found.hits) - len(overlap.hits),
                "classes_without_training_pixels": [
                    test.class_names[i] for i in torch.nonzero(pixels == 0).flatten().tolist()
                ],
                "classes_without_test_pixels": [c for c in test.class_names if c not in by_class],
            }
            details = learned.details[name] | {key: value for key, value in exceptions.items() if value}
            yield Measurement(f"miou_{name}", mean_iou, {**details, "iou": by_class})
            yield Measurement(f"accuracy_{name}", PixelAccuracy(overlap), details)

    def _examine(
        self, segmenter: Segmenter, subject: Subject, test: MaskDataset, skipped: dict[str, str]
    ) -> dict[str, Overlap]:
        """Read the test images, once: name of each head → how its masks agree with the true ones."""
        assert isinstance(subject.model, Encoder)
        preprocessing, device = subject.model.preprocessing, next(subject.model.parameters()).device
        parts: dict[str, list[Overlap]] = {}
        for _, images, masks in load_pairs(test, preprocessing, self.scale, subject.workers, skipped):
            with torch.no_grad():
                judged = segmenter(images.to(device, memory_format=torch.channels_last), masks.shape[1:])
            for name, logits in judged.items():
                predicted = logits.argmax(dim=1).cpu()
                parts.setdefault(name, []).append(Overlap.of(predicted, masks, len(test.class_names)))
        overlaps = {name: Overlap.join(found) for name, found in parts.items()}
        if not any(overlap.in_masks.any() for overlap in overlaps.values()):
            raise nothing_counts(test, "test", skipped)
        return overlaps
