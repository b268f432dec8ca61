import json
from pathlib import Path

import numpy as np
import pytest

from crosscontext.errors import RunFolderError
from crosscontext.results import (
    Score,
    append_results,
    differences,
    digest,
    pack,
    read_results,
    shown,
    unpack,
)
from handmade import PROTOCOL, score


def test_the_fields_of_a_score_are_frozen() -> None:
    assert list(Score.model_fields) == [
        "task",
        "model",
        "split",
        "metric",
        "unit",
        "value",
        "low",
        "high",
        "n",
        "replicates",
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
        file.write(json.dumps(score().model_dump(mode="json") | {"value": "high"}) + "\n")
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


def test_differences_of_protocols_are_named_by_their_paths() -> None:
    one = {"task": {"name": "knn", "k": [10, 20]}, "image_size": 32, "seed": 0}
    other = {"task": {"name": "knn", "k": [10], "temperature": 0.1}, "image_size": 32, "seed": 1}
    assert differences(one, other) == {
        "task.k": ([10, 20], [10]),
        "task.temperature": ("absent", 0.1),
        "seed": (0, 1),
    }
    assert differences(one, one) == {}


def test_what_digests_tell_apart_differences_tell_apart() -> None:
    one, other = {"k": 1}, {"k": 1.0}
    assert digest(one) != digest(other)
    assert differences(one, other) == {"k": (1, 1.0)}


def test_replicates_come_back_to_the_last_bit() -> None:
    replicates = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert np.array_equal(unpack(pack(replicates)), replicates)


@pytest.mark.parametrize(("unit", "text"), [("share", "50.0 [25.0, 75.0]"), ("number", "0.5 [0.25, 0.75]")])
def test_a_share_is_shown_in_per_cent(unit: str, text: str) -> None:
    assert shown(score(unit=unit)) == text
