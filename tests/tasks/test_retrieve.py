import pytest
import torch
from sklearn.metrics import average_precision_score

from crosscontext.errors import DataError
from crosscontext.features import Features
from crosscontext.tasks import RetrieveSettings
from measured import right


def noisy(size: int, seed: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(3, (size,), generator=generator)
    values = torch.eye(3, 8)[classes] + 0.6 * torch.randn(size, 8, generator=generator)
    return Features(values, classes, tuple(map(str, range(size))), {})


def test_the_scores_are_those_of_a_loop() -> None:
    train, test = noisy(80, 0), noisy(40, 1)
    assert train.classes is not None
    assert test.classes is not None
    found: dict[str, list[float]] = {"recall_at_1": [], "recall_at_4": [], "map": []}
    for query, label in zip(test.values.double(), test.classes, strict=True):
        cosines = torch.nn.functional.cosine_similarity(query[None], train.values.double())
        relevant = (train.classes == label).numpy()
        ranked = relevant[cosines.argsort(descending=True).numpy()]
        found["recall_at_1"].append(float(ranked[:1].any()))
        found["recall_at_4"].append(float(ranked[:4].any()))
        found["map"].append(average_precision_score(relevant, cosines.numpy()))
    measured = list(RetrieveSettings(k=(1, 4)).measure(train, test, seed=0))
    assert [m.metric for m in measured] == list(found)
    for measurement in measured:
        assert right(measurement).double().tolist() == pytest.approx(found[measurement.metric])
    assert 0.3 < measured[0].value < measured[1].value < 1


def test_test_labels_change_no_ranking() -> None:
    """Whatever class is asked for, the nearest image stays the same: it is of one class."""
    train, test = noisy(80, 0), noisy(40, 1)
    assert test.classes is not None
    nearest_is = torch.stack(
        [
            right(next(RetrieveSettings(k=(1,)).measure(train, test._replace(classes=asked), seed=0)))
            for asked in (torch.full_like(test.classes, label) for label in range(3))
        ]
    )
    assert nearest_is.sum(dim=0).eq(1).all()
    honest = next(RetrieveSettings(k=(1,)).measure(train, test, seed=0))
    assert torch.equal(nearest_is.int().argmax(dim=0) == test.classes, right(honest))


def test_a_class_of_which_no_training_image_can_be_read_is_an_error() -> None:
    train, test = noisy(80, 0), noisy(40, 1)
    assert train.classes is not None
    without = train._replace(classes=train.classes.clamp_max(1))
    with pytest.raises(DataError, match=r"of 40 test images are of a class of which no training image"):
        list(RetrieveSettings().measure(without, test, seed=0))
