"""What is wrong, or worth to know, with what to do about it: scan, environment, proposal → **findings**."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

from crosscontext.environment import Environment
from crosscontext.loading import MAX_UNREADABLE
from crosscontext.memory import SMALLEST
from crosscontext.proposal import SMALL, Proposal
from crosscontext.scanning import Scan
from crosscontext.settings import Settings
from crosscontext.speed import Speed

FEW: Final = 10 * SMALLEST
"""Images below which even the smallest memory, 256 slots, is more than a tenth of the set: too much of what
an image is compared with is then the image itself, as it was a moment ago."""

EXAMPLES: Final = 5
"""Paths that a finding names."""

_MANY_REPEATED: Final = 0.1
_MANY_ODD: Final = 0.01
_UNBALANCED: Final = 10  # times the images of the smallest class
_FEW_OF_A_CLASS: Final = 5
_LEAST_GIGABYTES: Final = 2.0
_FROM_WEIGHTS: Final = (
    "start from a network that is trained already: --backbone resnet18 --backbone.width 1 --backbone.stem "
    "large --backbone.weights FILE (of a ResNet-18, or what you name there, as torchvision and timm have it, "
    ".safetensors or PyTorch; `crosscontext convert` reads those of others)"
)

Severity = Literal["stop", "warning", "note"]
_ORDER: Final[tuple[Severity, ...]] = ("stop", "warning", "note")


class Finding(Settings):
    """One thing that was found."""

    name: str
    """Of its kind, e.g. unreadable: the same in all versions."""

    severity: Severity
    """stop: a training cannot go on with it; warning: it costs quality or time; note: worth to know."""

    what: str

    count: int | None
    """Images that it concerns; None where it is not about images."""

    examples: tuple[str, ...]
    """Names of some of them."""

    remedy: str


def by_weight(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Put the worst first; those of one severity stay in their order."""
    return tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.severity)))


def about_images(scan: Scan, tiny: int) -> Iterator[Finding]:
    """Judge what the images are like."""
    yield from _about_reading(scan)
    yield from _about_size(scan)
    yield from _about_repeats(scan)
    yield from _about_looks(scan, tiny)
    yield from _about_classes(scan.classes)
    if scan.scanned < scan.images:
        yield _finding(
            "sampled",
            "note",
            f"{scan.scanned} of {scan.images} images were looked at, at equal distances; of the copies among "
            "them only those are found whose original was looked at too.",
            (),
            "--limit looks at more.",
        )


def _about_reading(scan: Scan) -> Iterator[Finding]:
    if scan.unreadable:
        too_many = len(scan.unreadable) > MAX_UNREADABLE * scan.scanned
        yield _finding(
            "unreadable",
            "stop" if too_many else "warning",
            f"{len(scan.unreadable)} of {scan.scanned} images cannot be read; training "
            + (f"stops at more than {MAX_UNREADABLE:.0%}." if too_many else "would replace them by others."),
            [f"{each.path}: {each.cause}" for each in scan.unreadable],
            "Mend, replace or remove them.",
            len(scan.unreadable),
        )


def _about_size(scan: Scan) -> Iterator[Finding]:
    left = round((scan.readable - scan.repeated) * scan.images / scan.scanned)
    if left < 2:
        yield _finding(
            "too_few",
            "stop",
            f"{left} different images can be read; training needs at least 2.",
            (),
            "Add images.",
        )
    elif left < FEW:
        yield _finding(
            "too_few",
            "warning",
            f"{left} different images are too few to train a network from nothing: below {FEW} even the "
            f"smallest memory, {SMALLEST} slots, is more than a tenth of the set.",
            (),
            f"Add images, or {_FROM_WEIGHTS}. To go on from there with your images works for small sets "
            "(arXiv 2109.01721).",
        )
    elif left < SMALL:
        yield _finding(
            "small",
            "note",
            f"{left} different images are a small set: a network that has seen more is often the better "
            "start, unless yours look like nothing that others have trained on.",
            (),
            f"Where such a network is at hand, {_FROM_WEIGHTS}.",
        )


def _about_repeats(scan: Scan) -> Iterator[Finding]:
    for name, groups, how, remedy in (
        ("identical", scan.identical, "are the same files as others", "Keep one of each group."),
        (
            "alike",
            scan.alike,
            "are nearly the same as others (size, compression, brightness or a video's next frame)",
            "Look at the groups (--gallery FILE.html) and keep one of each; where images resemble each other "
            "by nature, as X-rays do, groups are no mistake.",
        ),
    ):
        count = sum(len(group) - 1 for group in groups)
        if count:
            yield _finding(
                name,
                "warning" if count > _MANY_REPEATED * scan.readable else "note",
                f"{count} images {how}, in {len(groups)} groups. Each image is trained to differ from the "
                "others, also from its copies; and copies of test images spoil scores.",
                [" = ".join(group[:3]) + (" …" if len(group) > 3 else "") for group in groups],
                remedy,
                count,
            )


def _about_looks(scan: Scan, tiny: int) -> Iterator[Finding]:
    by_nature = 2 * len(scan.tiny) > scan.readable  # the set is one of small images
    kinds: tuple[tuple[str, Sequence[str], Severity | None, str, str], ...] = (
        (
            "dark",
            scan.dark,
            "warning",
            "have more than 8 bits a value, but use less than a quarter of the range: training sees them "
            "nearly black.",
            "Stretch them beforehand: a 12-bit sensor in a 16-bit file needs a factor of 16.",
        ),
        ("blank", scan.blank, None, "show one colour and nothing else.", "Remove them."),
        (
            "tiny",
            scan.tiny,
            "note" if by_nature else None,
            f"are smaller than {tiny} px on a side and would be enlarged.",
            "Nothing, if all images that the encoder is for are as small."
            if by_nature
            else "Remove them, unless they are what you want to recognise.",
        ),
        (
            "elongated",
            scan.elongated,
            "note",
            "are more than four times as long as wide: views show a small part of them.",
            "Cut them into pieces, if what they show fits into these.",
        ),
        (
            "animated",
            scan.animated,
            "note",
            "have several frames or pages; the first one is used.",
            "Save the others as files of their own, if they differ.",
        ),
        (
            "deep",
            scan.deep,
            "note",
            "have more than 8 bits a value; training sees 8, of the full range of the type.",
            "Where what matters lies in a part of the range, stretch that beforehand.",
        ),
    )
    for name, paths, severity, what, remedy in kinds:
        if paths:
            usual: Severity = "warning" if len(paths) > _MANY_ODD * scan.readable else "note"
            yield _finding(name, severity or usual, f"{len(paths)} images {what}", paths, remedy, len(paths))


def _about_classes(classes: dict[str, int]) -> Iterator[Finding]:
    if not classes:
        return
    smallest, largest = (pick(classes, key=lambda name: classes[name]) for pick in (min, max))
    if classes[largest] >= _UNBALANCED * classes[smallest] or classes[smallest] < _FEW_OF_A_CLASS:
        yield _finding(
            "unbalanced",
            "note",
            f"The classes are unequal: {largest!r} has {classes[largest]} images, {smallest!r} has "
            f"{classes[smallest]}. Training does not look at classes, but it sees the rare ones seldom, and "
            "scores of few images mean little.",
            [f"{name}: {count}" for name, count in sorted(classes.items(), key=lambda item: item[1])],
            "Add images of the rare classes, or read scores class by class.",
        )


def about_machine(environment: Environment) -> Iterator[Finding]:
    """Judge what the machine is like."""
    cores, threads = environment.usable_cores, int(environment.machine["threads"])
    if not environment.gpus and shutil.which("nvidia-smi"):
        yield _finding(
            "gpu_unused",
            "warning",
            "There is an NVIDIA driver, but PyTorch finds no GPU.",
            (),
            "Install a PyTorch that was built for its version of CUDA, and look at CUDA_VISIBLE_DEVICES.",
        )
    if threads > cores:
        yield _finding(
            "threads",
            "warning",
            f"PyTorch would use {threads} threads on {cores} cores, which then wait for each other.",
            (),
            f"Set --threads {cores}.",
        )
    elif threads < cores and environment.machine["device"] == "cpu":
        yield _finding(
            "threads",
            "note",
            f"PyTorch uses {threads} of {cores} cores"
            + (", as OMP_NUM_THREADS says." if "OMP_NUM_THREADS" in environment.variables else "."),
            (),
            f"If they are free, --threads {cores} uses them all.",
        )
    for name, amount, where in (
        ("memory", environment.free_gigabytes, "memory is free"),
        ("disk", environment.disk_gigabytes, "of the disk of the run folder is free"),
    ):
        if amount < _LEAST_GIGABYTES:
            yield _finding(name, "warning", f"Only {amount:.1f} GB {where}.", (), "Make room.")


def about_proposal(
    proposal: Proposal, speed: Speed | None, environment: Environment, hours: float
) -> Iterator[Finding]:
    """Judge whether the proposed training can be done here."""
    if proposal.hours is None or proposal.recipe_hours is None or speed is None:
        return
    if proposal.recipe_hours > hours:
        yield _finding(
            "slow",
            "warning",
            f"The recipe as it is would take {proposal.recipe_hours:.0f} hours here; a smaller training is "
            f"proposed, which fits into {hours:g}.",
            (),
            "Use a machine with a GPU, or allow more: --hours.",
        )
    prepared = speed.load_images_per_second * environment.usable_cores
    if prepared < speed.step_images_per_second:
        yield _finding(
            "loading",
            "warning",
            f"All cores together prepare {prepared:.0f} images a second, the networks could take "
            f"{speed.step_images_per_second:.0f}.",
            (),
            f"Train from smaller copies, with a shorter side of {2 * proposal.image_size} px, saved as JPEG.",
        )
    if proposal.gigabytes is not None and proposal.gigabytes > environment.free_gigabytes:
        yield _finding(
            "out_of_memory",
            "warning",
            f"It would take {proposal.gigabytes:.1f} GB; {environment.free_gigabytes:.1f} GB are free.",
            (),
            "Close other programs, or set a smaller --image-size or --backbone.width.",
        )


def _finding(
    name: str, severity: Severity, what: str, examples: Sequence[str], remedy: str, count: int | None = None
) -> Finding:
    return Finding(
        name=name,
        severity=severity,
        what=what,
        count=count,
        examples=tuple(examples[:EXAMPLES]),
        remedy=remedy,
    )
