"""What the doctor found → text for the console, 80 columns wide; paths and the command stay whole."""

import shlex
import textwrap
from collections.abc import Iterable, Iterator

from crosscontext.environment import Environment, Extra
from crosscontext.examination import Examination
from crosscontext.findings import Finding
from crosscontext.listings import printable
from crosscontext.proposal import Proposal
from crosscontext.scanning import Scan, Spread
from crosscontext.speed import Speed

_WIDTH = 80
_INDENT = 22
_CLASSES_SHOWN = 6
_SECONDS_A_MINUTE = _MINUTES_AN_HOUR = 60
_HOURS_A_DAY = 24
_MARKS = {"stop": "STOP", "warning": "warning", "note": "note"}


def examination_text(found: Examination) -> str:
    """Write a report: the machine, the images, the speed, what is wrong, and what to do now."""
    lines = ["machine", *_environment(found.environment)]
    if found.scan is not None:
        lines += ["", "images", *_scan(found.scan)]
    if found.decode_images_per_second is not None:
        lines += ["", "speed", *_speed(found.decode_images_per_second, found.speed)]
    if found.proposal is not None:
        lines += ["", "proposal", *_proposal(found.proposal)]
    if found.findings:
        lines += ["", "findings"]
    for finding in found.findings:
        lines += _finding(finding)
    lines += ["", *_verdict(found)]
    return "\n".join(lines)


def _environment(environment: Environment) -> Iterator[str]:
    machine = environment.machine
    packages = ("crosscontext", "python", "torch", "torchvision", "timm", "numpy", "pillow")
    yield from _row("software", ", ".join(f"{name} {machine[name]}" for name in packages))
    yield from _row("system", str(machine["platform"]))
    yield from _row(
        "processor",
        f"{environment.usable_cores} of {machine['cores']} cores usable, {environment.instructions}, "
        f"threads: {machine['threads']}",
    )
    yield from _row("GPUs", "; ".join(environment.gpus) or "none")
    yield from _row("training on", str(machine["device"]))
    yield from _row(
        "memory", f"{environment.memory_gigabytes} GB, free {environment.free_gigabytes} GB on the device"
    )
    yield from _row("free disk", f"{environment.disk_gigabytes} GB")
    if environment.variables:
        yield from _row(
            "variables", ", ".join(f"{name}={value}" for name, value in environment.variables.items())
        )
    here = [extra for extra in environment.extras if not extra.missing]
    missing = [extra for extra in environment.extras if extra.missing]
    if here:
        yield from _row("extras", _extras(here))
    if missing:
        yield from _row("extras not here", f'pip install "crosscontext[NAME]": {_extras(missing)}')


def _extras(extras: Iterable[Extra]) -> str:
    return ", ".join(f"{extra.name} ({extra.purpose})" for extra in extras)


def _scan(scan: Scan) -> Iterator[str]:
    of = "" if scan.scanned == scan.images else f" of {scan.images}, at equal distances"
    yield from _row("looked at", f"{scan.scanned}{of}; {scan.readable} can be read")
    yield from _row("formats", _counts(scan.formats))
    yield from _row("colour modes", _counts(scan.modes))
    for name, spread in (("shorter side", scan.short_side), ("longer side", scan.long_side)):
        if spread is not None:
            yield from _row(name, f"{_spread(spread)} px")
    if scan.aspect is not None:
        yield from _row("longer : shorter", _spread(scan.aspect))
    for name, groups in (("identical", scan.identical), ("nearly the same", scan.alike)):
        if groups:
            repeats = sum(len(group) - 1 for group in groups)
            yield from _row(name, f"{repeats} repeat another one, in {len(groups)} groups")
    if scan.classes:
        counts = sorted(scan.classes.values())
        names = [f"{printable(name)} {count}" for name, count in list(scan.classes.items())[:_CLASSES_SHOWN]]
        more = ", …" if len(scan.classes) > _CLASSES_SHOWN else ""
        yield from _row(
            "classes", f"{len(counts)} of {counts[0]} to {counts[-1]} images: {', '.join(names)}{more}"
        )


def _speed(decoded: float, speed: Speed | None) -> Iterator[str]:
    yield from _row("decoding", f"{decoded:.0f} images a second and core")
    if speed is not None:
        yield from _row("decoding, views", f"{speed.load_images_per_second:.0f} images a second and core")
        yield from _row(
            "networks",
            f"{speed.step_images_per_second:.3g} images a second, tried in batches of {speed.batch}",
        )


def _proposal(proposal: Proposal) -> Iterator[str]:
    yield from _row("recipe", proposal.recipe)
    for choice in proposal.choices:
        yield from _row(choice.setting, f"{choice.value}: {choice.reason}")
    length = [] if proposal.passes is None else [f"{proposal.passes:g} passes over the set"]
    if proposal.hours is not None:
        length.append(_duration(proposal.hours))
    if proposal.gigabytes is not None:
        length.append(f"{proposal.gigabytes:.1f} GB of memory")
    yield from _row("takes", ", ".join(length) or "not tried")


def _finding(finding: Finding) -> Iterator[str]:
    yield from textwrap.wrap(
        f"{_MARKS[finding.severity]}: {finding.what}",
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_on_hyphens=False,
    )
    yield from (f"      {printable(example)}" for example in finding.examples)
    yield from textwrap.wrap(
        f"→ {finding.remedy}",
        _WIDTH,
        initial_indent="    ",
        subsequent_indent="      ",
        break_on_hyphens=False,
    )


def _verdict(found: Examination) -> Iterator[str]:
    if not found.ready:
        yield "These images are not fit for a training yet: see STOP above."
    elif found.proposal is None:
        yield "The machine is set up. `crosscontext doctor --data DIR` looks at your images."
    else:
        yield "A training can begin:"
        yield from _command(found.proposal.command)


def _command(command: str) -> Iterator[str]:
    """Break a command before its options, where the line gets too long."""
    line = "    "
    parts: list[list[str]] = []
    for word in shlex.split(command):
        if word.startswith("--") or not parts:
            parts.append([])
        parts[-1].append(word)
    for part in (shlex.join(words) for words in parts):
        if line.strip() and len(line) + len(part) > _WIDTH - 2:
            yield f"{line}\\"
            line = "        "
        line += f"{part} "
    yield line.rstrip()


def _row(name: str, text: str) -> Iterator[str]:
    head = f"  {name}".ljust(_INDENT)
    yield from textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=head,
        subsequent_indent=" " * _INDENT,
        break_on_hyphens=False,
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _spread(spread: Spread) -> str:
    return (
        f"{spread.least:g} to {spread.most:g}, median {spread.median:g}, nine of ten {spread.low:g} to "
        f"{spread.high:g}"
    )


def _duration(hours: float) -> str:
    minutes = hours * _MINUTES_AN_HOUR
    if minutes < _MINUTES_AN_HOUR:
        return f"about {max(minutes, 1):.0f} min"
    return f"about {hours:.1f} h" if hours < 2 * _HOURS_A_DAY else f"about {hours / _HOURS_A_DAY:.1f} days"
