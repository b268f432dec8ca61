"""How healthy features are, without labels: features → **health** → numbers to log.

A collapsed encoder shows here long before a score is taken.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from crosscontext.shapes import Float


def rankme(features: Float[Tensor, "N D"]) -> float:
    """Effective number of dimensions that features use.

    Source: Garrido et al., "RankMe", ICML 2023, arXiv 2210.02885, equations 1 and 2: the exponential of the
    entropy of the singular values, normalised to sum 1. Where the paper adds 1e-7 to each, 0 log 0 is 0 here.

    Args:
        features: as they are, neither centred nor scaled. With fewer images than dimensions, N is the bound.

    Returns:
        From 1 (all features on one line, or all zero) to min(N, D) (isotropic).
    """
    singular = torch.linalg.svdvals(features.double())
    shares = singular / singular.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return float(torch.special.entr(shares).sum().exp())


def feature_std(features: Float[Tensor, "N D"]) -> float:
    """Spread of the directions of features.

    Source: Chen and He, "SimSiam", CVPR 2021, section 4.1 and figure 2: the standard deviation of each
    dimension of the L2-normalised features, averaged; times √D, so that widths compare.

    Args:
        features: more than one row; a row of zeros stays zero.

    Returns:
        From 0 (all point the same way: collapse) to 1 (isotropic around the origin).
    """
    directions = F.normalize(features.double(), dim=1)
    return float(directions.std(dim=0, correction=0).mean() * features.shape[1] ** 0.5)
