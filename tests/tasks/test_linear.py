import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from crosscontext.features import Features
from crosscontext.stratified import hold_out
from crosscontext.tasks import LinearSettings
from measured import right

NUM_CLASSES, WIDTH = 4, 20


def noisy(size: int, seed: int) -> Features:
    """Classes that a linear map tells apart in part, on dimensions of unequal scale and offset."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(NUM_CLASSES, WIDTH, generator=torch.Generator().manual_seed(77))
    classes = torch.randint(NUM_CLASSES, (size,), generator=generator)
    values = centres[classes] + 2.5 * torch.randn(size, WIDTH, generator=generator)
    return Features(values * torch.logspace(-3, 3, WIDTH) + 5, classes, tuple(map(str, range(size))), {})


def test_the_score_is_that_of_scikit_learn_at_the_chosen_penalty() -> None:
    train, test = noisy(1000, 0), noisy(2000, 1)
    (measured,) = LinearSettings().measure(train, test, seed=0)
    penalty = measured.details["penalty"]
    assert isinstance(penalty, float)
    assert train.classes is not None
    assert test.classes is not None
    scaler = StandardScaler().fit(train.values.double().numpy())
    oracle = LogisticRegression(C=1 / (penalty * 1000), max_iter=5000, tol=1e-8)
    oracle.fit(scaler.transform(train.values.double().numpy()), train.classes.numpy())
    expected = oracle.score(scaler.transform(test.values.double().numpy()), test.classes.numpy())
    # the scaler of the task has seen the held-in part only
    assert measured.value == pytest.approx(expected, abs=0.003)


def test_test_labels_and_test_images_touch_neither_choice_nor_predictions() -> None:
    train, test = noisy(300, 0), noisy(400, 1)
    assert test.classes is not None
    (honest,) = LinearSettings().measure(train, test, seed=0)
    poisoned_by_class = []
    for poison in range(NUM_CLASSES):
        all_the_same = test._replace(classes=torch.full_like(test.classes, poison))
        (measured,) = LinearSettings().measure(train, all_the_same, seed=0)
        assert measured.details == honest.details
        poisoned_by_class.append(right(measured))
    predicted = (
        torch.stack(poisoned_by_class).int().argmax(dim=0)
    )  # where it says class c, the poison c is right
    assert torch.stack(poisoned_by_class).sum(dim=0).eq(1).all()
    assert torch.equal(predicted == test.classes, right(honest))

    (fewer,) = LinearSettings().measure(train, noisy(400, 1)._replace(values=torch.zeros(400, WIDTH)), seed=0)
    assert fewer.details == honest.details


def test_the_penalty_is_the_one_that_does_best_on_the_held_out_part() -> None:
    train, test = noisy(200, 0), noisy(50, 1)
    details = {
        penalty: next(LinearSettings(penalties=(penalty,)).measure(train, test, seed=0)).details
        for penalty in (1e-4, 1e-1, 1e4)
    }
    (chosen,) = LinearSettings(penalties=(1e-4, 1e-1, 1e4)).measure(train, test, seed=0)
    best = max(float(str(found["held_out_top1"])) for found in details.values())
    assert chosen.details["held_out_top1"] == pytest.approx(best, abs=0.05)
    assert chosen.details["penalty"] == 0.1


def test_all_training_images_are_used_in_the_end() -> None:
    train, test = noisy(100, 0), noisy(50, 1)
    assert train.classes is not None
    held_out = hold_out(train.classes, 0.2, seed=0)
    settings = LinearSettings(penalties=(1e-2,))
    (whole,) = settings.measure(train, test, seed=0)
    scrambled = train.values.clone()
    scrambled[held_out] = scrambled[held_out].roll(1, dims=0) * -3
    (other,) = settings.measure(train._replace(values=scrambled), test, seed=0)
    assert not torch.equal(right(whole), right(other))  # the refit has seen the held-out images


def test_the_same_seed_gives_the_same_answers() -> None:
    train, test = noisy(150, 0), noisy(60, 1)
    (first,), (second,) = (LinearSettings().measure(train, test, seed=3) for _ in range(2))
    assert torch.equal(right(first), right(second))
    assert first.details == second.details


def test_few_images_of_many_dimensions_work() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(12, 200, generator=generator)
    train = Features(values, torch.arange(12) % 2, tuple(map(str, range(12))), {})
    (measured,) = LinearSettings().measure(train, train, seed=0)
    assert right(measured).all()
