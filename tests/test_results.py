import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import JsonValue

from crosscontext.errors import RunFolderError
from crosscontext.results import Score, append_results, bootstrap_interval, digest, read_results

PROTOCOL: dict[str, JsonValue] = {"task": {"name": "knn", "k": [20]}, "train": {"images": 10, "digest": "ab"}}


def score(value: float = 0.5, model: str = "encoder") -> Score:
    return Score(
        task="knn",
        model=model,
        split="test",
        metric="top1_k20",
        value=value,
        low=0.25,
        high=0.75,
        n=100,
        seed=0,
        checkpoint_digest="0123456789abcdef",
        protocol=PROTOCOL,
        protocol_digest=digest(PROTOCOL),
        details={},
        versions={"torch": "2"},
        seconds=1.5,
        created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


def test_the_fields_of_a_score_are_frozen() -> None:
    assert list(Score.model_fields) == [
        "task",
        "model",
        "split",
        "metric",
        "value",
        "low",
        "high",
        "n",
        "seed",
        "checkpoint_digest",
        "protocol",
        "protocol_digest",
        "details",
        "versions",
        "seconds",
        "created",
    ]


def test_scores_come_back_from_the_file_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_results(path, [score(0.1), score(1 / 3)])
    append_results(path, [score(0.7, model="pixels")])
    assert read_results(path) == ([score(0.1), score(1 / 3), score(0.7, model="pixels")], [])


def test_a_line_is_plain_json_with_the_unit_interval_as_values(tmp_path: Path) -> None:
    append_results(tmp_path / "results.jsonl", [score()])
    (line,) = (tmp_path / "results.jsonl").read_text().splitlines()
    content = json.loads(line)
    assert content["value"] == 0.5
    assert content["created"] == "2026-01-02T03:04:05Z"
    assert content["protocol"] == PROTOCOL


@pytest.mark.parametrize("kept", [1, 40, -3])
def test_a_torn_last_line_costs_itself_alone_and_is_reported(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "results.jsonl"
    append_results(path, [score(0.1), score(0.2)])
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:kept])
    assert read_results(path) == ([score(0.1)], [2])
    append_results(path, [score(0.3)])
    assert read_results(path) == ([score(0.1), score(0.3)], [2])


def test_a_last_line_without_its_newline_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_results(path, [score(0.1)])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    append_results(path, [score(0.2)])
    assert read_results(path) == ([score(0.1), score(0.2)], [])


def test_json_that_is_no_score_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_results(path, [score()])
    with path.open("a") as file:
        file.write(json.dumps(score().model_dump(mode="json") | {"value": 50}) + "\n")
    with pytest.raises(RunFolderError, match=r"Line 2 of .* is no score .*value"):
        read_results(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"results\.jsonl cannot be read: No such file"):
        read_results(tmp_path / "results.jsonl")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="could not be added"):
        append_results(tmp_path / "nowhere" / "results.jsonl", [score()])


def test_a_digest_depends_on_the_content_and_not_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": {"c": "é", "d": [1.5, None]}}) == digest(
        {"b": {"d": [1.5, None], "c": "é"}, "a": 1}
    )
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest({}) == "44136fa355b3678a"  # of the text {}


def test_the_bootstrap_agrees_with_plain_resampling() -> None:
    right = torch.arange(400) % 5 == 0
    low, high = bootstrap_interval(right, seed=0)
    generator = np.random.default_rng(1)
    means = [right.numpy()[generator.integers(0, 400, 400)].mean() for _ in range(4000)]
    assert (low, high) == pytest.approx(np.quantile(means, [0.025, 0.975]).tolist(), abs=0.008)


def test_the_interval_covers_the_truth_about_19_times_in_20() -> None:
    generator = torch.Generator().manual_seed(0)
    intervals = [bootstrap_interval(torch.rand(500, generator=generator) < 0.7, seed) for seed in range(300)]
    covered = sum(low <= 0.7 <= high for low, high in intervals)
    assert 0.91 * 300 <= covered <= 0.98 * 300


def test_the_interval_is_a_function_of_its_seed() -> None:
    right = torch.arange(100) % 3 == 0
    assert bootstrap_interval(right, seed=5) == bootstrap_interval(right, seed=5)


def test_without_errors_the_interval_is_a_point() -> None:
    assert bootstrap_interval(torch.ones(10, dtype=torch.bool), seed=0) == (1, 1)
