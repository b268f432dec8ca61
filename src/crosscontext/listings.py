"""What was found in an index → lines of text for the console, one image a line.

So `grep`, `sort` and `cut` work on them.
"""

from collections.abc import Sequence

from crosscontext import duplicates, labelling, outlying
from crosscontext.duplicates import Duplicates
from crosscontext.image_index import IndexCard
from crosscontext.labelling import Suggestions
from crosscontext.outlying import Outliers
from crosscontext.searching import SearchResult

_NAMED_AT_ONCE = 3


def index_text(card: IndexCard) -> str:
    """Say what an index holds."""
    skipped = f"; {len(card.skipped)} unreadable images are left out" if card.skipped else ""
    return f"{card.images} vectors of {card.width} numbers in {', '.join(card.files.values())}{skipped}"


def search_text(result: SearchResult) -> str:
    """Similarity and path of what was found, below each query."""
    lines = []
    for hits in result.results:
        lines.append(printable(hits.query))
        lines += [f"  {hit.similarity:6.3f}  {printable(hit.path)}" for hit in hits.hits]
    return "\n".join([*lines, *_gone(result.missing)])


def duplicates_text(result: Duplicates) -> str:
    """The groups: the largest file first, then the others with their similarity to it; = is equal content."""
    lines = [duplicates.explanation(result)]
    for number, group in enumerate(result.groups, 1):
        lines += [f"group {number}", f"           {printable(group.first)}"]
        lines += [
            f"  {other.similarity:6.3f} {'=' if other.identical else ' '} {printable(other.path)}"
            for other in group.others
        ]
    others = sum(len(group.others) for group in result.groups)
    lines.append(f"groups: {len(result.groups)}; images that repeat the first one of their group: {others}")
    return "\n".join([*lines, *_gone(result.missing)])


def outliers_text(result: Outliers) -> str:
    """Distance and path, the most distant one first, and the most similar other image."""
    lines = [
        f"  {found.distance:6.3f}  {printable(found.path)}  (nearest: {printable(found.nearest)}, "
        f"similarity {found.similarity:.3f})"
        for found in result.outliers
    ]
    return "\n".join([outlying.explanation(result), *lines, *_gone(result.missing)])


def suggestions_text(result: Suggestions) -> str:
    """How often each label is suggested; the suggestions themselves are in the CSV file and in the JSON."""
    lines = [labelling.explanation(result), "  suggested  examples  median confidence  label"]
    for name, number in result.examples.items():
        found = [suggestion.confidence for suggestion in result.suggestions if suggestion.label == name]
        middle = f"{sorted(found)[len(found) // 2]:.2f}" if found else ""
        lines.append(f"  {len(found):9}  {number:8}  {middle:>17}  {printable(name)}")
    return "\n".join([*lines, *_gone(result.missing)])


def _gone(missing: Sequence[str]) -> list[str]:
    if not missing:
        return []
    named = ", ".join(printable(path) for path in missing[:_NAMED_AT_ONCE])
    return [f"{len(missing)} of these images are no longer there ({named}); embed again to drop them."]


def printable(name: str) -> str:
    """Spell out characters of a file name that would move the cursor or colour the screen."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
