"""The health task: what features tell about themselves; no labels are needed."""

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from crosscontext.confidence import Mean
from crosscontext.contexts import check_stages, hypercolumn, pool
from crosscontext.datasets import Annotation
from crosscontext.datasets.altered import AlteredDataset
from crosscontext.encoders import Encoder
from crosscontext.errors import DataError, SettingsError
from crosscontext.features import extract
from crosscontext.health import FeatureStd, LinearCKA, RankMe, Uniformity, alignment, neighbour_agreement
from crosscontext.shapes import Float
from crosscontext.subjects import Sample, Subject
from crosscontext.tasks.contract import Measurement, Task
from crosscontext.views import ViewSettings, cut, geometry_draws

_FEWEST_IMAGES = 10  # with fewer, a resample may hold one image alone


class HealthSettings(Task):
    """Rank, spread, alignment and uniformity of features, and how far the two contexts of CGH agree.

    The global context is the pooled last stage map, the features themselves. The hypercolumn is what CGH's
    hypercolumn context sees: chosen stage maps on the grid of the last of them, stacked, here pooled without
    the learned convolution. So it holds the global context if the last stage is among the chosen ones. Models
    without stage maps, as pixels, have no scores for the contexts.
    """

    reads: ClassVar[Annotation] = "none"
    learns: ClassVar[bool] = False

    name: Literal["health"] = "health"

    images: int = Field(2000, ge=_FEWEST_IMAGES)
    """Test images that are looked at, drawn by the seed. Time and memory grow with the square of this."""

    smallest_crop: float = Field(0.2, gt=0, le=1)
    """Alignment is between two weak views of an image (crop and flip), each of this share of it at least."""

    stages: tuple[int, ...] = Field((-2, -1), min_length=1)
    """Stages stacked into the hypercolumn, counted as in a Python list: -1 is the last one."""

    neighbours: int = Field(20, ge=1)
    """Nearest images whose overlap between the two contexts is measured."""

    def judge(self, subject: Subject) -> Iterator[Measurement]:
        """Yield what the features of the model offer.

        Raises:
            SettingsError: there are no more images than neighbours, or a stage does not exist.
            DataError: there are too few images.
        """
        sample = subject.sample_test(self.images)
        if len(sample.rows) < _FEWEST_IMAGES:
            raise DataError(
                f"Only {len(sample.rows)} test images can be read; health needs {_FEWEST_IMAGES}. "
                "Give more images."
            )
        features = subject.test.values[sample.rows]
        yield Measurement("rankme", RankMe.of(features), {}, "number")
        yield Measurement("feature_std", FeatureStd.of(features), {}, "number")
        yield Measurement("uniformity", Uniformity.of(features), {}, "number")
        yield Measurement("alignment", Mean(self._alignment(subject, sample)), {}, "number")
        if subject.has_network:
            yield from self._contexts(subject, sample, features)

    def _alignment(self, subject: Subject, sample: Sample) -> Float[Tensor, " N"]:
        side = subject.model.preprocessing.image_size
        first, second = (
            extract(
                subject.model,
                AlteredDataset(sample.images, self._weak_view(subject.seed, copy, side)),
                subject.batch_size,
                subject.workers,
            )
            for copy in range(2)
        )
        return alignment(first.values, second.values)

    def _weak_view(self, seed: int, copy: int, side: int) -> Callable[[Image.Image, int], Image.Image]:
        """Make what cuts a view out of a picture; the view is preprocessed like any picture."""
        settings = ViewSettings(scale=(self.smallest_crop, 1.0))

        def view(picture: Image.Image, index: int) -> Image.Image:
            draws = geometry_draws(seed, 0, np.array([index]), "weak", copy)
            (crop,) = cut([np.array(picture)], draws, settings, side)
            return Image.fromarray(crop.transpose(1, 2, 0))

        return view

    def _contexts(
        self, subject: Subject, sample: Sample, features: Float[Tensor, "N D"]
    ) -> Iterator[Measurement]:
        if len(features) <= self.neighbours:
            raise SettingsError(
                f"{self.neighbours} neighbours are too many for {len(features)} test images. "
                "Give a smaller number in neighbours, or more images."
            )
        model = PooledHypercolumn(subject.network(), self.stages)
        stacked = extract(model, sample.images, subject.batch_size, subject.workers).values
        details: dict[str, object] = {"stages": [model.stages[i].name for i in self.stages]}
        yield Measurement("cka", LinearCKA.of(features, stacked), details, "number")
        agreement = neighbour_agreement(features, stacked, self.neighbours)
        yield Measurement("neighbour_agreement", Mean(agreement), details)


class PooledHypercolumn(nn.Module):
    """Pictures → what the hypercolumn context of CGH sees, pooled without its learned convolution.

    Args:
        encoder: whose maps are stacked.
        chosen: stages, counted as in a Python list.

    Raises:
        SettingsError: a stage does not exist.
    """

    def __init__(self, encoder: Encoder, chosen: Sequence[int]):
        super().__init__()
        self.encoder, self.stages, self._chosen = encoder, encoder.backbone.stages, tuple(chosen)
        check_stages(chosen, self.stages, "stages of the task health")
        self.width = sum(self.stages[i].channels for i in chosen)
        self.digest, self.preprocessing = encoder.digest, encoder.preprocessing

    def forward(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Stack the maps and pool them."""
        maps = self.encoder.backbone(images)
        return pool(hypercolumn([maps[i] for i in self._chosen]))
