import shutil
from pathlib import Path

import pytest

from conftest import paint
from crosscontext.embedding import embed
from crosscontext.errors import DataError, ImageIndexError, RunFolderError
from crosscontext.image_index import ImageIndex
from crosscontext.searching import SearchResult, SearchSettings, search
from small_index import embedding, small_encoder


@pytest.fixture
def index(tmp_path: Path) -> ImageIndex:
    for number in range(12):
        name, hue = (("red", 0), ("blue", 2))[number % 2]
        paint(tmp_path / "pictures" / name / f"{number:02}.jpg", number, hue)
    run = small_encoder(tmp_path / "run")
    return embed(embedding(run, tmp_path / "pictures", tmp_path / "index"))


def find(index: ImageIndex, *queries: Path, **changes: object) -> SearchResult:
    usual = {"index": index.folder, "queries": queries, "threads": 1, "workers": 1}
    return search(SearchSettings.model_validate(usual | changes))


def paths(found: SearchResult) -> list[list[str]]:
    return [[hit.path for hit in result.hits] for result in found.results]


def test_a_copy_finds_its_original_and_the_most_similar_come_first(index: ImageIndex, tmp_path: Path) -> None:
    copy = tmp_path / "copy.jpg"
    shutil.copy(index.file(3), copy)
    (result,) = find(index, copy, k=5).results
    assert result.query == str(copy)
    assert result.hits[0].path == index.images[3].path
    assert result.hits[0].similarity == pytest.approx(1, abs=1e-6)
    similarities = [hit.similarity for hit in result.hits]
    assert len(similarities) == 5
    assert similarities == sorted(similarities, reverse=True)


def test_a_picture_from_outside_is_embedded_like_those_of_the_index(
    index: ImageIndex, tmp_path: Path
) -> None:
    original = index.file(0)
    picture = tmp_path / "again.png"
    from PIL import Image

    with Image.open(original) as image:
        image.save(picture)  # other bytes, the same pixels
    (result,) = find(index, picture, k=1).results
    assert result.hits[0].path == index.images[0].path
    assert result.hits[0].similarity == pytest.approx(1, abs=1e-5)


def test_an_image_of_the_index_does_not_find_itself(index: ImageIndex) -> None:
    (result,) = find(index, index.file(3), k=99).results
    assert {hit.path for hit in result.hits} == {image.path for image in index.images} - {
        index.images[3].path
    }


def test_a_folder_is_many_queries(index: ImageIndex) -> None:
    found = find(index, index.card.root / "red", k=2)
    assert [Path(result.query).name for result in found.results] == [f"{n:02}.jpg" for n in range(0, 12, 2)]
    assert all(len(result.hits) == 2 for result in found.results)


def test_removed_images_are_named(index: ImageIndex, tmp_path: Path) -> None:
    query = tmp_path / "copy.jpg"
    shutil.copy(index.file(3), query)
    index.file(3).unlink()
    found = find(index, query, k=2, gallery=tmp_path / "found.html")
    assert found.missing == (index.images[3].path,)
    assert "cannot be shown" in (tmp_path / "found.html").read_text()


def test_the_gallery_shows_the_query_and_what_was_found(index: ImageIndex, tmp_path: Path) -> None:
    find(index, index.file(0), k=4, gallery=tmp_path / "found.html")
    page = (tmp_path / "found.html").read_text()
    assert page.count("<img ") == 5
    assert page.count('class="marked"') == 1


def test_a_graph_finds_the_same(index: ImageIndex) -> None:
    pytest.importorskip("usearch")
    exact = find(index, index.card.root, k=3)
    found = find(index, index.card.root, k=3, approximate=True)
    assert paths(found) == paths(exact)
    assert list(index.folder.glob("vectors-*.usearch"))


def test_what_cannot_work_is_said(index: ImageIndex, tmp_path: Path) -> None:
    query = index.file(0)
    new = tmp_path / "new.jpg"
    paint(new, 77, 1)
    with pytest.raises(DataError, match="There is no image"):
        find(index, tmp_path / "nowhere.jpg")
    with pytest.raises(ImageIndexError, match="is not the model of the index"):
        find(index, new, run=small_encoder(tmp_path / "other", seed=5))
    with pytest.raises(RunFolderError, match=r"there is no folder .*nowhere; make it"):
        find(index, query, gallery=tmp_path / "nowhere" / "found.html")
    with pytest.raises(RunFolderError, match="it is a folder"):
        find(index, query, gallery=tmp_path)
    with pytest.raises(ImageIndexError, match="There is no index"):
        search(SearchSettings(index=tmp_path / "nowhere", queries=(query,)))
