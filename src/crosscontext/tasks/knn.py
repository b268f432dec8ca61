"""The k-nearest-neighbour task: no training at all, so it says what the features themselves have in order."""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field

from crosscontext.confidence import Mean
from crosscontext.errors import SettingsError
from crosscontext.features import Features
from crosscontext.neighbours import nearest
from crosscontext.probe import vote
from crosscontext.tasks.contract import FeatureTask, Measurement

Vote = Literal["weighted", "majority"]


class KnnSettings(FeatureTask):
    """Vote of the most similar training images (Wu et al., 2018, arXiv 1805.01978, section 3.4)."""

    name: Literal["knn"] = "knn"

    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 10, 20, 100, 200), min_length=1)
    """Numbers of neighbours, one score each; those above the number of training images are left out."""

    vote: tuple[Vote, ...] = Field(("weighted",), min_length=1)
    """weighted: nearer neighbours count more; the scores are called top1_k20. majority: all neighbours count
    alike; the scores are called top1_k20_majority. Of classes with equally many votes the first one wins."""

    temperature: float = Field(0.07, gt=0)
    """A weighted vote counts exp(cosine / temperature)."""

    def measure(self, train: Features, test: Features, seed: int) -> Iterator[Measurement]:  # noqa: ARG002 (nothing is drawn)
        """Yield one measurement for each vote and k."""
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
        neighbours = nearest(test.values, train.values, max(possible))
        for kind in dict.fromkeys(self.vote):
            temperature, suffix = (self.temperature, "") if kind == "weighted" else (None, "_majority")
            for k, classes in vote(neighbours, train.classes, possible, temperature).items():
                yield Measurement(f"top1_k{k}{suffix}", Mean(torch.eq(classes, test.classes)), details)
