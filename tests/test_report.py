from datetime import UTC, datetime
from typing import Literal

from rich.console import Console

from crosscontext.report import score_table
from crosscontext.results import Score


def score(
    model: str, task: str, metric: str, value: float, unit: Literal["share", "number"] = "share"
) -> Score:
    return Score(
        task=task,
        model=model,
        split="test",
        metric=metric,
        unit=unit,
        value=value,
        low=value - 0.01,
        high=value + 0.02,
        n=100,
        replicates="",
        seed=0,
        checkpoint_digest="0",
        protocol={},
        protocol_digest="0",
        details={},
        versions={},
        seconds=1.0,
        created=datetime.now(UTC),
    )


def test_shares_stand_in_per_cent_numbers_as_they_are_with_the_encoder_last() -> None:
    scores = [
        score("encoder", "knn", "top1_k20", 0.612),
        score("encoder", "linear", "top1", 0.7),
        score("pixels", "knn", "top1_k20", 0.3),
        score("encoder", "health", "rankme", 49.73, "number"),
    ]
    console = Console(width=80)
    with console.capture() as captured:
        console.print(score_table(scores))
    lines = [line.split() for line in captured.get().splitlines() if line.strip()]
    assert lines[0] == ["pixels", "encoder"]
    assert lines[2] == ["knn", "top1_k20", "30.0", "[29.0,", "32.0]", "61.2", "[60.2,", "63.2]"]
    assert lines[3] == ["linear", "top1", "70.0", "[69.0,", "72.0]"]
    assert lines[4] == ["health", "rankme", "49.7", "[49.7,", "49.8]"]
