"""Settings from several places: defaults < recipe < command line.

mappings → **layers** → one frozen settings object, or a list of complaints
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from crosscontext.errors import SettingsError
from crosscontext.fields import NAME, group, hints
from crosscontext.settings import Settings

COMMAND_LINE = "the command line"
"""Origin of the layers that options make."""

AnySettings = TypeVar("AnySettings", bound=Settings)


class Layer(NamedTuple):
    """Values from one place; they win over those of the layers below."""

    origin: str
    """Where a user finds them, e.g. the path of a recipe."""

    values: Mapping[str, object]
    """Nested like the settings."""


def resolve(kind: type[AnySettings], layers: Sequence[Layer]) -> AnySettings:
    """Put settings together: defaults, then each layer over the one before.

    A layer may name the member of an open set by a plain string, set single fields of the member below it,
    or pick another member, whereupon the fields of the former one are dropped.

    Raises:
        SettingsError: a key is unknown or a value does not fit; one line a problem, each with its origin.
    """
    try:
        return kind.model_validate(merge(kind, layers))
    except ValidationError as error:
        from crosscontext.complaints import complaints

        raise SettingsError("\n".join(complaints(kind, error, layers))) from error


def merge(kind: type[Settings], layers: Sequence[Layer]) -> dict[str, object]:
    """Lay the values over each other, unchecked; fields that no layer mentions are absent.

    Of the fields that say the same, those from below are dropped; two from one origin both stay, and are for
    the stage to refuse.
    """
    merged: dict[str, object] = {}
    for layer in layers:
        beside = {key for other in layers if other.origin == layer.origin for key in other.values}
        if any(layer.values.get(key) is not None for key in kind.ONE_OF):
            merged = {key: merged[key] for key in merged if key not in kind.ONE_OF or key in beside}
        merged = _overlay(kind, merged, layer.values)
    return merged


def changes(before: Settings, after: Settings) -> list[str]:
    """Name the fields, by their dotted paths, in which two objects differ."""
    found = []
    for key, old in before:
        new = getattr(after, key)
        if isinstance(old, Settings) and type(new) is type(old):
            found += [f"{key}.{inner}" for inner in changes(old, new)]
        elif old != new:
            found.append(key)
    return found


def _overlay(
    kind: type[Settings], below: Mapping[str, object], above: Mapping[str, object]
) -> dict[str, object]:
    known = {key: _overlay_field(kind, key, below, above[key]) for key in above if key in kind.model_fields}
    return {**below, **above, **known}


def _overlay_field(kind: type[Settings], key: str, below: Mapping[str, object], above: object) -> object:
    choices = group(hints(kind)[key])
    if choices is None:
        old = below.get(key)
        return {**old, **above} if isinstance(old, Mapping) and isinstance(above, Mapping) else above
    new = choices.mapping(above)
    if not isinstance(new, Mapping):
        return new
    field = kind.model_fields[key]
    old = choices.mapping(
        below[key] if key in below else field.get_default(call_default_factory=True, validated_data={})
    )
    if not isinstance(old, Mapping) or new.get(NAME, old.get(NAME)) != old.get(NAME):
        old = {}
    member = choices.member({**old, **new})
    return {**old, **new} if member is None else _overlay(member, old, new)
