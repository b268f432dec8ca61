import csv
import io
import json

import pytest
from rich.console import Console

from crosscontext.comparison import Comparison, Estimate, Row
from crosscontext.tables import comparison_text, score_table
from handmade import PROTOCOL, score


def test_shares_stand_in_per_cent_numbers_as_they_are_with_the_encoder_last() -> None:
    scores = [
        score(0.612, low=0.602, high=0.632),
        score(0.7, task="linear", metric="top1", low=0.69, high=0.72),
        score(0.3, model="pixels", low=0.29, high=0.32),
        score(49.73, task="health", metric="rankme", unit="number", low=49.72, high=49.75),
    ]
    console = Console(width=80)
    with console.capture() as captured:
        console.print(score_table(scores))
    lines = [line.split() for line in captured.get().splitlines() if line.strip()]
    assert lines[0] == ["pixels", "encoder"]
    assert lines[2] == ["knn", "top1_k20", "30.0", "[29.0,", "32.0]", "61.2", "[60.2,", "63.2]"]
    assert lines[3] == ["linear", "top1", "70.0", "[69.0,", "72.0]"]
    assert lines[4] == ["health", "rankme", "49.7", "[49.7,", "49.8]"]


def test_a_task_asked_for_with_two_settings_has_two_rows() -> None:
    one, other = PROTOCOL | {"task": "one"}, PROTOCOL | {"task": "other"}
    scores = [score(0.1, one), score(0.2, other), score(0.3, one, model="pixels")]
    console = Console(width=80)
    with console.capture() as captured:
        console.print(score_table(scores))
    rows = [line.split() for line in captured.get().splitlines() if "knn" in line]
    assert [[word for word in row if word in ("10.0", "20.0", "30.0")] for row in rows] == [
        ["30.0", "10.0"],
        ["20.0"],
    ]


def over_seeds(value: float, half: float, seeds: int = 3) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, over="seeds", seeds=seeds)


def over_images(value: float, low: float | None, high: float | None) -> Estimate:
    return Estimate(value=value, low=low, high=high, over="images", seeds=1)


@pytest.fixture
def comparison() -> Comparison:
    rows = (
        Row(
            task="knn",
            metric="top1_k20",
            conditions="seed 0",
            unit="share",
            protocol_digest="ab",
            protocol={"seed": 0},
            cells={
                "a": over_seeds(0.53, 0.012),
                "b|c": over_images(0.5, 0.49, 0.51),
                "pixels": over_images(0.3, 0.29, 0.31),
            },
            differences={"b|c": over_images(-0.03, -0.05, -0.01), "pixels": over_seeds(-0.23, 0.004)},
        ),
        Row(
            task="health",
            metric="rankme",
            conditions="",
            unit="number",
            protocol_digest="cd",
            protocol={},
            cells={"a": over_seeds(49.73, 1.5, 2), "b|c": over_images(30.0, 29.0, 31.0)},
            differences={"b|c": over_images(-19.73, None, None)},
        ),
    )
    return Comparison(
        labels=("a", "b|c", "pixels"), baseline="a", rows=rows, notes=("something is left out",)
    )


def test_markdown_has_a_table_of_values_and_one_of_differences(comparison: Comparison) -> None:
    values, title, differences, legend = comparison_text(comparison, "markdown").split("\n\n")
    assert [[cell.strip() for cell in line.split(" | ")] for line in values.splitlines()[2:]] == [
        ["| knn top1_k20, seed 0", "53.0 ± 1.2 (3)", "50.0 [49.0, 51.0]", "30.0 [29.0, 31.0] |"],
        ["| health rankme", "49.7 ± 1.5 (2)", "30 [29, 31]", "|"],
    ]
    assert title == "Differences from a:"
    assert [[cell.strip() for cell in line.split(" | ")] for line in differences.splitlines()[2:]] == [
        ["| knn top1_k20, seed 0", "-3.0 [-5.0, -1.0]", "-23.0 ± 0.4 (3) |"],
        ["| health rankme", "-19.7", "|"],
    ]
    assert "95 %" in legend


def test_columns_of_markdown_stand_below_each_other_and_bars_in_labels_are_escaped(
    comparison: Comparison,
) -> None:
    lines = comparison_text(comparison, "markdown").split("\n\n")[0].splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "b\\|c" in lines[0]
    assert set(lines[1]) == set("|-: ")


def test_csv_has_a_line_a_cell_with_its_difference_in_full_precision(comparison: Comparison) -> None:
    lines = list(csv.DictReader(io.StringIO(comparison_text(comparison, "csv"))))
    assert [(line["metric"], line["label"]) for line in lines] == [
        ("top1_k20", "a"),
        ("top1_k20", "b|c"),
        ("top1_k20", "pixels"),
        ("rankme", "a"),
        ("rankme", "b|c"),
    ]
    first, second = lines[:2]
    assert (first["value"], first["over"], first["seeds"], first["difference_value"]) == (
        "0.53",
        "seeds",
        "3",
        "",
    )
    assert (second["baseline"], second["difference_low"], second["difference_over"]) == (
        "a",
        "-0.05",
        "images",
    )
    assert lines[4]["difference_low"] == ""


def test_json_is_the_whole_comparison(comparison: Comparison) -> None:
    text = comparison_text(comparison, "json")
    assert Comparison.model_validate_json(text) == comparison
    assert json.loads(text)["notes"] == ["something is left out"]
