from pathlib import Path

import pytest
import torch

from crosscontext.datasets.subset import Subset
from crosscontext.errors import SettingsError
from crosscontext.features import extract
from crosscontext.finetuning import HeadTraining, train_heads
from crosscontext.references import Pixels
from crosscontext.stratified import hold_out
from crosscontext.subjects import Subject
from crosscontext.tasks import LinearSgdSettings
from measured import right
from small_subject import poisoned, same_weights, small_encoder, small_subject, weights_of

SHORT = HeadTraining(epochs=8, batch_size=16)
RATES = (0.3, 30.0)  # features of random weights are small
ONE = LinearSgdSettings(learning_rates=(30.0,), training=SHORT)
SEVERAL = LinearSgdSettings(learning_rates=RATES, training=SHORT)


def test_the_defaults_are_the_protocol_of_the_paper() -> None:
    settings = LinearSgdSettings()
    assert settings.learning_rates == (0.3,)
    assert settings.training.model_dump() == {
        "epochs": 100,
        "batch_size": 256,
        "momentum": 0.9,
        "weight_decay": 0,
        "crop_scale": (0.08, 1.0),
        "flip_probability": 0.5,
    }


def test_a_single_learning_rate_is_trained_on_all_training_images(image_folder: Path) -> None:
    subject = small_subject(image_folder)
    (measured,) = ONE.judge(subject)
    assert measured.metric == "top1"
    assert measured.value > 0.8
    assert measured.details == {"batch_size": 16, "steps": 13, "unreadable": []}  # 8 times 26 images
    trained = train_heads(small_encoder(), subject.parts.train, [30.0], SHORT, 0, 1)
    answers, classes = trained.heads[0].predict(subject.test.values), subject.test.classes
    assert classes is not None
    assert torch.equal(right(measured), answers == classes)


def test_among_several_learning_rates_held_out_training_images_choose(image_folder: Path) -> None:
    subject = small_subject(image_folder)
    (measured,) = SEVERAL.judge(subject)
    train = subject.parts.train
    assert train.labels is not None
    held_out = hold_out(torch.from_numpy(train.labels.classes), 0.2, 0)
    rest, judged = (Subset(train, torch.nonzero(part).flatten().tolist()) for part in (~held_out, held_out))
    features = extract(small_encoder(), judged, 64, 1)
    assert features.classes is not None
    heads = train_heads(small_encoder(), rest, RATES, SHORT, 0, 1).heads
    shares = [float((head.predict(features.values) == features.classes).double().mean()) for head in heads]
    assert measured.details["held_out_top1"] == max(shares)
    assert measured.details["learning_rate"] == RATES[shares.index(max(shares))] == 30.0


@pytest.mark.parametrize("task", [ONE, SEVERAL])
def test_test_labels_touch_neither_choice_nor_answers(image_folder: Path, task: LinearSgdSettings) -> None:
    subject = small_subject(image_folder)
    (honest,), (wrong,) = task.judge(subject), task.judge(poisoned(subject))
    assert torch.equal(right(wrong), ~right(honest))
    assert wrong.details == honest.details


def test_neither_workers_nor_loading_nor_another_run_change_an_answer(image_folder: Path) -> None:
    (first,) = SEVERAL.judge(small_subject(image_folder, seed=2))
    (second,) = SEVERAL.judge(small_subject(image_folder, seed=2, workers=3, batch_size=7))
    assert torch.equal(right(first), right(second))
    assert first.details == second.details


def test_the_encoder_stays_as_it_was_bitwise(image_folder: Path) -> None:
    subject = small_subject(image_folder)
    list(SEVERAL.judge(subject))
    assert same_weights(weights_of(subject.network()), weights_of(small_encoder()))


def test_pixels_are_refused(image_folder: Path) -> None:
    subject = small_subject(image_folder)
    pixels = Subject("pixels", Pixels(small_encoder().preprocessing), subject.parts, seed=0)
    with pytest.raises(SettingsError, match="needs a network, and pixels has none"):
        list(ONE.judge(pixels))
