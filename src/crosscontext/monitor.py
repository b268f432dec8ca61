"""How good the encoder is while it is being trained: k-NN where there are labels, health always.

encoder, training images → **monitor** → metrics. The test part of a data set is never read here.
"""

from pydantic import Field

from crosscontext.datasets.contract import Dataset
from crosscontext.datasets.subset import Subset
from crosscontext.encoders import Encoder
from crosscontext.features import Features, extract
from crosscontext.health import feature_std, rankme
from crosscontext.probe import knn_top1
from crosscontext.randomness import permutation
from crosscontext.schedules import Duration
from crosscontext.settings import Settings

_QUERY_PART = 5  # one image in five asks, the others answer


class MonitorSettings(Settings):
    """What is measured during training, and how often."""

    every: Duration = "10%"
    """Time between measurements; there is one at the end too."""

    images: int = Field(2000, ge=10)
    """Training images that it is measured on; a fifth of them ask the others for their class."""


class Monitor:
    """Measures an encoder on a fixed part of the training images.

    Args:
        settings: how many images.
        dataset: the training images.
        seed: of the run; chooses the part.
        batch_size: images in a forward pass.
        workers: threads that decode.
    """

    def __init__(self, settings: MonitorSettings, dataset: Dataset, seed: int, batch_size: int, workers: int):
        order = permutation(seed, 0, len(dataset.names))[: settings.images]
        self._part = Subset(dataset, order.tolist())
        self._batch_size, self._workers = batch_size, workers

    def measure(self, encoder: Encoder) -> dict[str, float]:
        """Compute the scalars ``val/…`` and ``health/…``.

        Args:
            encoder: is left as it is.

        Raises:
            NonFiniteError: weights have grown so large that features overflow.
        """
        features = extract(encoder, self._part, self._batch_size, self._workers)
        rank = rankme(features.values)
        scalars = {
            "health/rankme": rank,
            "health/rankme_share": rank / min(features.values.shape),
            "health/feature_std": feature_std(features.values),
        }
        if features.classes is not None:
            num_queries = max(len(features.names) // _QUERY_PART, 1)
            queries, bank = _part(features, 0, num_queries), _part(features, num_queries, len(features.names))
            scalars["val/knn_top1"] = knn_top1(bank, queries)
        return scalars


def _part(features: Features, start: int, stop: int) -> Features:
    classes = features.classes if features.classes is None else features.classes[start:stop]
    return Features(features.values[start:stop], classes, features.names[start:stop], {})
