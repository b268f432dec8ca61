"""The strict base class of all settings, and their form as YAML.

Settings stand on top of the file that reads them. `fields.py` looks into them, `layers.py` puts them together
from defaults, recipe and command line.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict

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


AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
"""A path to read from: once validated, it is the same from every working directory."""


def load_yaml(path: Path) -> dict[str, object]:
    """Read a file of settings; an empty file has none.

    Raises:
        SettingsError: the file is missing, not YAML, not a mapping, or has a key twice.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeysLoader)
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"Cannot read settings from '{path}': {cause}. Give a YAML file.") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"'{path}'{_place(error)}. Mend the YAML there.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"'{path}' holds {str(content)[:60]!r}; expected lines of 'key: value'.")
    return content


def dump_yaml(settings: Settings) -> str:
    """Write all settings, defaults too, in a form that `load_yaml` and `resolve` turn into equal ones."""
    return yaml.dump(
        settings.model_dump(mode="json"), Dumper=_InlineListsDumper, sort_keys=False, allow_unicode=True
    )


def _place(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f", line {error.problem_mark.line + 1}: {error.problem}"
    return f": {error}".replace("\n", " ")


class _UniqueKeysLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping: the second would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                problem = f"the key '{key.value}' stands twice in one mapping"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _InlineListsDumper(yaml.SafeDumper):
    """Writes a list of plain values on one line."""

    def represent_sequence(
        self, tag: str, sequence: Iterable[Any], flow_style: bool | None = None
    ) -> yaml.SequenceNode:
        values = list(sequence)
        plain = not any(isinstance(value, list | dict) for value in values)
        return super().represent_sequence(tag, values, flow_style=plain or flow_style)
