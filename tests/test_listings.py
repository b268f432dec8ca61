from pathlib import Path

from crosscontext.duplicates import Duplicate, Duplicates, Group
from crosscontext.labelling import Suggestion, Suggestions
from crosscontext.listings import duplicates_text, outliers_text, search_text, suggestions_text
from crosscontext.outlying import Outlier, Outliers
from crosscontext.searching import Hit, Hits, SearchResult

ROOT = Path("/pictures")


def test_a_search_is_a_line_an_image_and_names_cannot_move_the_cursor() -> None:
    hits = (Hit(path="a b.jpg", similarity=0.98765), Hit(path="\x1b[31m\n.jpg", similarity=-0.5))
    result = SearchResult(
        root=ROOT, results=(Hits(query="q.jpg", hits=hits),), skipped={}, missing=("a b.jpg",)
    )
    assert search_text(result).splitlines() == [
        "q.jpg",
        "   0.988  a b.jpg",
        "  -0.500  \\x1b[31m\\n.jpg",
        "1 of these images are no longer there (a b.jpg); embed again to drop them.",
    ]


def test_duplicates_are_told_by_groups() -> None:
    others = (
        Duplicate(path="b.jpg", similarity=1.0, identical=True),
        Duplicate(path="c.jpg", similarity=0.97, identical=False),
    )
    result = Duplicates(
        root=ROOT, threshold=0.95, measured=None, groups=(Group(first="a.jpg", others=others),), missing=()
    )
    assert duplicates_text(result).splitlines()[1:] == [
        "group 1",
        "           a.jpg",
        "   1.000 = b.jpg",
        "   0.970   c.jpg",
        "groups: 1; images that repeat the first one of their group: 2",
    ]


def test_outliers_are_told_with_their_nearest() -> None:
    outlier = Outlier(path="a.jpg", distance=0.75, nearest="b.jpg", similarity=0.5)
    result = Outliers(root=ROOT, k=10, median=0.125, outliers=(outlier,), missing=())
    first, second = outliers_text(result).splitlines()
    assert first.endswith("The median over all images is 0.125.")
    assert second == "   0.750  a.jpg  (nearest: b.jpg, similarity 0.500)"


def test_suggestions_are_counted_by_label() -> None:
    suggestion = Suggestion(
        path="a.jpg", label="cat", confidence=0.75, margin=0.5, nearest="b.jpg", similarity=0.9
    )
    result = Suggestions(
        root=ROOT, examples={"cat": 2, "dog": 3}, right=0.8, suggestions=(suggestion,), missing=()
    )
    _, _, cats, dogs = suggestions_text(result).splitlines()
    assert cats.split() == ["1", "2", "0.75", "cat"]
    assert dogs.split() == ["0", "3", "dog"]
