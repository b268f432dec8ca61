from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import nn

from conftest import paint
from crosscontext.datasets import Dataset, FolderSettings
from crosscontext.errors import DataError, NonFiniteError
from crosscontext.features import extract
from crosscontext.finetuning import HeadTraining, NetworkTraining, Trained, finetune, train_heads
from crosscontext.views import ViewSettings, ViewsSettings, draw_view, resolve
from small_subject import same_weights, small_encoder, weights_of

SHORT = NetworkTraining(epochs=2, batch_size=16)
FAST = NetworkTraining(epochs=2, batch_size=16, backbone_learning_rate=1, head_learning_rate=1)


@pytest.fixture
def dataset(image_folder: Path) -> Dataset:
    return FolderSettings(path=image_folder).open().train


def same_heads(first: Trained, second: Trained) -> bool:
    return all(
        torch.equal(ours.weights, theirs.weights) and torch.equal(ours.bias, theirs.bias)
        for ours, theirs in zip(first.heads, second.heads, strict=True)
    )


def test_a_frozen_encoder_stays_as_it_was_bitwise(dataset: Dataset) -> None:
    encoder = small_encoder().train()
    before = weights_of(encoder)
    (head,) = train_heads(encoder, dataset, [0.3], HeadTraining(epochs=2), 0, 1).heads
    assert head.weights.abs().max() > 0
    assert same_weights(before, weights_of(encoder))
    assert encoder.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in encoder.parameters())


def test_the_first_step_is_that_of_softmax_regression_on_the_weak_views(dataset: Dataset) -> None:
    settings = HeadTraining(epochs=1, batch_size=256, crop_scale=(0.3, 0.8), flip_probability=0.4)
    trained = train_heads(small_encoder(), dataset, [0.5], settings, 7, 1)
    assert (trained.steps, trained.batch_size) == (1, 40)
    views = resolve(ViewsSettings(weak=ViewSettings(scale=(0.3, 0.8), flip_probability=0.4)), 16)
    crops = [draw_view(dataset, index, views, 16, ("weak", 0), (7, 0)) for index in range(40)]
    with torch.no_grad():
        features = small_encoder()(torch.stack(crops))
    assert dataset.labels is not None
    errors = 0.5 - F.one_hot(
        torch.from_numpy(dataset.labels.classes), 2
    )  # at first both are equally probable
    rate = 0.5 * 40 / 256
    (head,) = trained.heads
    expected = -rate * errors.T @ features / 40
    torch.testing.assert_close(head.weights, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    torch.testing.assert_close(head.bias, -rate * errors.mean(dim=0))


def test_the_head_reaches_the_minimum_of_scikit_learn(tmp_path: Path) -> None:
    for number in range(36):
        paint(tmp_path / "abc"[number % 3] / f"{number}.jpg", number, hue=number % 3, side=8)
    dataset = FolderSettings(path=tmp_path).open().train
    encoder = small_encoder(image_size=8)
    features = extract(encoder, dataset, 36, 1)
    scale = float(features.values.norm(dim=1).mean())
    whole = HeadTraining(epochs=300, weight_decay=0.05 * scale**2, crop_scale=(1, 1), flip_probability=0)
    rate = 1.0 / scale**2 * 256 / 36
    (head,) = train_heads(encoder, dataset, [rate], whole, 0, 1).heads
    oracle = LogisticRegression(C=1 / (whole.weight_decay * 36), tol=1e-8, max_iter=10_000)
    assert features.classes is not None
    oracle.fit(features.values.double().numpy(), features.classes.numpy())
    expected = torch.from_numpy(oracle.coef_).float()
    assert (head.weights - expected).norm() < 0.01 * expected.norm()
    same = head.predict(features.values).numpy() == oracle.predict(features.values.double().numpy())
    assert same.mean() > 0.97


def test_heads_that_are_trained_together_are_those_trained_alone(dataset: Dataset) -> None:
    together = train_heads(small_encoder(), dataset, [0.3, 3.0], SHORT, 0, 1)
    for rate, head in zip([0.3, 3.0], together.heads, strict=True):
        (alone,) = train_heads(small_encoder(), dataset, [rate], SHORT, 0, 1).heads
        torch.testing.assert_close(head.weights, alone.weights)


def test_fine_tuning_teaches_the_backbone_and_ends_in_evaluation_mode(dataset: Dataset) -> None:
    encoder = small_encoder()
    before = weights_of(encoder)
    finetune(encoder, dataset, FAST, 0, 1)
    changed = {name for name, value in weights_of(encoder).items() if not torch.equal(value, before[name])}
    assert changed == before.keys()
    assert not any(module.training for module in encoder.modules())


def test_frozen_statistics_stay_while_the_weights_of_batch_norm_learn(dataset: Dataset) -> None:
    encoder = small_encoder()
    before = weights_of(encoder)
    finetune(encoder, dataset, FAST.model_copy(update={"batch_norm": "frozen"}), 0, 1)
    buffers = {name for name, _ in encoder.named_buffers()}
    assert buffers
    for name, value in weights_of(encoder).items():
        assert torch.equal(value, before[name]) == (name in buffers), name


def test_backbone_and_head_have_learning_rates_of_their_own(dataset: Dataset) -> None:
    def moved(backbone: float, head: float) -> tuple[float, float]:
        rates = {"backbone_learning_rate": backbone, "head_learning_rate": head}
        encoder = small_encoder()
        before = weights_of(encoder)
        (fitted,) = finetune(encoder, dataset, SHORT.model_copy(update=rates), 0, 1).heads
        stem = "backbone.model.conv1.weight"
        return float((weights_of(encoder)[stem] - before[stem]).norm()), float(fitted.weights.norm())

    usual, slow_backbone, slow_head = moved(0.1, 0.1), moved(1e-9, 0.1), moved(0.1, 1e-9)
    assert slow_backbone[0] < 1e-4 * usual[0]
    assert slow_backbone[1] > 0.1 * usual[1]
    assert slow_head[1] < 1e-4 * usual[1]


@pytest.mark.parametrize("workers", [0, 3])
def test_neither_another_run_nor_other_workers_change_a_bit(dataset: Dataset, workers: int) -> None:
    first, second = small_encoder(), small_encoder()
    ours, theirs = finetune(first, dataset, SHORT, 3, 1), finetune(second, dataset, SHORT, 3, workers)
    assert same_heads(ours, theirs)
    assert same_weights(weights_of(first), weights_of(second))
    frozen = [train_heads(small_encoder(), dataset, [0.3], SHORT, 3, number) for number in (1, workers)]
    assert same_heads(*frozen)


def test_another_seed_gives_another_head(dataset: Dataset) -> None:
    first, second = (train_heads(small_encoder(), dataset, [0.3], SHORT, seed, 1) for seed in (0, 1))
    assert not same_heads(first, second)


def test_the_global_generator_is_left_as_it_was(dataset: Dataset) -> None:
    encoder = small_encoder()
    before = torch.random.get_rng_state()
    finetune(encoder, dataset, SHORT, 0, 1)
    train_heads(encoder, dataset, [0.3], SHORT, 0, 1)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("epochs", "batch_size", "expected"), [(3, 256, (3, 40)), (4, 16, (10, 16)), (0.1, 256, (1, 40))]
)
def test_epochs_count_images_and_the_batch_is_at_most_the_set(
    dataset: Dataset, epochs: float, batch_size: int, expected: tuple[int, int]
) -> None:
    settings = HeadTraining(epochs=epochs, batch_size=batch_size)
    trained = train_heads(small_encoder(), dataset, [0.3], settings, 0, 1)
    assert (trained.steps, trained.batch_size) == expected


@pytest.fixture
def holed(tmp_path: Path) -> Path:
    """Sixty pictures, of which two cannot be read."""
    for number in range(60):
        paint(tmp_path / ("red", "blue")[number % 2] / f"{number:02}.jpg", number, (0, 2)[number % 2])
    for name in ("red/04.jpg", "blue/31.jpg"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_unreadable_images_are_replaced_and_named(holed: Path) -> None:
    trained = train_heads(small_encoder(), FolderSettings(path=holed).open().train, [0.3], SHORT, 0, 2)
    assert trained.skipped.keys() == {"red/04.jpg", "blue/31.jpg"}
    unreadable = ["blue/31.jpg", "red/04.jpg", "test/1.jpg"]
    assert trained.details({"test/1.jpg": "why"}) == {"batch_size": 16, "steps": 8, "unreadable": unreadable}


def test_many_unreadable_images_are_refused(holed: Path) -> None:
    for number in range(6, 20, 2):
        (holed / "red" / f"{number:02}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="images cannot be read so far"):
        train_heads(small_encoder(), FolderSettings(path=holed).open().train, [0.3], SHORT, 0, 1)


def test_a_loss_that_is_no_number_is_refused(dataset: Dataset) -> None:
    wild = NetworkTraining(epochs=8, batch_size=16, backbone_learning_rate=1e30, head_learning_rate=1e30)
    with pytest.raises(NonFiniteError, match=r"At step \d+ of 20 the loss .*Lower the learning rates"):
        finetune(small_encoder(), dataset, wild, 0, 1)


def test_dropout_is_a_function_of_the_seed(dataset: Dataset) -> None:
    def trained(history: int) -> Trained:
        encoder = small_encoder()
        model: Any = encoder.backbone.model
        model.act1 = nn.Sequential(model.act1, nn.Dropout(0.5))
        torch.manual_seed(history)
        return finetune(encoder, dataset, SHORT, 0, 1)

    assert same_heads(trained(1), trained(2))
