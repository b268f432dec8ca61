"""What was found out about a run → tables of plain text, which are Markdown too."""

from collections.abc import Callable, Sequence

from crosscontext.forecasting import PlanReport
from crosscontext.scaling import Forecast

_KINDS: tuple[tuple[str, Callable[[Forecast], str]], ...] = (
    ("batch", lambda each: f"{each.batch_size}"),
    ("step", lambda each: _milliseconds(each.step_seconds)),
    ("of it kernels", lambda each: _milliseconds(each.compute_seconds)),
    ("of it waiting", lambda each: _milliseconds(each.waiting_seconds)),
    ("images/s", lambda each: _number(each.images_per_second)),
    ("scaling efficiency", lambda each: _share(each.scaling_efficiency)),
    ("sent by each in a step", lambda each: _bytes(each.sent_bytes)),
    ("memory of each", lambda each: _bytes(sum(each.memory_bytes.values()) or None)),
    ("files read a second", lambda each: _bytes(each.read_bytes_per_second)),
    ("cores to decode, a machine", lambda each: _number(each.cores_to_decode)),
    ("checkpoint", lambda each: _bytes(each.checkpoint_bytes)),
    ("writing it", lambda each: _seconds(each.checkpoint_seconds)),
    ("whole run", lambda each: _hours(each.hours)),
)

_NONE = "–"
_KILO = 1000


def plan_text(report: PlanReport) -> str:
    """Lay the forecasts out, a column a number of processes; then messages, memory, origins of figures."""
    found = report.forecasts
    rows = [[label, *(write(each) for each in found)] for label, write in _KINDS]
    if any(each.cost is not None for each in found):
        rows.append(["cost", *(_number(each.cost) for each in found)])
    memory = next((each.memory_bytes for each in found if each.memory_bytes), {})
    for name in memory:
        rows.insert(
            _row_of(rows, "files read a second"),
            [f"– {name}", *(_bytes(each.memory_bytes.get(name)) for each in found)],
        )
    parts = [
        f"{report.run}\n{report.machine.title}, {report.precision}",
        _table(["processes", *(str(each.processes) for each in found)], rows),
        _table(
            ["processes", "what breaks first", "remedy"],
            [[str(each.processes), each.breaks_first, each.remedy or _NONE] for each in found],
        ),
    ]
    if report.traffic:
        sent = [
            [each.what, str(each.calls), f"{each.payload_bytes:,}", f"{each.sent_bytes:,.0f}"]
            for each in report.traffic
        ]
        total = sum(each.sent_bytes for each in report.traffic)
        sent.append(["all", "", "", f"{total:,.0f}"])
        head = [f"message of {report.traffic_of} processes", "calls a step", "bytes given", "bytes sent"]
        parts.append(_table(head, sent))
    if report.ring_bytes:
        widths = list(next(iter(report.ring_bytes.values())))
        ring = [
            [f"{slots:,}", *(_bytes(float(by_width[width])) for width in widths)]
            for slots, by_width in report.ring_bytes.items()
        ]
        parts.append(_table(["memory of K slots", *(f"D = {width}" for width in widths)], ring))
    parts.append(f"Forecast, not measured. {report.machine.origins()}.")
    return "\n\n".join(parts)


def _row_of(rows: Sequence[Sequence[str]], label: str) -> int:
    return next(number for number, row in enumerate(rows) if row[0] == label)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in lines
    )


def _number(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _share(value: float | None) -> str:
    return _NONE if value is None else f"{value:.0%}"


def _milliseconds(value: float | None) -> str:
    return _NONE if value is None else f"{_number(value * 1e3)} ms"


def _seconds(value: float | None) -> str:
    return _NONE if value is None else f"{_number(value)} s"


def _hours(value: float | None) -> str:
    return _NONE if value is None else f"{_number(value)} h"


def _bytes(value: float | None) -> str:
    """Write bytes with three digits and a decimal prefix."""
    if value is None:
        return _NONE
    for unit in ("B", "kB", "MB", "GB"):
        if value < 0.9995 * _KILO:
            return f"{value:.3g} {unit}"
        value /= _KILO
    return f"{value:.3g} TB"
