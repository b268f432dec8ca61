"""How healthy features are, without labels: features → **health** → numbers to log, statistics to resample.

A collapsed encoder shows here long before a score is taken. The classes are statistics in the sense of
`confidence`. Some are made of pairs of images; an image that a resample holds twice is no new pair with
itself, or else all resamples would look more alike than the images are.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from crosscontext.neighbours import nearest
from crosscontext.shapes import Float, Float64

_TINY = torch.finfo(torch.float64).tiny
_ROUNDING = 1e-6  # of float32 features, relative to their size


def rankme(features: Float[Tensor, "N D"]) -> float:
    """Effective number of dimensions that features use.

    Source: Garrido et al., "RankMe", ICML 2023, arXiv 2210.02885, equations 1 and 2: the exponential of the
    entropy of the singular values, normalised to sum 1. Where the paper adds 1e-7 to each, 0 log 0 is 0 here.

    Args:
        features: as they are, neither centred nor scaled. With fewer images than dimensions, N is the bound.

    Returns:
        From 1 (all features on one line, or all zero) to min(N, D) (isotropic).
    """
    return float(_effective_rank(torch.linalg.svdvals(features.double())[None]))


class RankMe(NamedTuple):
    """`rankme`, with the principal directions of all images kept on each resample.

    With directions of its own, a resample would lose a dimension for every image that it lacks, and all of
    them would lie below the value.
    """

    squares: Float64[Tensor, "N E"]
    """Squared coordinate of each image along each direction; their sums are the squared singular values."""

    @classmethod
    def of(cls, features: Float[Tensor, "N D"]) -> "RankMe":
        """Find the directions."""
        left, singular, _ = torch.linalg.svd(features.double(), full_matrices=False)
        return cls((left * singular).square())

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.squares)

    def __call__(self, counts: Float64[Tensor, "R N"]) -> Float64[Tensor, " R"]:
        """Compute RankMe R times."""
        return _effective_rank((counts @ self.squares).sqrt())


def _effective_rank(singular: Float64[Tensor, "R D"]) -> Float64[Tensor, " R"]:
    shares = singular / singular.sum(dim=1, keepdim=True).clamp_min(_TINY)
    ranks: Tensor = torch.special.entr(shares).sum(dim=1).exp()
    return ranks


def feature_std(features: Float[Tensor, "N D"]) -> float:
    """Spread of the directions of features.

    Source: Chen and He, "SimSiam", CVPR 2021, section 4.1 and figure 2: the standard deviation of each
    dimension of the L2-normalised features, averaged; times √D, so that widths compare.

    Args:
        features: more than one row; a row of zeros stays zero.

    Returns:
        From 0 (all point the same way: collapse) to 1 (isotropic around the origin).
    """
    return float(FeatureStd.of(features)(torch.ones(1, len(features), dtype=torch.float64)))


class FeatureStd(NamedTuple):
    """`feature_std` of resampled images."""

    directions: Float64[Tensor, "N D"]
    """Unit rows."""

    @classmethod
    def of(cls, features: Float[Tensor, "N D"]) -> "FeatureStd":
        """Normalise features of any length."""
        return cls(F.normalize(features.double(), dim=1))

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.directions)

    def __call__(self, counts: Float64[Tensor, "R N"]) -> Float64[Tensor, " R"]:
        """Compute the spread R times."""
        mean, mean_square = (counts @ power / self.n for power in (self.directions, self.directions.square()))
        deviations: Tensor = (mean_square - mean.square()).clamp_min(0).sqrt()  # (R, D)
        return deviations.mean(dim=1) * float(self.directions.shape[1] ** 0.5)


def alignment(first: Float[Tensor, "N D"], second: Float[Tensor, "N D"]) -> Float64[Tensor, " N"]:
    """How far the features of two views of an image are apart; the mean over the images is the alignment.

    Source: Wang and Isola, ICML 2020, arXiv 2005.10242, equation 1 with α = 2: ‖f(x) − f(y)‖², f of length 1.

    Args:
        first: features of one view of each image.
        second: features of another view of the same images.

    Returns:
        From 0 (views are the same) to 4 (opposite).
    """
    return (F.normalize(first.double(), dim=1) - F.normalize(second.double(), dim=1)).square().sum(dim=1)


class Uniformity(NamedTuple):
    """How evenly features fill the sphere.

    Source: Wang and Isola, ICML 2020, arXiv 2005.10242, equation 2: log of the mean of exp(−t ‖f(x) − f(y)‖²)
    over all pairs of different images, f of length 1. From −4t to 0 (all point the same way: collapse);
    uniform features of many dimensions are near −2t.
    """

    potentials: Float64[Tensor, "N N"]
    """exp(−t ‖f(x) − f(y)‖²) of each pair, and 0 on the diagonal."""

    @classmethod
    def of(cls, features: Float[Tensor, "N D"], t: float = 2.0) -> "Uniformity":
        """Compute the pairs; t as in the paper."""
        directions = F.normalize(features.double(), dim=1)
        potentials = torch.cdist(directions, directions).square_().mul_(-t).exp_()
        return cls(potentials.fill_diagonal_(0))

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.potentials)

    def __call__(self, counts: Float64[Tensor, "R N"]) -> Float64[Tensor, " R"]:
        """Compute the uniformity R times, each over the pairs of different images that it holds."""
        num_pairs = self.n**2 - counts.square().sum(dim=1)
        return ((counts @ self.potentials * counts).sum(dim=1) / num_pairs).log()


class LinearCKA(NamedTuple):
    """How alike two sets of features of the same images are, whatever their rotation and scale.

    Source: Kornblith et al., ICML 2019, arXiv 1905.00414, equations 3 and 4, with linear kernels K and L:
    HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)), where HSIC sums the products of the centred kernels over all pairs.
    From 0 (unrelated, or one of them constant) to 1 (alike).
    """

    first: Float64[Tensor, "N N"]
    """Kernel: inner products of the features."""

    second: Float64[Tensor, "N N"]

    @classmethod
    def of(cls, first: Float[Tensor, "N D"], second: Float[Tensor, "N E"]) -> "LinearCKA":
        """Compute the kernels of features of any two widths."""
        return cls(_linear_kernel(first), _linear_kernel(second))

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.first)

    def __call__(self, counts: Float64[Tensor, "R N"]) -> Float64[Tensor, " R"]:
        """Compute the CKA R times, centred anew each time."""
        both = _hsic(self.first, self.second, counts)
        of_each = _hsic(self.first, self.first, counts) * _hsic(self.second, self.second, counts)
        return both / of_each.clamp_min(_TINY).sqrt()


def _linear_kernel(features: Float[Tensor, "N D"]) -> Float64[Tensor, "N N"]:
    """Inner products of centred features, of size 1 altogether; zeros if the features are constant."""
    features = features.double()
    centred = features - features.mean(dim=0)
    if torch.linalg.norm(centred) <= _ROUNDING * torch.linalg.norm(features):
        return torch.zeros(len(features), len(features), dtype=torch.float64)
    kernel: Tensor = centred @ centred.T
    kernel /= torch.linalg.norm(kernel)
    return kernel


def _hsic(
    first: Float64[Tensor, "N N"], second: Float64[Tensor, "N N"], counts: Float64[Tensor, "R N"]
) -> Float64[Tensor, " R"]:
    """Sum the products of two centred kernels over the pairs of counted images.

    Centred by counts w with sum n, a kernel K is K_ij − a_i − a_j + α, where a = Kw / n and α = wᵀa / n.
    Multiplied out, the sum over all pairs is wᵀ(K∘L)w − 2n Σ w_i a_i b_i + n² αβ. Of the w_i² pairs of an
    image with itself w_i are kept: as many as there would be if all n images were different.
    """
    n = len(first)
    a, b = counts @ first / n, counts @ second / n  # (R, N)
    alpha, beta = ((counts * mean).sum(dim=1, keepdim=True) / n for mean in (a, b))  # (R, 1)
    pairs = counts @ (first * second) * counts - 2 * n * counts * a * b + n * alpha * beta
    itself = (first.diagonal() - 2 * a + alpha) * (second.diagonal() - 2 * b + beta)
    return (pairs - (counts.square() - counts) * itself).sum(dim=1)


def neighbour_agreement(
    first: Float[Tensor, "N D"], second: Float[Tensor, "N E"], k: int
) -> Float64[Tensor, " N"]:
    """Share of the k nearest neighbours of each image that it has in both of two sets of features.

    Args:
        first: features; neighbours are those of the largest cosine, the image itself excepted.
        second: other features of the same images.
        k: in [1, N - 1].

    Returns:
        In [0, 1]; k / (N − 1) on average if the two are unrelated.
    """
    itself = torch.arange(len(first))
    one, other = (nearest(features, features, k, itself).rows for features in (first, second))
    return (one[:, :, None] == other[:, None, :]).sum(dim=(1, 2)) / torch.tensor(k, dtype=torch.float64)
