import pytest
import torch
from sklearn.metrics import top_k_accuracy_score

from crosscontext.tasks.accuracy import accuracies


def some_scores(num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(300) % num_classes
    scores = torch.randn(300, num_classes, generator=generator)
    return scores + 0.5 * torch.eye(num_classes)[classes], classes


def test_accuracies_agree_with_scikit_learn() -> None:
    scores, classes = some_scores(12)
    measured = {m.metric: m.value for m in accuracies(scores, classes, {})}
    assert measured.keys() == {"top1", "top5"}
    for k in (1, 5):
        expected = top_k_accuracy_score(classes.numpy(), scores.numpy(), k=k)
        assert measured[f"top{k}"] == pytest.approx(expected)


def test_five_answers_are_allowed_only_among_more_than_ten() -> None:
    assert [m.metric for m in accuracies(*some_scores(10), {}, "_1%")] == ["top1_1%"]
    assert [m.metric for m in accuracies(*some_scores(3), {"why": 1})] == ["top1"]
