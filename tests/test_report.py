from datetime import UTC, datetime

from rich.console import Console

from crosscontext.report import score_table
from crosscontext.results import Score


def score(model: str, task: str, metric: str, value: float) -> Score:
    return Score(
        task=task,
        model=model,
        split="test",
        metric=metric,
        value=value,
        low=value - 0.01,
        high=value + 0.02,
        n=100,
        seed=0,
        checkpoint_digest="0",
        protocol={},
        protocol_digest="0",
        details={},
        versions={},
        seconds=1.0,
        created=datetime.now(UTC),
    )


def test_scores_stand_in_per_cent_with_the_encoder_last() -> None:
    scores = [
        score("encoder", "knn", "top1_k20", 0.612),
        score("encoder", "linear", "top1", 0.7),
        score("pixels", "knn", "top1_k20", 0.3),
    ]
    console = Console(width=80)
    with console.capture() as captured:
        console.print(score_table(scores))
    lines = [line.split() for line in captured.get().splitlines() if line.strip()]
    assert lines[0] == ["pixels", "encoder"]
    assert lines[2] == ["knn", "top1_k20", "30.0", "[29.0,", "32.0]", "61.2", "[60.2,", "63.2]"]
    assert lines[3] == ["linear", "top1", "70.0", "[69.0,", "72.0]"]
