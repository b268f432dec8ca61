"""The detection task: Faster R-CNN on the encoder, all of it trained, judged by COCO's average precision."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import torch

from crosscontext.average_precision import (
    IOU_THRESHOLDS,
    AveragePrecision,
    ClassMatches,
    match,
    require_pycocotools,
)
from crosscontext.confidence import value_of
from crosscontext.datasets import Annotation, BoxDataset
from crosscontext.detection import ScheduleSettings, detect, fit
from crosscontext.detectors import Detector, DetectorSettings, build_detector
from crosscontext.errors import DataError
from crosscontext.subjects import Subject
from crosscontext.tasks.contract import Measurement, Task

_METRICS: dict[str, Sequence[int]] = {"ap": range(len(IOU_THRESHOLDS)), "ap50": (0,), "ap75": (5,)}
_SHOWN = 3


class DetectSettings(Task):
    """Faster R-CNN with the encoder as its backbone, on images with boxes.

    Nothing is chosen: the weights after the last step are judged. Needs the extra `detect`.
    """

    name: Literal["detect"] = "detect"
    reads: ClassVar[Annotation] = "boxes"
    takes_network: ClassVar[bool] = True

    detector: DetectorSettings = DetectorSettings()
    """The parts beside the encoder."""

    schedule: ScheduleSettings = ScheduleSettings()
    """Sizes of the images and length of the training."""

    def judge(self, subject: Subject) -> Iterator[Measurement]:
        """Train on all training images with boxes, then look at the test images once."""
        train, test = subject.parts.train, subject.parts.test
        assert isinstance(train, BoxDataset)
        assert isinstance(test, BoxDataset)
        require_pycocotools()
        if all(test.boxes(i).difficult.all() for i in range(len(test.names))):
            raise DataError(
                f"None of the {len(test.names)} test images has a box to be found; difficult ones do not "
                "count. Give test images with boxes."
            )
        detector = self._built(subject)
        fitting = fit(detector, train, self.schedule, subject.seed, subject.workers, subject.beat(self.name))
        found = detect(detector, test, self.schedule, subject.workers)
        boxes = [test.boxes(index) for index in found.indices]
        matches = match(found.detections, boxes, len(test.class_names), self.detector.max_detections)
        details: dict[str, object] = {
            "last_loss": fitting.last_loss,
            "training_images_without_boxes": fitting.without_boxes,
            "boxes_left_out": {"train": _left_out(train), "test": _left_out(test)},
            "unreadable": {"train": fitting.skipped, "test": found.skipped},
            "ap50_by_class": _by_class(matches, test.class_names),
        }
        for metric, thresholds in _METRICS.items():
            yield Measurement(metric, AveragePrecision(matches, thresholds), details)

    def _built(self, subject: Subject) -> Detector:
        encoder = subject.network()
        device = next(encoder.parameters()).device
        num_classes = len(subject.parts.class_names)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(subject.seed)
            detector = build_detector(encoder, num_classes, self.detector, self.schedule.test_short_side)
        return detector.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _left_out(dataset: BoxDataset) -> dict[str, object]:
    """Count the boxes that the data set left out, and show a few."""
    faults = [f"{name}: {cause}" for name, causes in dataset.left_out.items() for cause in causes]
    return {"number": len(faults), "such_as": faults[:_SHOWN]}


def _by_class(matches: Sequence[ClassMatches], class_names: Sequence[str]) -> dict[str, float | None]:
    """Average precision of each class; None where there is no box to be found."""
    return {
        name: value_of(AveragePrecision([of_class], _METRICS["ap50"]))
        if of_class.boxes_of_image.any()
        else None
        for name, of_class in zip(class_names, matches, strict=True)
    }
