"""The verbs about an index of images: embed, search, dedupe, outliers, label.

options → **index verbs** → cli. Heavy imports wait for their verb.
"""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from crosscontext.layers import Layer
    from crosscontext.settings import Settings

AnySettings = TypeVar("AnySettings", bound="Settings")
AnyResult = TypeVar("AnyResult", bound="Settings")


def embed(arguments: Sequence[str]) -> None:
    """Make an index of a folder of images, or bring it up to date."""
    from crosscontext.embedding import EmbedSettings
    from crosscontext.embedding import embed as run
    from crosscontext.listings import index_text

    summary = f"{embed.__doc__}\nRUN: the folder that pretrain wrote, or the file of an encoder."
    usage = "crosscontext embed RUN --data DIR --out INDEX [OPTIONS]"
    _do(arguments, usage, summary, EmbedSettings, ("run",), lambda *given: run(*given).card, index_text)


def search(arguments: Sequence[str]) -> None:
    """Find the images of an index that resemble a picture."""
    from crosscontext.listings import search_text
    from crosscontext.searching import SearchSettings
    from crosscontext.searching import search as run

    summary = f"{search.__doc__}\nINDEX: the folder that embed wrote. QUERY: an image, or a folder of them."
    usage = "crosscontext search INDEX QUERY... [OPTIONS]"
    _do(arguments, usage, summary, SearchSettings, ("index", "queries"), run, search_text)


def dedupe(arguments: Sequence[str]) -> None:
    """List groups of near-duplicates in an index; nothing is deleted."""
    from crosscontext.duplicates import DedupeSettings
    from crosscontext.duplicates import dedupe as run
    from crosscontext.listings import duplicates_text

    summary = f"{dedupe.__doc__}\nINDEX: the folder that embed wrote."
    usage = "crosscontext dedupe INDEX [OPTIONS]"
    _do(arguments, usage, summary, DedupeSettings, ("index",), run, duplicates_text)


def outliers(arguments: Sequence[str]) -> None:
    """List the images of an index that resemble the others least."""
    from crosscontext.listings import outliers_text
    from crosscontext.outlying import OutliersSettings
    from crosscontext.outlying import outliers as run

    summary = f"{outliers.__doc__}\nINDEX: the folder that embed wrote."
    usage = "crosscontext outliers INDEX [OPTIONS]"
    _do(arguments, usage, summary, OutliersSettings, ("index",), run, outliers_text)


def label(arguments: Sequence[str]) -> None:
    """Suggest labels for the images of an index from a few examples."""
    from crosscontext.labelling import LabelSettings
    from crosscontext.labelling import label as run
    from crosscontext.listings import suggestions_text

    summary = f"{label.__doc__}\nINDEX: the folder that embed wrote."
    usage = "crosscontext label INDEX --examples FILE [OPTIONS]"
    _do(arguments, usage, summary, LabelSettings, ("index",), run, suggestions_text)


def _do(
    arguments: Sequence[str],
    usage: str,
    summary: str,
    kind: type[AnySettings],
    names: Sequence[str],
    run: Callable[[AnySettings, Callable[[str], None]], AnyResult],
    text: Callable[[AnyResult], str],
) -> None:
    """Read a command line, run the verb, print what it found."""
    from crosscontext.commandline import Verb, answer, parse
    from crosscontext.layers import resolve

    flags = {"json": "Print the result as one JSON object, and nothing else."}
    verb = Verb(usage, summary, kind, flags)
    line = parse(arguments, verb)
    layers = (*_positional_layers(line.positionals, kind, names), *line.layers)
    if (reply := answer(verb, line.flags, layers)) is not None:
        print(reply)
        return
    _refuse_missing(usage, names, layers)
    result = run(resolve(kind, layers), _notify)
    print(result.model_dump_json(indent=1) if "json" in line.flags else text(result))


def _positional_layers(given: Sequence[str], kind: type[AnySettings], names: Sequence[str]) -> "list[Layer]":
    """Give positionals the names of settings, in order; the last one takes all the rest if it is a list.

    Raises:
        SettingsError: there are more than the verb takes.
    """
    from crosscontext.errors import SettingsError
    from crosscontext.fields import element, hints
    from crosscontext.layers import COMMAND_LINE, Layer

    values: dict[str, object] = dict(zip(names, given, strict=False))
    rest = given[len(names) - 1 :]
    if element(hints(kind)[names[-1]]) is not None:
        values |= {names[-1]: rest} if rest else {}
    elif len(rest) > 1:
        raise SettingsError(f"Unexpected argument '{rest[1]}'. Options begin with --; see --help.")
    return [Layer(COMMAND_LINE, {name: value}) for name, value in values.items()]


def _refuse_missing(usage: str, names: Sequence[str], layers: "Sequence[Layer]") -> None:
    """Ask for positionals that are required: all of them are.

    Raises:
        SettingsError: one is missing.
    """
    from crosscontext.errors import SettingsError

    words = usage.split()[2:]
    for word, name in zip(words, names, strict=False):
        if not any(name in layer.values for layer in layers):
            raise SettingsError(f"Missing {word.rstrip('.')}: {usage}.")


def _notify(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
