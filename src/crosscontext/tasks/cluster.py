"""The clustering task: how well k-means on features finds the classes by itself.

As is usual for clustering, the judged images themselves are clustered: nothing is learned from the training
images, and labels only score the clusters.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from crosscontext.confidence import Mean
from crosscontext.errors import DataError, SettingsError
from crosscontext.features import Features
from crosscontext.randomness import permutation
from crosscontext.shapes import Bool, Float, Float64, Int64
from crosscontext.subjects import Subject
from crosscontext.tasks.contract import Measurement, Task

_NO_CLUSTERS = -1.0  # the silhouette of images that are all in one cluster


class ClusterSettings(Task):
    """k-means on the features of the test images, of length 1 each; scores are accuracy, NMI and ARI."""

    learns: ClassVar[bool] = False

    name: Literal["cluster"] = "cluster"

    clusters: Literal["classes"] | Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (
        "classes"
    )
    """classes: as many clusters as the test images have classes. Or one number; or several, of which the one
    with the best silhouette is taken, which needs no labels (Rousseeuw, 1987)."""

    n_init: int = Field(10, ge=1)
    """Starts of k-means; the tightest clusters are taken."""

    silhouette_images: int = Field(2000, ge=3)
    """Images that silhouettes are computed on, drawn by the seed."""

    def judge(self, subject: Subject) -> Iterator[Measurement]:
        """Cluster the test images, then score the clusters."""
        yield from self.measure(subject.test, subject.seed)

    def measure(self, test: Features, seed: int) -> Iterator[Measurement]:
        """Cluster images, then score the clusters.

        Args:
            test: with classes.
            seed: of the starts, and of the images for silhouettes.

        Raises:
            SettingsError: there are too few images for so many clusters.
            DataError: all images are of one class.
        """
        assert test.classes is not None
        num_classes = len(torch.unique(test.classes))
        if num_classes == 1:
            raise DataError(
                f"The {len(test.names)} test images are all of one class, which any clusters fit. "
                "Give images of several classes."
            )
        numbers = (num_classes,) if self.clusters == "classes" else self.clusters
        if max(numbers) > len(test.names):
            raise SettingsError(
                f"{max(numbers)} clusters are too many for {len(test.names)} test images. "
                "Give a smaller number in clusters, or more images."
            )
        clusters, silhouettes = self._choose(F.normalize(test.values, dim=1), numbers, seed)
        details: dict[str, object] = {"clusters": len(torch.unique(clusters))}
        if silhouettes:
            details["silhouettes"] = silhouettes
        yield Measurement("accuracy", Mean(matched(clusters, test.classes)), details)
        yield Measurement("nmi", NormalisedMutualInformation.of(clusters, test.classes), details)
        yield Measurement("ari", AdjustedRandIndex(clusters, test.classes), details)

    def _choose(
        self, values: Float[Tensor, "N D"], numbers: tuple[int, ...], seed: int
    ) -> tuple[Int64[Tensor, " N"], dict[str, float]]:
        """Find the clusters and, where there are several numbers of them, the silhouette of each number."""
        found = {number: k_means(values, number, self.n_init, seed) for number in sorted(set(numbers))}
        if len(found) == 1:
            return next(iter(found.values())), {}
        some = torch.from_numpy(permutation(seed, 0, len(values))[: self.silhouette_images])
        silhouettes = {number: silhouette(values[some], found[number][some]) for number in found}
        best = max(silhouettes, key=lambda number: silhouettes[number])  # of equal ones the smallest number
        return found[best], {str(number): value for number, value in silhouettes.items()}


def k_means(values: Float[Tensor, "N D"], num_clusters: int, n_init: int, seed: int) -> Int64[Tensor, " N"]:
    """Cluster by scikit-learn's k-means, on one thread: sums of several depend on which of them is first."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        clusters = KMeans(num_clusters, n_init=n_init, random_state=seed).fit_predict(values.numpy())
    return torch.from_numpy(clusters.astype(np.int64))


def silhouette(values: Float[Tensor, "N D"], clusters: Int64[Tensor, " N"]) -> float:
    """Mean silhouette, in [-1, 1]; -1 where all images are in one cluster, or each in its own."""
    from sklearn.metrics import silhouette_score

    if not 1 < len(torch.unique(clusters)) < len(clusters):
        return _NO_CLUSTERS
    return float(silhouette_score(values.numpy(), clusters.numpy()))


def matched(clusters: Int64[Tensor, " N"], classes: Int64[Tensor, " N"]) -> Bool[Tensor, " N"]:
    """Whether each image is of the class that its cluster stands for.

    Source: Kuhn, 1955: each cluster stands for at most one class and each class for at most one cluster, so
    that most images are right. Images of clusters that are left over are wrong. The matching is made once,
    for all images, and kept on resamples.
    """
    from scipy.optimize import linear_sum_assignment

    table = torch.zeros(int(clusters.max()) + 1, int(classes.max()) + 1, dtype=torch.int64)
    table.index_put_((clusters, classes), torch.ones_like(clusters), accumulate=True)
    meant = torch.full((len(table),), -1)
    rows, columns = (torch.from_numpy(side) for side in linear_sum_assignment(table.numpy(), maximize=True))
    meant[rows] = columns
    return torch.eq(meant[clusters], classes)


class NormalisedMutualInformation(NamedTuple):
    """Normalised mutual information, in [0, 1]: MI over the mean of the two entropies.

    Source: Strehl and Ghosh, 2002; the arithmetic mean as in scikit-learn. It is not adjusted for chance.
    MI and entropies are means over the images of logarithms of shares; the shares are those of all images and
    are kept on resamples. Taken anew they add information by chance, so that the interval of few images would
    not hold the value: 27 % and [28, 38] for 300 images, 10 clusters and 10 classes.
    """

    shared: Float64[Tensor, " N"]
    """ln of the share of its cluster and class together, over those of its cluster and of its class."""

    own: Float64[Tensor, " N"]
    """-ln of the share of its cluster, and of its class; the mean of the two."""

    @classmethod
    def of(cls, clusters: Int64[Tensor, " N"], classes: Int64[Tensor, " N"]) -> "NormalisedMutualInformation":
        """Look up the shares."""
        cluster, label, both = (
            _share_of_each(groups).log() for groups in (clusters, classes, _cells(clusters, classes))
        )
        return cls(both - cluster - label, -(cluster + label) / 2)

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.shared)

    def __call__(self, counts: Float64[Tensor, "R N"]) -> Float64[Tensor, " R"]:
        """Compute the NMI R times; 1 where there is one cluster and one class."""
        own = counts @ self.own
        return torch.where(own > 0, counts @ self.shared / own, 1.0)


class AdjustedRandIndex(NamedTuple):
    """Adjusted Rand index: 1 for the classes themselves, 0 on average for clusters drawn by chance.

    Source: Hubert and Arabie, 1985, equation 5. An image that a resample holds twice is no pair with itself:
    such pairs would always agree.
    """

    clusters: Int64[Tensor, " N"]
    classes: Int64[Tensor, " N"]

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.clusters)

    def __call__(self, counts: Float64[Tensor, "R N"]) -> Float64[Tensor, " R"]:
        """Compute the ARI R times; 1 where clusters and classes are all of one image, or one of all."""
        copies = counts.square().sum(dim=1)
        of_clusters, of_classes, of_both, of_all = (
            (totals(counts, groups).square().sum(dim=1) - copies) / 2
            for groups in (
                self.clusters,
                self.classes,
                _cells(self.clusters, self.classes),
                torch.zeros_like(self.classes),
            )
        )
        by_chance = of_clusters * of_classes / of_all
        most = (of_clusters + of_classes) / 2
        return torch.where(most > by_chance, (of_both - by_chance) / (most - by_chance), 1.0)


def totals(counts: Float64[Tensor, "R N"], groups: Int64[Tensor, " N"]) -> Float64[Tensor, "R M"]:
    """Sum counts over the images of each group; exactly, since counts are whole numbers."""
    order = groups.argsort()
    _, sizes = torch.unique_consecutive(groups[order], return_counts=True)
    sums = counts[:, order].cumsum(dim=1)[:, sizes.cumsum(0) - 1]
    return sums.diff(dim=1, prepend=sums.new_zeros(len(sums), 1))


def _cells(clusters: Int64[Tensor, " N"], classes: Int64[Tensor, " N"]) -> Int64[Tensor, " N"]:
    """Number the pairs of cluster and class."""
    return clusters * (classes.max() + 1) + classes


def _share_of_each(groups: Int64[Tensor, " N"]) -> Float64[Tensor, " N"]:
    """Share of the images that are in the group of each image."""
    _, group, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
    shares: Tensor = sizes.double() / len(groups)
    return shares[group]
