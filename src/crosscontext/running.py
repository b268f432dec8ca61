"""One verb from its settings: arguments, settings, function → **running** → what is printed."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from crosscontext.commandline import Verb, answer, parse
from crosscontext.errors import SettingsError
from crosscontext.fields import element, hints
from crosscontext.layers import COMMAND_LINE, Layer, resolve
from crosscontext.recipes import recipe_layers
from crosscontext.settings import Settings
from crosscontext.tracking import tell

AnySettings = TypeVar("AnySettings", bound=Settings)
AnyResult = TypeVar("AnyResult", bound=Settings)


def run_verb(
    arguments: Sequence[str],
    usage: str,
    summary: str,
    kind: type[AnySettings],
    names: Sequence[str],
    run: Callable[[AnySettings, Callable[[str], None]], AnyResult],
    text: Callable[[AnyResult], str],
    recipes: str | None = None,
) -> AnyResult | None:
    """Read a command line, run the verb, print what it found as text or JSON.

    Args:
        arguments: what follows the verb.
        usage: its first words are ``crosscontext VERB``, the next ones the positionals.
        summary: for --help.
        kind: of the settings.
        names: settings that the positionals stand for, all required, or none; the last one takes all the rest
            if it has several values.
        run: receives the settings and what is told of the progress.
        text: words the result.
        recipes: verb of whose recipes the first positional may be one.

    Returns:
        The result; None where help or the configuration was printed instead.

    Raises:
        SettingsError: a positional is missing, or there are too many.
    """
    flags = {"json": "Print the result as one JSON object, and nothing else."}
    verb = Verb(usage, summary, kind, flags)
    line = parse(arguments, verb)
    recipe = line.positionals[:1] if recipes is not None else ()
    below = recipe_layers(recipes, recipe) if recipes is not None else []
    layers = (*below, *_positional_layers(line.positionals[len(recipe) :], kind, names), *line.layers)
    if (reply := answer(verb, line.flags, layers)) is not None:
        print(reply)
        return None
    _refuse_missing(usage, names, layers)
    result = run(resolve(kind, layers), tell)
    print(result.model_dump_json(indent=1) if "json" in line.flags else text(result))
    return result


def _positional_layers(given: Sequence[str], kind: type[AnySettings], names: Sequence[str]) -> list[Layer]:
    """Give positionals the names of settings, in order."""
    values: dict[str, object] = dict(zip(names, given, strict=False))
    if names and element(hints(kind)[names[-1]]) is not None:
        rest = given[len(names) - 1 :]
        values |= {names[-1]: rest} if rest else {}
    elif len(given) > len(names):
        raise SettingsError(f"Unexpected argument '{given[len(names)]}'. Options begin with --; see --help.")
    return [Layer(COMMAND_LINE, {name: value}) for name, value in values.items()]


def _refuse_missing(usage: str, names: Sequence[str], layers: Sequence[Layer]) -> None:
    words = usage.split()[2:]
    for word, name in zip(words, names, strict=False):
        if not any(name in layer.values for layer in layers):
            raise SettingsError(f"Missing {word.rstrip('.')}: {usage}.")
