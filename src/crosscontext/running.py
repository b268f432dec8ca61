"""One verb from its settings: arguments, settings, function → **running** → what is printed."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from crosscontext.commandline import Verb, answer, parse
from crosscontext.errors import SettingsError
from crosscontext.fields import element, hints
from crosscontext.layers import COMMAND_LINE, Layer, resolve
from crosscontext.recipes import recipe_layers
from crosscontext.settings import Settings
from crosscontext.tracking import tell

AnySettings = TypeVar("AnySettings", bound=Settings)
AnyResult = TypeVar("AnyResult", bound=Settings)


class Request(NamedTuple):
    """What a verb was asked for."""

    verb: Verb

    layers: tuple[Layer, ...]
    """Of the settings: the recipe, then what the command line says."""

    flags: frozenset[str]

    recipe: str | None
    """As it was named."""

    @property
    def is_for_help(self) -> bool:
        """Whether only --help is to be answered, for which nothing need be there."""
        return "help" in self.flags

    def settle(self, kind: type[AnySettings]) -> AnySettings | None:
        """Resolve the settings, or print what --help or --print-config ask for.

        Args:
            kind: of the settings, as the verb has it.

        Returns:
            None where nothing else is to be done.

        Raises:
            SettingsError: the settings do not hold.
        """
        if (reply := answer(self.verb, self.flags, self.layers)) is not None:
            print(reply)
            return None
        return resolve(kind, self.layers)


def read(
    arguments: Sequence[str], verb: Verb, names: Sequence[str] = (), recipes: str | None = None
) -> Request:
    """Read the command line of a verb: positionals that stand for settings, perhaps a recipe, and options.

    Args:
        arguments: what follows the verb.
        verb: the first words of its usage are ``crosscontext VERB``, the next ones the positionals.
        names: settings that the positionals stand for, all required; the last one takes all the rest if it
            has several values.
        recipes: verb whose recipes the positional after them is one of; None: there is no such positional.

    Raises:
        SettingsError: a positional is missing, there are too many, or there is no such recipe.
    """
    line = parse(arguments, verb)
    given = deque(line.positionals)
    named: list[Layer] = []
    for name in names:
        if given:
            takes_all = name == names[-1] and element(hints(verb.kind)[name]) is not None
            value = [given.popleft() for _ in range(len(given))] if takes_all else given.popleft()
            named.append(Layer(COMMAND_LINE, {name: value}))
    recipe = given.popleft() if given and recipes is not None else None
    if given:
        raise SettingsError(f"Unexpected argument '{given[0]}'. Options begin with --; see --help.")
    of_recipe = recipe_layers(recipes, [recipe]) if recipes is not None and recipe is not None else []
    request = Request(verb, (*of_recipe, *named, *line.layers), line.flags, recipe)
    if not request.is_for_help:
        _refuse_missing(verb.usage, names, request.layers)
    return request


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
        usage: as of `read`.
        summary: for --help.
        kind: of the settings.
        names: as of `read`.
        run: receives the settings and what is told of the progress.
        text: words the result.
        recipes: as of `read`.

    Returns:
        The result; None where help or the configuration was printed instead.

    Raises:
        SettingsError: a positional is missing, or there are too many.
    """
    flags = {"json": "Print the result as one JSON object, and nothing else."}
    request = read(arguments, Verb(usage, summary, kind, flags), names, recipes)
    settings = request.settle(kind)
    if settings is None:
        return None
    result = run(settings, tell)
    print(result.model_dump_json(indent=1) if "json" in request.flags else text(result))
    return result


def _refuse_missing(usage: str, names: Sequence[str], layers: Sequence[Layer]) -> None:
    words = usage.split()[2:]
    for word, name in zip(words, names, strict=False):
        if not any(name in layer.values for layer in layers):
            raise SettingsError(f"Missing {word.rstrip('.')}: {usage}.")
