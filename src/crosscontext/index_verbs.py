"""The verbs about an index of images: embed, search, dedupe, outliers, label.

options → **index verbs** → cli. Heavy imports wait for their verb.
"""

from collections.abc import Sequence


def embed(arguments: Sequence[str]) -> None:
    """Make an index of a folder of images, or bring it up to date."""
    from crosscontext.embedding import EmbedSettings
    from crosscontext.embedding import embed as run
    from crosscontext.listings import index_text
    from crosscontext.running import run_verb

    summary = f"{embed.__doc__}\nRUN: the folder that pretrain wrote, or the file of an encoder."
    usage = "crosscontext embed RUN --data DIR --out INDEX [OPTIONS]"
    run_verb(arguments, usage, summary, EmbedSettings, ("run",), lambda *given: run(*given).card, index_text)


def search(arguments: Sequence[str]) -> None:
    """Find the images of an index that resemble a picture."""
    from crosscontext.listings import search_text
    from crosscontext.running import run_verb
    from crosscontext.searching import SearchSettings
    from crosscontext.searching import search as run

    summary = f"{search.__doc__}\nINDEX: the folder that embed wrote. QUERY: an image, or a folder of them."
    usage = "crosscontext search INDEX QUERY... [OPTIONS]"
    run_verb(arguments, usage, summary, SearchSettings, ("index", "queries"), run, search_text)


def dedupe(arguments: Sequence[str]) -> None:
    """List groups of near-duplicates in an index; nothing is deleted."""
    from crosscontext.duplicates import DedupeSettings
    from crosscontext.duplicates import dedupe as run
    from crosscontext.listings import duplicates_text
    from crosscontext.running import run_verb

    summary = f"{dedupe.__doc__}\nINDEX: the folder that embed wrote."
    usage = "crosscontext dedupe INDEX [OPTIONS]"
    run_verb(arguments, usage, summary, DedupeSettings, ("index",), run, duplicates_text)


def outliers(arguments: Sequence[str]) -> None:
    """List the images of an index that resemble the others least."""
    from crosscontext.listings import outliers_text
    from crosscontext.outlying import OutliersSettings
    from crosscontext.outlying import outliers as run
    from crosscontext.running import run_verb

    summary = f"{outliers.__doc__}\nINDEX: the folder that embed wrote."
    usage = "crosscontext outliers INDEX [OPTIONS]"
    run_verb(arguments, usage, summary, OutliersSettings, ("index",), run, outliers_text)


def label(arguments: Sequence[str]) -> None:
    """Suggest labels for the images of an index from a few examples."""
    from crosscontext.labelling import LabelSettings
    from crosscontext.labelling import label as run
    from crosscontext.listings import suggestions_text
    from crosscontext.running import run_verb

    summary = f"{label.__doc__}\nINDEX: the folder that embed wrote."
    usage = "crosscontext label INDEX --examples FILE [OPTIONS]"
    run_verb(arguments, usage, summary, LabelSettings, ("index",), run, suggestions_text)
