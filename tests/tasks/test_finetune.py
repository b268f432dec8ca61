from pathlib import Path

import torch

from crosscontext.finetuning import NetworkTraining
from crosscontext.tasks import FinetuneSettings
from measured import right
from small_subject import poisoned, same_weights, small_encoder, small_subject, weights_of

TASK = FinetuneSettings(training=NetworkTraining(epochs=8, batch_size=16, backbone_learning_rate=0.2))


def test_the_network_learns_and_the_subject_keeps_its_weights(image_folder: Path) -> None:
    subject = small_subject(image_folder)
    (measured,) = TASK.judge(subject)
    assert measured.metric == "top1"
    assert measured.value > 0.8
    assert right(measured).shape == (14,)
    assert measured.details == {"batch_size": 16, "steps": 13, "unreadable": []}
    assert same_weights(weights_of(subject.network()), weights_of(small_encoder()))


def test_test_labels_touch_no_answer(image_folder: Path) -> None:
    subject = small_subject(image_folder)
    (honest,), (wrong,) = TASK.judge(subject), TASK.judge(poisoned(subject))
    assert torch.equal(right(wrong), ~right(honest))


def test_neither_workers_nor_loading_nor_another_run_change_an_answer(image_folder: Path) -> None:
    (first,) = TASK.judge(small_subject(image_folder, seed=2))
    (second,) = TASK.judge(small_subject(image_folder, seed=2, workers=3, batch_size=7))
    assert torch.equal(right(first), right(second))
