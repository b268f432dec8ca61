"""The strict base class of all settings, and their form as YAML.

Settings stand on top of the file that reads them. `fields.py` looks into them, `layers.py` puts them together
from defaults, recipe and command line.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from crosscontext.errors import SettingsError


class Settings(BaseModel):
    """Frozen, validated also where defaults apply, and closed: an unknown key is an error.

    The docstring under a field is its help text on the command line.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    ONE_OF: ClassVar[tuple[str, ...]] = ()
    """Fields that say the same in different ways: a layer that sets one of them replaces the others."""


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


BY_NAME = BeforeValidator(_named)
"""Lets a member of an open set be written as its name alone, with its defaults."""


def leaves(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Go through nested mappings, such as dumped settings.

    Yields:
        The keys that lead to a value, joined by dots, and the value.
    """
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def absolute(path: Path) -> Path:
    """Spell a path out, so that it is the same from every working directory.

    Raises:
        ValueError: it begins with ``~`` and a name that no user has.
    """
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{path.parts[0]!r} is nobody's home folder. Write the path out.") from error


AbsolutePath = Annotated[Path, AfterValidator(absolute)]
"""A path to read from: once validated, it is the same from every working directory."""


def load_yaml(path: Path) -> dict[str, object]:
    """Read a file of settings; an empty file has none.

    Raises:
        SettingsError: the file is missing, not YAML, not a mapping, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"Cannot read settings from '{path}': {cause}. Give a YAML file.") from error
    content = parse_yaml(text, f"'{path}'")
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"'{path}' holds {str(content)[:60]!r}; expected lines of 'key: value'.")
    return content


def parse_yaml(text: str, origin: str) -> object:
    """Read YAML made of mappings, lists and plain values: no tags of Python, no aliases.

    Args:
        text: to read.
        origin: of the text, as messages name it.

    Raises:
        SettingsError: the text is no such YAML.
    """
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except yaml.YAMLError as error:
        raise SettingsError(f"{origin}{_place(error)}. Mend the YAML there.") from error
    except Exception as error:  # a date that is none, or lists a thousand deep: the reader lets much through
        raise SettingsError(
            f"{origin} is no YAML of settings: {type(error).__name__}: {error}. Mend it."
        ) from error


def dump_yaml(settings: Settings) -> str:
    """Write all settings, defaults too, in a form that `load_yaml` and `resolve` turn into equal ones."""
    return yaml.dump(
        settings.model_dump(mode="json"), Dumper=_InlineListsDumper, sort_keys=False, allow_unicode=True
    )


def _place(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f", line {error.problem_mark.line + 1}: {error.problem}"
    return f": {error}".replace("\n", " ")


class _PlainLoader(yaml.SafeLoader):
    """Refuses what settings do not need: aliases, and keys that stand twice or are no text."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # ten lines of them can stand for a billion values
            event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs give it no types
            problem = f"the alias '*{event.anchor}'; write out what it stands for"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                problem = f"the key '{key.value}' stands twice in one mapping"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        mapping = super().construct_mapping(node, deep)
        for key in mapping:
            if not isinstance(key, str):
                problem = f"the key {key!r:.60} is no text; put it into quotes"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return mapping


class _InlineListsDumper(yaml.SafeDumper):
    """Writes a list of plain values on one line."""

    def represent_sequence(
        self, tag: str, sequence: Iterable[Any], flow_style: bool | None = None
    ) -> yaml.SequenceNode:
        values = list(sequence)
        plain = not any(isinstance(value, list | dict) for value in values)
        return super().represent_sequence(tag, values, flow_style=plain or flow_style)
