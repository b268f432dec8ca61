"""What a settings class says about its fields: types, open sets and their members, values or lists.

settings → **fields** → layers, complaints, commandline
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator

from crosscontext.settings import Settings

NAME = "name"
"""The field that tells the members of an open set apart."""


class Group(NamedTuple):
    """The settings classes that may stand in one field: the members of an open set, or a single class."""

    members: dict[str, type[Settings]]
    """By name; a class without a name field stands under the empty string."""

    from_text: Callable[[Any], Any] | None
    """Turns a plain string into the mapping that it abbreviates."""

    def mapping(self, value: object) -> object:
        """Spell a value out as a mapping where that is possible; the rest is for validation to refuse."""
        if isinstance(value, Settings):
            return _what_was_set(value)
        if isinstance(value, str) and self.from_text is not None:
            try:
                return self.from_text(value)
            except ValueError:
                return value
        return value

    def member(self, value: object) -> type[Settings] | None:
        """The class that a mapping is meant for, None where its name is unknown."""
        name = value.get(NAME) if isinstance(value, Mapping) else None
        return self.members.get("") or self.members.get(str(name))


class Place(NamedTuple):
    """One field somewhere below a settings class."""

    path: tuple[str, ...]
    owner: type[Settings]


@cache
def hints(kind: type[Settings]) -> dict[str, Any]:
    """Types of the fields, with the annotations that make an open set of a union."""
    found = get_type_hints(kind, include_extras=True)
    return {name: found[name] for name in kind.model_fields}


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself, without annotations."""
    if get_origin(hint) is Annotated:
        return alternatives(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return tuple(found for argument in get_args(hint) for found in alternatives(argument))
    return (hint,)


def group(hint: Any) -> Group | None:
    """The settings classes among the alternatives of a type, None where there are none."""
    classes = [
        found for found in alternatives(hint) if isinstance(found, type) and issubclass(found, Settings)
    ]
    if not classes:
        return None
    members = {name: found for found in classes for name in _names(found)}
    validators = (found.func for found in _annotations(hint) if isinstance(found, BeforeValidator))
    return Group(members, cast(Callable[[Any], Any] | None, next(validators, None)))


def element(hint: Any) -> Any:
    """Type of the first value in a field that takes several; None where it takes one."""
    for found in alternatives(hint):
        origin = get_origin(found)
        if isinstance(origin, type) and issubclass(origin, Sequence | frozenset):
            return get_args(found)[0]
    return None


def places(kind: type[Settings], prefix: tuple[str, ...] = ()) -> Iterator[Place]:
    """Every field that can be set, of all members of all open sets."""
    for name, hint in hints(kind).items():
        path = (*prefix, name)
        yield Place(path, kind)
        choices = group(hint)
        for member in choices.members.values() if choices else ():
            yield from places(member, path)


def hint_at(kind: type[Settings], path: tuple[str, ...]) -> Any:
    """Type of the field at a path, or None; in an open set, of the first member that has it."""
    return next((hints(place.owner)[path[-1]] for place in places(kind) if place.path == path), None)


def _names(kind: type[Settings]) -> tuple[str, ...]:
    hint = hints(kind).get(NAME)
    return get_args(hint) if get_origin(hint) is Literal else ("",)


def _annotations(hint: Any) -> Iterator[object]:
    if get_origin(hint) is Annotated:
        yield from hint.__metadata__
    if get_origin(hint) in (Annotated, Union, UnionType):
        for argument in get_args(hint):
            yield from _annotations(argument)


def _what_was_set(settings: Settings) -> dict[str, object]:
    """The fields that differ from their class, and the names of members."""
    return {
        key: _what_was_set(value) if isinstance(value, Settings) else value
        for key, value in settings
        if key in settings.model_fields_set or key == NAME
    }
