"""Options of the command line ↔ fields of settings: ``--method.momentum 0.99`` sets momentum of method.

arguments → **commandline** → layers. Values stay text here; validation turns them into what the field takes.
"""

import inspect
import re
import shutil
import textwrap
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

from crosscontext.complaints import spelled
from crosscontext.errors import SettingsError
from crosscontext.fields import NAME, alternatives, element, group, hint_at, hints
from crosscontext.layers import COMMAND_LINE, Layer, merge, resolve
from crosscontext.settings import Settings, dump_yaml, parse_yaml

COMMON_FLAGS: Mapping[str, str] = {
    "help": "Show this text and stop.",
    "print_config": "Print all settings as YAML and stop.",
}
"""What every verb takes besides its settings."""

_INDENT = 26
_WIDEST = 100


class Verb(NamedTuple):
    """What the command line knows of one verb."""

    usage: str
    summary: str
    """What it does, and what its positionals are; one paragraph a line."""

    kind: type[Settings]

    flags: Mapping[str, str] = {}
    """Options without a value that are no settings, with their meaning."""


class CommandLine(NamedTuple):
    """The arguments of one verb, taken apart."""

    positionals: tuple[str, ...]

    layers: tuple[Layer, ...]
    """One an option; the choice of a member comes before the fields of it."""

    flags: frozenset[str]


class Option(NamedTuple):
    """One setting that the command line can reach."""

    path: tuple[str, ...]
    hint: Any
    description: str
    default: object
    is_required: bool

    @property
    def name(self) -> str:
        """As it is typed."""
        return spelled(self.path, COMMAND_LINE)


def parse(arguments: Sequence[str], verb: Verb) -> CommandLine:
    """Take the arguments of a verb apart, in any order.

    ``--a.b-c value`` and ``--a.b-c=value`` set field b_c of a. A field of several values takes all up to the
    next option or ``--``; a true-or-false field needs none, and ``--a.no-b-c`` makes it false.

    Raises:
        SettingsError: an option lacks its value. An unknown option becomes a layer, which `resolve` refuses.
    """
    flags = {**verb.flags, **COMMON_FLAGS}
    positionals: list[str] = []
    overrides: list[tuple[tuple[str, ...], object]] = []
    given: set[str] = set()
    rest = deque(arguments)
    while rest:
        argument = "--help" if rest[0] == "-h" else rest[0]
        rest.popleft()
        if argument.removeprefix("--").replace("-", "_") in flags:
            given.add(argument.removeprefix("--").replace("-", "_"))
        elif _is_option(argument):
            overrides.append(_override(argument, rest, verb.kind))
        elif argument != "--":
            positionals.append(argument)
    overrides.sort(key=lambda override: len(override[0]))
    return CommandLine(
        tuple(positionals), tuple(_layer(*override) for override in overrides), frozenset(given)
    )


def options(
    kind: type[Settings], values: Mapping[str, object], prefix: tuple[str, ...] = ()
) -> Iterator[Option]:
    """List what can be set, of those members of open sets that the values or the defaults choose."""
    for key, hint in hints(kind).items():
        field, path, choices = kind.model_fields[key], (*prefix, key), group(hint)
        value = values.get(key, field.get_default(call_default_factory=True, validated_data={}))
        if choices is not None:
            value = choices.mapping(value)
        if key != NAME and (choices is None or "" not in choices.members):
            required = field.is_required() and key not in values
            yield Option(path, hint, field.description or "", value, required)
        member = choices.member(value) if choices is not None else None
        if member is not None:
            yield from options(member, value if isinstance(value, Mapping) else {}, path)


def answer(verb: Verb, given: frozenset[str], layers: Sequence[Layer]) -> str | None:
    """Write what --help or --print-config ask for; None where neither was given.

    Raises:
        SettingsError: the configuration was asked for and does not hold.
    """
    if "help" in given:
        return help_text(verb, layers)
    if "print_config" in given:
        return dump_yaml(resolve(verb.kind, layers)).rstrip("\n")
    return None


def help_text(verb: Verb, layers: Sequence[Layer]) -> str:
    """Describe a verb, with the options of those members of open sets that the layers choose."""
    kind = verb.kind
    width = min(shutil.get_terminal_size((80, 24)).columns, _WIDEST)
    values = merge(kind, layers)
    found = list(options(kind, values))
    lines = [f"usage: {verb.usage}", ""]
    for paragraph in verb.summary.splitlines():
        lines += textwrap.wrap(paragraph, width)
    lines += ["", "options"]
    for option in found:
        if len(option.path) == 1:
            lines += _entry(_signature(option), _describe(option), width)
    for flag, meaning in {**verb.flags, **COMMON_FLAGS}.items():
        lines += _entry(spelled((flag,), COMMAND_LINE), meaning, width)
    for key in dict.fromkeys(option.path[0] for option in found if len(option.path) > 1):
        lines += ["", *textwrap.wrap(_title(kind, key, values), width)]
        for option in found:
            if option.path[0] == key and len(option.path) > 1:
                lines += _entry(_signature(option), _describe(option), width)
    return "\n".join(lines)


def _is_option(argument: str) -> bool:
    return re.match("--[a-zA-Z]", argument) is not None


def _override(argument: str, rest: deque[str], kind: type[Settings]) -> tuple[tuple[str, ...], object]:
    """Read one option; its values are taken off the front of the rest."""
    name, has_value, value = argument.removeprefix("--").partition("=")
    path = tuple(name.replace("-", "_").split("."))
    positive = (*path[:-1], path[-1].removeprefix("no_"))
    hint = hint_at(kind, path)
    if hint is None and positive != path and is_flag(hint_at(kind, positive)):
        return positive, False
    if has_value:
        return path, _value([value], hint)
    if is_flag(hint):
        words = constants(hint)
        return path, words[rest.popleft()] if rest and rest[0] in words else True
    texts: list[str] = []
    takes_one = hint is not None and element(hint) is None
    while rest and not _is_option(rest[0]) and rest[0] != "--" and not (takes_one and texts):
        texts.append(rest.popleft())
    if takes_one and not texts:
        raise SettingsError(f"--{name} needs a value, {_metavar(hint, path[-1])}: add it after the option.")
    return path, _value(texts, hint)


def is_flag(hint: Any) -> bool:
    """Whether a field is true or false, so that its option takes no value."""
    return bool in alternatives(hint) and set(alternatives(hint)) <= {bool, NoneType}


def _value(texts: list[str], hint: Any) -> object:
    """Text that stands for a constant of the type becomes it: none, or the 20 of Literal[10, 20]."""
    inner = element(hint)
    if len(texts) == 1 and (inner is None or texts[0] in constants(hint)):
        return constants(hint).get(texts[0], texts[0])
    if len(texts) == 1 and texts[0].startswith("["):
        return parse_yaml(texts[0], f"{texts[0][:60]!r} on the command line")
    return [constants(inner).get(text, text) for text in texts]


def constants(hint: Any) -> dict[str, object]:
    """Words that stand for values of a type: none, true, or those that it lists."""
    found: dict[str, object] = {}
    for alternative in alternatives(hint):
        if alternative is NoneType:
            found["none"] = None
        elif alternative is bool:
            found |= {"true": True, "false": False}
        elif get_origin(alternative) is Literal:
            found |= {str(constant): constant for constant in get_args(alternative)}
    return found


def _layer(path: tuple[str, ...], value: object) -> Layer:
    for key in reversed(path[1:]):
        value = {key: value}
    return Layer(COMMAND_LINE, {path[0]: value})


def _entry(signature: str, description: str, width: int) -> list[str]:
    lines = textwrap.wrap(description, width - _INDENT) or [""]
    head = f"  {signature}"
    if len(head) > _INDENT - 2:
        return [head, *(" " * _INDENT + line for line in lines)]
    return [head.ljust(_INDENT) + lines[0], *(" " * _INDENT + line for line in lines[1:])]


def _signature(option: Option) -> str:
    if is_flag(option.hint):
        return (
            spelled((*option.path[:-1], f"no_{option.path[-1]}"), COMMAND_LINE)
            if option.default
            else option.name
        )
    return f"{option.name} {_metavar(option.hint, option.path[-1])}"


def _metavar(hint: Any, key: str) -> str:
    words = {int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH", NoneType: "none"}
    found = []
    for alternative in alternatives(hint):
        arguments = get_args(alternative)
        if get_origin(alternative) is Literal:
            found += [str(constant) for constant in arguments]
        elif element(alternative) is not None:
            fixed = [argument for argument in arguments if argument is not Ellipsis]
            repeated = [_metavar(argument, key) for argument in fixed]
            found.append(
                " ".join(repeated) + (" ..." if len(fixed) < len(arguments) or len(fixed) == 1 else "")
            )
        else:
            found.append(words.get(alternative, key.upper().replace("_", "-")))
    return "|".join(dict.fromkeys(found))


def _describe(option: Option) -> str:
    text = " ".join(option.description.split())
    if option.is_required:
        return f"{text} [required]"
    value = option.default.get(NAME) if isinstance(option.default, Mapping) else option.default
    if isinstance(value, list | tuple | frozenset):
        value = " ".join(str(getattr(item, NAME, item)) for item in value)
    if value is None or value is False or value == "":
        return text
    return f"{text} [{'on' if value is True else value}]"


def _title(kind: type[Settings], key: str, values: Mapping[str, object]) -> str:
    """Heading of the options below one field: the chosen member, and what else could be chosen."""
    choices = group(hints(kind)[key])
    description = " ".join((kind.model_fields[key].description or "").split())
    if choices is None or "" in choices.members:
        return f"{key}: {description}"
    value = choices.mapping(values.get(key, kind.model_fields[key].get_default(call_default_factory=True)))
    member = choices.member(value)
    name = next(name for name, found in choices.members.items() if found is member)
    others = ", ".join(other for other in choices.members if other != name)
    summary = (inspect.getdoc(member) or "").partition("\n")[0]
    return f"{key} {name}: {summary}" + (f" Others: {others}." if others else "")
