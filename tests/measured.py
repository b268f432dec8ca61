"""What tests look up in measurements."""

from torch import Tensor

from crosscontext.confidence import Mean
from crosscontext.tasks import Measurement


def right(measurement: Measurement) -> Tensor:
    """Whether the answer for each test image is right, of a metric that is a share of them."""
    assert isinstance(measurement.statistic, Mean)
    return measurement.statistic.values
