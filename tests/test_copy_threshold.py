from pathlib import Path

import pytest
import torch
from PIL import Image

from conftest import paint
from crosscontext import copy_threshold
from crosscontext.copy_threshold import measure_threshold
from crosscontext.duplicates import DedupeSettings, dedupe, explanation
from crosscontext.embedding import embed
from crosscontext.image_index import ImageIndex
from small_index import embedding, small_encoder

best = copy_threshold._best


@pytest.fixture
def index(tmp_path: Path) -> ImageIndex:
    """Thirty pictures; two of them are there twice, as another file of lower quality."""
    for number in range(30):
        paint(tmp_path / "pictures" / f"{number:02}.jpg", number, number % 3, side=64)
    for number in (4, 5):
        with Image.open(tmp_path / "pictures" / f"{number:02}.jpg") as image:
            image.save(tmp_path / "pictures" / f"again{number:02}.jpg", quality=70)
    run = small_encoder(tmp_path / "run")
    return embed(embedding(run, tmp_path / "pictures", tmp_path / "index"))


def test_where_copies_and_others_lie_apart_the_threshold_is_the_lowest_copy() -> None:
    found = best(torch.tensor([0.95, 0.9, 0.99]), torch.tensor([0.3, 0.5, 0.2, 0.4]))
    assert found.similarity == pytest.approx(0.9)
    assert (found.found, found.mistaken, found.images) == (1, 0, 4)


def test_true_duplicates_among_the_others_do_not_move_the_threshold() -> None:
    copies = torch.tensor([0.95, 0.9, 0.99])
    found = best(copies, torch.tensor([0.3, 0.5, 0.999, 1.0]))
    assert found.similarity == pytest.approx(0.9)
    assert (found.found, found.mistaken) == (1, 0.5)


def test_where_they_overlap_the_threshold_gives_some_copies_up() -> None:
    found = best(torch.tensor([0.2, 0.8, 0.9]), torch.tensor([0.5, 0.6, 0.1]))
    assert found.similarity == pytest.approx(0.8)
    assert found.found == pytest.approx(2 / 3)
    assert found.mistaken == 0


def test_the_measured_threshold_finds_most_copies(index: ImageIndex) -> None:
    settings = DedupeSettings(index=index.folder, workers=1, threads=1)
    found = measure_threshold(index, settings, print)
    assert found == measure_threshold(index, settings, print)
    assert 0 < found.similarity < 1
    assert found.images == 32
    assert found.found > found.mistaken


def test_duplicates_are_found_with_the_measured_threshold(index: ImageIndex) -> None:
    found = dedupe(DedupeSettings(index=index.folder, workers=1, threads=1))
    together = [{group.first, *(other.path for other in group.others)} for group in found.groups]
    for number in (4, 5):
        assert any({f"{number:02}.jpg", f"again{number:02}.jpg"} <= group for group in together)
    assert "Measured on 32 images" in explanation(found)
