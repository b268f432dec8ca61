from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from crosscontext.datasets import Dataset, FolderSettings
from crosscontext.errors import DataError
from crosscontext.finetuning import NetworkTraining
from crosscontext.subjects import Subject
from crosscontext.tasks import SemiSettings
from crosscontext.tasks.semi import labelled_images
from measured import right
from small_subject import (
    Relabelled,
    poisoned,
    same_weights,
    small_encoder,
    small_subject,
    weights_of,
)

SHORT = NetworkTraining(epochs=8, batch_size=16, backbone_learning_rate=0.2)


@pytest.fixture
def dataset(image_folder: Path) -> Dataset:
    """Twenty red and twenty blue pictures: blue/01.jpg, blue/03.jpg …, red/00.jpg, red/02.jpg …"""
    return FolderSettings(path=image_folder).open().train


def listing(path: Path, *names: str) -> str:
    path.write_text("\n".join(names) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("amount", "of_each"),
    [("1%", 1), ("10%", 2), ("12.5%", 2), ("50%", 10), ("100%", 20), ("7 per class", 7)],
)
def test_every_class_has_its_part_of_the_labels(dataset: Dataset, amount: str, of_each: int) -> None:
    indices = labelled_images(dataset, amount, seed=0)
    assert dataset.labels is not None
    assert np.bincount(dataset.labels.classes[indices]).tolist() == [of_each, of_each]
    assert indices == sorted(set(indices))


def test_the_draw_repeats_and_few_labels_are_among_more(dataset: Dataset) -> None:
    few, more = (labelled_images(dataset, amount, seed=4) for amount in ("10%", "8 per class"))
    assert few == labelled_images(dataset, "10%", seed=4)
    assert set(few) < set(more)
    assert few != labelled_images(dataset, "10%", seed=5)


def test_a_list_names_images_with_or_without_their_folders(dataset: Dataset, tmp_path: Path) -> None:
    amount = listing(tmp_path / "few.txt", "red/04.jpg", "", "07.jpg", " red/04.jpg ", "blue/07.jpg")
    names = [dataset.names[index] for index in labelled_images(dataset, amount, seed=0)]
    assert names == ["blue/07.jpg", "red/04.jpg"]


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["red/04.jpg", "blue/08.jpg"], r"1 of the 2 images .*few.txt.* no training images: blue/08.jpg"),
        (["red/04.jpg"], r"1 of 2 classes have no labelled image: blue"),
        ([], r"2 of 2 classes have no labelled image: blue, red"),
    ],
)
def test_a_list_that_does_not_do_is_refused(
    dataset: Dataset, tmp_path: Path, names: list[str], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        labelled_images(dataset, listing(tmp_path / "few.txt", *names), seed=0)


def test_a_name_of_several_images_is_refused(tmp_path: Path) -> None:
    for name in ("red", "blue"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        (tmp_path / "pictures" / name / "1.jpg").write_bytes(b"")  # is listed, not read
    dataset = FolderSettings(path=tmp_path / "pictures").open().train
    with pytest.raises(DataError, match=r"several training images: 1.jpg. Write .* like blue/1.jpg"):
        labelled_images(dataset, listing(tmp_path / "few.txt", "1.jpg"), seed=0)


def test_more_images_of_a_class_than_there_are_are_refused(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"2 classes have fewer than 21 training images: blue, red"):
        labelled_images(dataset, "21 per class", seed=0)


@pytest.mark.parametrize("amount", ["0%", "101%", "0 per class", "ten", "4", ""])
def test_an_amount_of_labels_that_is_none_is_refused(amount: str) -> None:
    with pytest.raises(ValidationError, match=r"share of the labels"):
        SemiSettings(labels=(amount,))


def test_two_amounts_with_the_same_metric_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"same metric: top1_1%"):
        SemiSettings(labels=("1%", "10%", "1 %"))


def test_there_is_one_measurement_for_each_amount_of_labels(image_folder: Path, tmp_path: Path) -> None:
    subject = small_subject(image_folder)
    few = listing(tmp_path / "few.txt", "red/00.jpg", "blue/03.jpg")
    measured = list(SemiSettings(labels=("50%", "3 per class", few), training=SHORT).judge(subject))
    assert [m.metric for m in measured] == ["top1_50%", "top1_3_per_class", "top1_few"]
    assert [m.details["labelled_images"] for m in measured] == [12, 6, 2]
    assert measured[0].details["batch_size"] == 12
    assert measured[0].value > 0.7
    assert all(right(m).shape == (14,) for m in measured)
    assert same_weights(weights_of(subject.network()), weights_of(small_encoder()))


def test_an_amount_is_measured_alike_alone_and_among_others(image_folder: Path) -> None:
    subject = small_subject(image_folder)
    (alone,) = SemiSettings(labels=("3 per class",), training=SHORT).judge(subject)
    *_, among = SemiSettings(labels=("50%", "3 per class"), training=SHORT).judge(subject)
    assert torch.equal(right(alone), right(among))


def test_test_labels_touch_no_answer(image_folder: Path) -> None:
    task, subject = SemiSettings(labels=("20%",), training=SHORT), small_subject(image_folder)
    (honest,), (wrong,) = task.judge(subject), task.judge(poisoned(subject))
    assert torch.equal(right(wrong), ~right(honest))
    assert wrong.details == honest.details


def test_labels_beside_the_listed_ones_are_not_read(image_folder: Path, tmp_path: Path) -> None:
    names = ["red/00.jpg", "red/04.jpg", "blue/03.jpg", "blue/05.jpg"]
    task = SemiSettings(labels=(listing(tmp_path / "few.txt", *names),), training=SHORT)
    subject = small_subject(image_folder)
    train = subject.parts.train
    assert train.labels is not None
    wrong = [
        int(known if name in names else 1 - known)
        for name, known in zip(train.names, train.labels.classes, strict=True)
    ]
    assert (train.labels.classes == wrong).sum() == len(names)
    parts = subject.parts._replace(train=Relabelled(train, wrong))
    (honest,) = task.judge(subject)
    (misled,) = task.judge(Subject("encoder", subject.model, parts, seed=0, workers=1))
    assert torch.equal(right(honest), right(misled))


def test_neither_workers_nor_loading_nor_another_run_change_an_answer(image_folder: Path) -> None:
    task = SemiSettings(labels=("30%",), training=SHORT)
    (first,) = task.judge(small_subject(image_folder, seed=2))
    (second,) = task.judge(small_subject(image_folder, seed=2, workers=3, batch_size=7))
    assert torch.equal(right(first), right(second))


def test_the_protocol_has_the_content_of_a_list_and_not_its_place(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    here, there = (listing(tmp_path / place / "few.txt", "a.jpg") for place in ("", "other"))
    protocols = [SemiSettings(labels=("1%", path)).protocol() for path in (here, there)]
    assert protocols[0] == protocols[1]
    assert protocols[0]["training"] == NetworkTraining().model_dump(mode="json")
    listing(Path(there), "b.jpg")
    assert SemiSettings(labels=("1%", there)).protocol() != protocols[0]
