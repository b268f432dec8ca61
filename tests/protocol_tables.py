"""The tables of docs/protocols.md out of the tasks' settings; python tests/protocol_tables.py writes."""

import inspect
from collections.abc import Iterator
from pathlib import Path

from crosscontext.evaluation import EvaluateSettings
from crosscontext.fields import NAME, Group, element, group, hints
from crosscontext.settings import Settings
from crosscontext.tasks import Task

PAGE = Path(__file__).parents[1] / "docs" / "protocols.md"
START, END = "<!-- tables: start -->\n", "<!-- tables: end -->\n"


def tasks() -> dict[str, type[Settings]]:
    """All tasks by name."""
    found = group(element(hints(EvaluateSettings)["tasks"]))
    assert found is not None
    return found.members


def tables() -> str:
    """One section a task: what it is, what it needs, and every setting of its protocol."""
    return "\n".join(_section(name, kind) for name, kind in tasks().items())


def written(page: str) -> str:
    """Put the tables between the markers of a page."""
    before, _, rest = page.partition(START)
    _, found, after = rest.partition(END)
    assert found, f"{PAGE} lacks the line {END}"
    return f"{before}{START}\n{tables()}\n{END}{after}"


def _section(name: str, kind: type[Settings]) -> str:
    assert issubclass(kind, Task)
    asks = {"none": "no annotation"}.get(kind.reads, kind.reads)
    needs = f"Reads {asks}; takes {'the network' if kind.takes_network else 'features'}"
    judged = "" if kind.learns else "; looks at the test images alone"
    rows = [f"| `{path}` | {default} | {meaning} |" for path, default, meaning in _rows(kind)]
    head = ["| setting | default | meaning |", "|---|---|---|"]
    about = (inspect.getdoc(kind) or "").strip()
    return "\n".join([f"### {name}", "", about, "", f"{needs}{judged}.", "", *head, *rows, ""])


def _rows(kind: type[Settings], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for name, hint in hints(kind).items():
        choices = group(hint)
        if choices is not None:
            yield from _members(f"{prefix}{name}", choices)
        elif name != NAME:
            field = kind.model_fields[name]
            default = field.get_default(call_default_factory=True, validated_data={})
            yield f"{prefix}{name}", _shown(default), _line(field.description)


def _members(path: str, choices: Group) -> Iterator[tuple[str, str, str]]:
    for member, kind in choices.members.items():
        if member:
            yield f"{path}: {member}", "", _line((inspect.getdoc(kind) or "").partition("\n\n")[0])
        yield from _rows(kind, f"{path}.")


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return " ".join(_shown(value) for value in default)
    return f"{default:g}" if isinstance(default, float) else str(default)


def _line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
