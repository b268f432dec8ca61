"""The shares of right answers that tasks with one class an image measure."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from crosscontext.confidence import Mean
from crosscontext.shapes import Float, Int64
from crosscontext.tasks.contract import Measurement

_TOP5_ABOVE = 10
_FIVE = 5


def accuracies(
    scores: Float[Tensor, "N V"],
    classes: Int64[Tensor, " N"],
    details: Mapping[str, object],
    suffix: str = "",
) -> Iterator[Measurement]:
    """Yield ``top1``, and ``top5`` where there are more than ten classes.

    Args:
        scores: of each class for each test image.
        classes: the right ones.
        details: of both measurements.
        suffix: of the names of the metrics, where a task measures several.
    """
    num_classes = scores.shape[1]
    right = scores.topk(min(_FIVE, num_classes), dim=1).indices == classes[:, None]
    yield Measurement(f"top1{suffix}", Mean(right[:, 0]), dict(details))
    if num_classes > _TOP5_ABOVE:
        yield Measurement(f"top5{suffix}", Mean(right.any(dim=1)), dict(details))
