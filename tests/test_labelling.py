import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crosscontext.errors import RunFolderError
from crosscontext.labelling import LabelSettings, Suggestions, explanation, label
from small_index import handmade_index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index of two crowds of ten, and one image between them; the first two of each crowd are examples."""
    generator = np.random.default_rng(0)
    rows = generator.normal(0, 0.05, (21, 2))
    rows[:10] += [1, 0]
    rows[10:20] += [0, 1]
    rows[20] = [1, 1]
    names = [f"{'east' if i < 10 else 'north'}{i:02}.jpg" for i in range(20)] + ["between.jpg"]
    handmade_index(tmp_path / "index", [[float(value) for value in row] for row in rows], names)
    lines = "".join(f"{names[i]},{'E' if i < 10 else 'N'}\n" for i in (0, 1, 10, 11))
    (tmp_path / "labels.csv").write_text(f"path,label\n{lines}")
    return tmp_path


def suggest(folder: Path, **changes: Any) -> Suggestions:
    usual = {"index": folder / "index", "examples": folder / "labels.csv"}
    return label(LabelSettings.model_validate(usual | changes))


def test_images_get_the_label_of_the_examples_that_they_resemble(folder: Path) -> None:
    found = suggest(folder)
    of = {each.path: each for each in found.suggestions}
    assert len(of) == 17  # all but the examples
    assert all(
        each.label == ("E" if path.startswith("east") else "N")
        for path, each in of.items()
        if path != "between.jpg"
    )
    assert min(of, key=lambda path: of[path].margin) == "between.jpg"
    assert of["between.jpg"].confidence < 0.9 < of["east02.jpg"].confidence <= 1
    assert of["east02.jpg"].nearest in ("east00.jpg", "east01.jpg")
    assert (found.examples, found.right) == ({"E": 2, "N": 2}, 1.0)
    assert "100% of the cases" in explanation(found)


def test_suggestions_stand_by_label_the_surest_first(folder: Path) -> None:
    found = suggest(folder).suggestions
    keys = [(each.label, -each.confidence) for each in found]
    assert keys == sorted(keys)


def test_votes_are_those_of_a_loop(folder: Path) -> None:
    found = suggest(folder, k=3, temperature=0.5)
    from crosscontext.image_index import open_index

    index = open_index(folder / "index")
    unit = index.vectors / np.linalg.norm(index.vectors, axis=1, keepdims=True)
    examples = {0: "E", 1: "E", 10: "N", 11: "N"}
    for each in found.suggestions:
        cosines = {row: float(unit[index.rows[each.path]] @ unit[row]) for row in examples}
        nearest = sorted(cosines, key=lambda row: -cosines[row])[:3]
        votes = {"E": 0.0, "N": 0.0}
        for row in nearest:
            votes[examples[row]] += np.exp(cosines[row] / 0.5)
        first, second = sorted(votes.values(), reverse=True)
        assert votes[each.label] == first
        assert each.confidence == pytest.approx(first / (first + second), abs=1e-5)
        assert each.margin == pytest.approx((first - second) / (first + second), abs=1e-5)
        assert each.similarity == pytest.approx(cosines[nearest[0]], abs=1e-5)


def test_wrong_examples_are_seen_in_how_many_the_others_find(folder: Path) -> None:
    (folder / "labels.csv").write_text(
        "path,label\neast00.jpg,E\nnorth10.jpg,N\nnorth11.jpg,E\neast01.jpg,N\n"
    )
    assert suggest(folder, k=1).right == 0


def test_the_table_is_written_and_serves_as_examples_again(folder: Path) -> None:
    found = suggest(folder, out=folder / "out.csv")
    with (folder / "out.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["path"] for line in lines] == [each.path for each in found.suggestions]
    assert list(lines[0]) == ["path", "label", "confidence", "margin", "nearest", "similarity"]
    again = suggest(folder, examples=folder / "out.csv")
    assert {each.path for each in again.suggestions} == {
        "east00.jpg",
        "east01.jpg",
        "north10.jpg",
        "north11.jpg",
    }


def test_the_gallery_has_a_part_a_label(folder: Path) -> None:
    suggest(folder, gallery=folder / "page.html")
    page = (folder / "page.html").read_text()
    assert page.count("<section ") == 2
    assert page.count("<li") == 17


def test_places_that_cannot_be_written_are_refused_first(folder: Path) -> None:
    for changes in (
        {"out": folder},
        {"out": folder / "no" / "out.csv"},
        {"gallery": folder / "no" / "page.html"},
    ):
        with pytest.raises(RunFolderError, match="cannot be written"):
            suggest(folder, examples=folder / "nowhere.csv", **changes)
