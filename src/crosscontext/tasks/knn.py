"""The k-nearest-neighbour task: no training at all, so it says what the features themselves have in order."""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field

from crosscontext.confidence import Mean
from crosscontext.errors import SettingsError
from crosscontext.features import Features
from crosscontext.probe import knn_classes
from crosscontext.tasks.contract import FeatureTask, Measurement


class KnnSettings(FeatureTask):
    """Weighted vote of the most similar training images."""

    name: Literal["knn"] = "knn"

    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((10, 20, 100, 200), min_length=1)
    """Numbers of neighbours, one score each; those above the number of training images are left out."""

    temperature: float = Field(0.07, gt=0)
    """The vote of a neighbour weighs exp(cosine / temperature)."""

    def measure(self, train: Features, test: Features, seed: int) -> Iterator[Measurement]:  # noqa: ARG002 (nothing is drawn)
        """Yield one measurement for each k."""
        assert train.classes is not None
        assert test.classes is not None
        possible = tuple(k for k in self.k if k <= len(train.names))
        if not possible:
            raise SettingsError(
                f"k-NN needs {min(self.k)} neighbours and there are {len(train.names)} training images. "
                "Give a smaller k, or more images."
            )
        left_out = [k for k in self.k if k not in possible]
        details: dict[str, object] = {"k_above_number_of_images": left_out} if left_out else {}
        predicted = knn_classes(train.values, train.classes, test.values, possible, self.temperature)
        for k, classes in predicted.items():
            yield Measurement(f"top1_k{k}", Mean(torch.eq(classes, test.classes)), details)
