"""The retrieval task: does a search by an image find images of its class?"""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field

from crosscontext.confidence import Mean
from crosscontext.errors import DataError
from crosscontext.features import Features
from crosscontext.neighbours import rank_by_class
from crosscontext.tasks.contract import FeatureTask, Measurement


class RetrieveSettings(FeatureTask):
    """Each test image asks for images of its class among the training images, ranked by cosine.

    recall_at_k is the share of the test images that find one among the first k (Oh Song et al., CVPR 2016),
    map the mean over the test images of the average precision of the whole ranking (Manning et al.,
    "Introduction to Information Retrieval", 2008, section 8.4).
    """

    name: Literal["retrieve"] = "retrieve"

    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 5, 10), min_length=1)
    """Numbers of images looked at, one recall each."""

    def measure(self, train: Features, test: Features, seed: int) -> Iterator[Measurement]:  # noqa: ARG002 (nothing is drawn)
        """Yield the recall for each k, and the mean average precision."""
        assert train.classes is not None
        assert test.classes is not None
        if (lost := ~torch.isin(test.classes, train.classes)).any():
            raise DataError(
                f"{int(lost.sum())} of {len(lost)} test images are of a class of which no training image can "
                "be read. Mend the unreadable images, or leave the class out."
            )
        ranking = rank_by_class(test.values, test.classes, train.values, train.classes)
        for k in dict.fromkeys(self.k):
            yield Measurement(f"recall_at_{k}", Mean(ranking.first <= k), {})
        yield Measurement("map", Mean(ranking.average_precision), {})
