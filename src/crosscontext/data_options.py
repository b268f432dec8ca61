"""A data set as a user would write it: settings → **options** of the command line."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from crosscontext.complaints import spelled
from crosscontext.datasets import DatasetSettings
from crosscontext.layers import COMMAND_LINE


def data_words(data: DatasetSettings) -> list[str]:
    """Write a data set as options: in its short form if that means the same."""
    for text in _short_forms(data):
        try:
            if TypeAdapter[DatasetSettings](DatasetSettings).validate_python(text) == data:
                return ["--data", text]
        except ValidationError:
            continue
    words = ["--data.name", data.name]
    for key, value in data.model_dump(mode="json", exclude_defaults=True, exclude={"name"}).items():
        option = spelled(("data", key), COMMAND_LINE)
        if isinstance(value, bool):
            words.append(option if value else spelled(("data", f"no_{key}"), COMMAND_LINE))
        elif isinstance(value, list):
            words += [option, *map(str, value)]
        else:
            words.append(f"{option}={value}")
    return words


def _short_forms(data: DatasetSettings) -> Iterator[str]:
    values = data.model_dump(mode="json")
    yield from (str(values[key]) for key in ("path", "dataset", "name") if key in values)
    shards = values.get("shards", [])
    yield from shards[:1]
    yield from (str(Path(shard).parent) for shard in shards[:1])
    if "images" in values:
        yield str(Path(values["images"]).parent)
