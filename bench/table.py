"""Results → one table in README.md, and the conditions under which each part of it was measured."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.harness import HERE, RESULTS, Row
from crosscontext.run_folder import write_atomically

README = HERE / "README.md"
TABLE_START, TABLE_END = "<!-- table: written by python -m bench -->", "<!-- end of table -->"


def write_table(readme: Path = README, folder: Path = RESULTS) -> None:
    """Put the table of all results between the markers of a README; the prose around it stays.

    Raises:
        ValueError: a marker is missing.
    """
    written = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    results = [result for result in written if result["rows"]]
    before, start, rest = readme.read_text().partition(TABLE_START)
    _, end, after = rest.partition(TABLE_END)
    if not start or not end:
        raise ValueError(f"{readme} lacks the line {TABLE_START} or {TABLE_END}. Put both back.")
    text = f"{before}{start}\n\n{table(results)}\n{end}{after}"
    write_atomically(readme, lambda file: file.write(text.encode()))


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Write results as a Markdown table, and the conditions of each below it."""
    if not results:
        return "Nothing has been measured yet.\n"
    lines = ["| claim | ours | peer | ratio | limit | of limit | note |", "|---|---|---|---|---|---|---|"]
    origins = []
    for result in results:
        rows = [Row(**row) for row in result["rows"]]
        lines += [_line(row) for row in rows]
        commands = ", ".join(dict.fromkeys(f"`{row.command}`" for row in rows))
        said = conditions(result["machine"])
        origins.append(f"- {commands}, {result['form']} form, {result['created'][:10]}: {said}")
    return "\n".join([*lines, "", *origins]) + "\n"


def conditions(machine: Mapping[str, Any]) -> str:
    """Say in one line what `describe` found."""
    cores = f"{machine['cores']} × {machine['processor']}, {machine['threads']} threads"
    busy = "unknown" if machine["busy"] is None else f"{machine['busy']:.0%}"
    return f"{cores}, PyTorch {machine['torch']}, {busy} of the cores busy before the start"


def _line(row: Row) -> str:
    peer = f"{row.peer_name}: {_cell(row.peer, row.unit)}" if row.peer_name else ""
    ratio = "" if row.ratio is None else f"**{significant(row.ratio)} ×**"
    limit = "" if row.limit is None else _cell(row.limit, row.unit)
    fraction = "" if row.fraction is None else f"{row.fraction:.1%}"
    cells = (row.claim, _cell(row.ours, row.unit), peer, ratio, limit, fraction, row.note)
    return f"| {' | '.join(cells)} |"


def _cell(value: float | None, unit: str) -> str:
    return "not reached" if value is None else f"{significant(value)} {unit}"


def significant(value: float) -> str:
    """Write a number with three significant digits, without an exponent."""
    rounded = f"{value:.2e}"
    digits = max(0, 2 - int(rounded.partition("e")[2]))
    return f"{float(rounded):.{digits}f}"
