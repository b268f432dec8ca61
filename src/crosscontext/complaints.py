"""Validation errors → sentences: what is wrong with which value, where it stands, what would be right.

layers → **complaints** → the lines that the command line prints
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from crosscontext.fields import NAME, element, group, hints, places
from crosscontext.layers import COMMAND_LINE, Layer
from crosscontext.settings import Settings

Steps = tuple[str | int, ...]

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "at least {min_length} values",
    "too_long": "at most {max_length} values",
    "literal_error": "{expected}",
}


def complaints(kind: type[Settings], error: ValidationError, layers: Sequence[Layer]) -> list[str]:
    """Word each problem of a validation in one line.

    Args:
        kind: the class that was validated.
        error: what pydantic found.
        layers: the layers that the values came from, to say where a value stands.
    """
    problems: dict[Steps, list[_Problem]] = {}
    for details in error.errors(include_url=False):
        steps, owner = _locate(kind, details["loc"])
        found = _Problem(kind, owner, steps, _origin(steps, layers), details)
        problems.setdefault(steps, []).append(found)
    return [_sentence(found) for steps, found in problems.items() if not _follows(steps, problems)]


def nearest(word: str, candidates: Sequence[str]) -> str:
    """A clause with the candidate that looks most like the word; empty where none does."""
    close = get_close_matches(word, candidates, n=1, cutoff=0.6)
    return f": did you mean '{close[0]}'?" if close else ""


def spelled(steps: Steps, origin: str) -> str:
    """A setting as a user writes it: an option on the command line, dotted keys elsewhere."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")
    return f"--{text.replace('_', '-')}" if origin == COMMAND_LINE else text


class _Problem(NamedTuple):
    kind: type[Settings]
    owner: type[Settings]
    """The class that has, or lacks, the last key of the steps."""
    steps: Steps
    origin: str
    details: ErrorDetails

    @property
    def name(self) -> str:
        return spelled(self.steps, self.origin)

    @property
    def where(self) -> str:
        return "" if self.origin in ("", COMMAND_LINE) else f" in {self.origin}"

    @property
    def meaning(self) -> str:
        field = self.owner.model_fields.get(str(self.steps[-1])) if self.steps else None
        text = " ".join((field.description or "").split()) if field else ""
        return f" ({text.removesuffix('.')})" if text else ""

    @property
    def expected(self) -> str:
        template = _EXPECTED.get(self.details["type"])
        if template is None:
            return self.details["msg"].removeprefix("Input should be ")
        return template.format(**self.details.get("ctx", {}))


def _sentence(found: Sequence[_Problem]) -> str:
    first = found[0]
    context = first.details.get("ctx", {})
    match first.details["type"]:
        case "extra_forbidden":
            return _unknown_key(first)
        case "missing":
            option = spelled(first.steps, COMMAND_LINE)
            return f"Missing {option}{first.meaning}. Give it, or '{spelled(first.steps, '')}:' in a recipe."
        case "union_tag_invalid":
            members = context["expected_tags"].replace("'", "").split(", ")
            hint = nearest(context["tag"], members) or "."
            return (
                f"Unknown {first.name} '{context['tag']}'{first.where}; there are {', '.join(members)}{hint}"
            )
        case "union_tag_not_found":
            return f"{first.name}{first.where} lacks '{NAME}:', which says what member is meant."
        case "value_error":
            message = first.details["msg"].removeprefix("Value error, ")
            return f"{first.name}{first.where}: {message}" if first.steps else message
    expected = " or ".join(dict.fromkeys(problem.expected for problem in found))
    value = repr(first.details["input"])[:80]
    return f"{first.name} is {value}{first.where}; expected {expected}{first.meaning}."


def _follows(steps: Steps, problems: Mapping[Steps, Sequence[_Problem]]) -> bool:
    """Whether values are too few only because some of them are wrong, which is said of these."""
    inside = any(other[: len(steps)] == steps != other for other in problems)
    return inside and all(problem.details["type"] == "too_short" for problem in problems[steps])


def _unknown_key(problem: _Problem) -> str:
    steps, origin = problem.steps, problem.origin
    name = problem.name if origin == COMMAND_LINE else f"'{problem.name}'"
    start = f"Unknown {'option' if origin == COMMAND_LINE else 'key'} {name}{problem.where}"
    everywhere = [place.path for place in places(problem.kind)]
    if steps in everywhere:
        return f"{start}; it belongs to another {spelled(steps[:-1], '')}."
    siblings = [(*steps[:-1], key) for key in problem.owner.model_fields]
    meant = _same_key(steps, everywhere, 1.0) or _same_key(steps, siblings) or _same_key(steps, everywhere)
    if meant:
        return f"{start}: did you mean {' or '.join(repr(spelled(path, origin)) for path in meant[:3])}?"
    return f"{start}; there are {', '.join(spelled(path, origin) for path in siblings)}."


def _same_key(steps: Steps, paths: Sequence[Steps], cutoff: float = 0.6) -> list[Steps]:
    """Those of the paths whose last key is the one most like the last of the steps."""
    keys = {str(path[-1]) for path in paths}
    close = get_close_matches(str(steps[-1]), sorted(keys), n=1, cutoff=cutoff)
    return [path for path in dict.fromkeys(paths) if path[-1] in close]


def _origin(steps: Steps, layers: Sequence[Layer]) -> str:
    """Of the layers that hold most of the way to the value, the topmost one."""
    depths = [_depth(steps, layer.values) for layer in layers]
    best = max(depths, default=0)
    return next((layers[i].origin for i in reversed(range(len(layers))) if depths[i] == best > 0), "")


def _depth(steps: Steps, values: object) -> int:
    if not steps or not isinstance(values, Mapping) or steps[0] not in values:
        return 0
    return 1 + _depth(steps[1:], values[steps[0]])


def _locate(kind: type[Settings], location: tuple[str | int, ...]) -> tuple[Steps, type[Settings]]:
    """Strip a location of the names of members and types that pydantic mixes into it."""
    steps: list[str | int] = []
    owner, hint = kind, None
    inside: type[Settings] | None = kind
    for step in location:
        choices = group(hint)
        inside = inside or (choices.members.get("") if choices else None)
        if inside is not None:
            steps.append(step)
            owner, hint, inside = inside, hints(inside).get(str(step)), None
        elif choices is not None and step in choices.members:
            inside = choices.members[str(step)]
        elif isinstance(step, int):
            steps.append(step)
            hint = element(hint)
    return tuple(steps), owner
