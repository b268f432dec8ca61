from pathlib import Path

import numpy as np
import pytest

from conftest import paint
from crosscontext.embedding import embed
from crosscontext.errors import DataError
from crosscontext.image_index import ImageIndex
from crosscontext.index_settings import ModelOfIndex
from crosscontext.labelled_examples import Examples, read_examples
from small_index import embedding, handmade_index, small_encoder

VECTORS = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]


def read(index: ImageIndex, path: Path) -> Examples:
    return read_examples(path, index, ModelOfIndex(index=index.folder, workers=1), print)


def table(folder: Path, text: str) -> Path:
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return folder / "labels.csv"


@pytest.fixture
def index(tmp_path: Path) -> ImageIndex:
    return handmade_index(tmp_path / "index", VECTORS, ["a/0.jpg", "a/1.jpg", "b, c.jpg"])


def test_a_table_names_images_of_the_index(index: ImageIndex, tmp_path: Path) -> None:
    text = '\ufefflabel,path,who\ncat,a/0.jpg,me\n,a/1.jpg,\n ant ,"b, c.jpg",you\ncat,a/0.jpg,me\n'
    found = read(index, table(tmp_path, text))
    assert found.class_names == ("ant", "cat")
    assert found.paths == ("a/0.jpg", "b, c.jpg")
    assert found.classes.tolist() == [1, 0]
    assert found.rows == {0, 2}
    np.testing.assert_array_equal(found.vectors, [VECTORS[0], VECTORS[2]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\na/0.jpg,cat\n", r"have the labels \['cat'\], and at least two"),
        ("path,label\n", r"have the labels \[\], and at least two"),
        ("path,label\na/0.jpg,cat\na/0.jpg,dog\n", r"a/0.jpg has two labels in .*, 'cat' and 'dog'"),
        ("path,label\na/0.jpg,cat\nzoo.jpg,dog\n", r"1 examples of .* 'zoo.jpg' \(line 3\)"),
        ("file,label\na/0.jpg,cat\n", "lacks the column path"),
        ("", "lacks the column path and label"),
    ],
)
def test_a_wrong_table_is_refused(index: ImageIndex, tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(index, table(tmp_path, text))


def test_a_table_that_is_missing_or_no_text_is_refused(index: ImageIndex, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot read examples from .*nowhere"):
        read(index, tmp_path / "nowhere.csv")
    (tmp_path / "latin.csv").write_bytes(b"path,label\n\xe4,b\n")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read(index, tmp_path / "latin.csv")


def test_examples_outside_the_index_are_embedded(tmp_path: Path) -> None:
    for number in range(4):
        paint(tmp_path / "pictures" / f"{number}.jpg", number, 0)
        paint(tmp_path / "others" / ("red" if number % 2 else "blue") / f"{number}.jpg", 50 + number, 0)
    run = small_encoder(tmp_path / "run")
    index = embed(embedding(run, tmp_path / "pictures", tmp_path / "index"))
    found = read(index, tmp_path / "others")
    assert found.class_names == ("blue", "red")
    assert found.classes.tolist() == [0, 0, 1, 1]
    assert found.rows == frozenset()
    assert found.vectors.any(axis=1).all()
    mixed = read(index, table(tmp_path, "path,label\n0.jpg,a\nothers/red/1.jpg,b\npictures/2.jpg,a\n"))
    assert mixed.rows == {0, 2}
    assert [Path(path).name for path in mixed.paths] == ["0.jpg", "2.jpg", "1.jpg"]
    np.testing.assert_allclose(mixed.vectors[2], found.vectors[2], atol=1e-5)


def test_a_folder_within_the_index_needs_no_model(tmp_path: Path) -> None:
    names = ["a/0.jpg", "b/1.jpg", "c.jpg"]
    for number, name in enumerate(names):
        paint(tmp_path / "pictures" / "mine" / name, number, 0)
    index = handmade_index(
        tmp_path / "i", VECTORS[:2], ["mine/a/0.jpg", "mine/b/1.jpg"], root=tmp_path / "pictures"
    )
    with pytest.raises(DataError, match="has no sub-folder a label"):
        read(index, tmp_path / "pictures" / "mine")
    (tmp_path / "pictures" / "mine" / "c.jpg").unlink()
    assert read(index, tmp_path / "pictures" / "mine").rows == {0, 1}
