"""Is this machine set up, and are these images fit for a training? → **examination** → findings, a command.

Nothing is written but the gallery, where one is asked for.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from crosscontext.datasets import DatasetSettings
from crosscontext.datasets.files import ImageFiles
from crosscontext.environment import Environment, examine_environment, usable_cores
from crosscontext.errors import SettingsError
from crosscontext.findings import Finding, about_images, about_machine, about_proposal, by_weight
from crosscontext.gallery import Section, Tile, write_gallery
from crosscontext.machine import Device, choose_device
from crosscontext.proposal import Proposal, Trial, propose
from crosscontext.scanning import Scan, scan
from crosscontext.settings import Settings
from crosscontext.speed import Speed, decode_images_per_second


class DoctorSettings(Settings):
    """What is looked at, and how closely."""

    data: DatasetSettings | None = None
    """A folder of images, or any other set that pretrain takes; without it, only the machine is looked at."""

    limit: int = Field(50_000, ge=1)
    """Images that are looked at; of larger sets so many, at equal distances."""

    tiny: int = Field(32, ge=1)
    """Side in pixels below which an image counts as tiny."""

    processes: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """That look at the images together; auto: one a core."""

    trial: bool = True
    """Try the proposed training for a few steps, which tells time and memory."""

    seconds: float = Field(20.0, gt=0)
    """That the trials take, about; a step of a large network on a CPU may take longer by itself."""

    hours: float = Field(24.0, gt=0)
    """That the training may take: where the recipe would take longer here, a smaller one is proposed."""

    device: Device = "auto"
    """Where the training would run; auto: the first GPU, else the CPU."""

    out: Path = Path("runs/mine")
    """Run folder of the proposed command; nothing is written there."""

    gallery: Path | None = None
    """Write this HTML page with the pictures of the groups of copies, and of those that look odd."""


class Examination(Settings):
    """What was found; as JSON, the fields are keys, and their names and types stay within a version."""

    ready: bool
    """Whether nothing stands against a training; True without data."""

    findings: tuple[Finding, ...]
    """The worst first."""

    environment: Environment

    scan: Scan | None = None
    """None without data."""

    decode_images_per_second: float | None = None
    """Of one core, images as a whole; None without data or where a training cannot begin."""

    speed: Speed | None = None
    """None without a trial."""

    proposal: Proposal | None = None
    """None without data or where a training cannot begin."""


def doctor(settings: DoctorSettings, notify: Callable[[str], None] = lambda _: None) -> Examination:
    """Look at the machine and at the images, and propose a training.

    Args:
        settings: what to look at.
        notify: is told what is being done.

    Raises:
        SettingsError: the device is not there, or a gallery is asked for and the set has no image files.
        DataError: there is no such data set, or it holds no image.
        RunFolderError: the gallery cannot be written.
    """
    device = choose_device(settings.device)
    environment = examine_environment(device, settings.out)
    machine = tuple(about_machine(environment))
    if settings.data is None:
        return Examination(ready=True, findings=by_weight(machine), environment=environment)
    dataset = settings.data.open().train
    if settings.gallery is not None and not isinstance(dataset, ImageFiles):
        raise SettingsError("A gallery shows image files, and this set has none. Leave --gallery out.")
    processes = usable_cores() if settings.processes == "auto" else settings.processes
    scanned = scan(settings.data, dataset, settings.limit, settings.tiny, processes, notify)
    if settings.gallery is not None and isinstance(dataset, ImageFiles):
        write_gallery(settings.gallery, "What the doctor found", [], _sections(scanned, dataset))
    findings = (*about_images(scanned, settings.tiny), *machine)
    ready = all(finding.severity != "stop" for finding in findings)
    proposal, speed, decoded = None, None, None
    if ready:
        decoded = decode_images_per_second(dataset)
        trial = Trial(settings.hours, settings.seconds) if settings.trial else None
        proposal, speed = propose(settings.data, dataset, settings.out, environment, device, trial, notify)
        findings = (*findings, *about_proposal(proposal, speed, environment, settings.hours))
    return Examination(
        ready=ready,
        findings=by_weight(findings),
        environment=environment,
        scan=scanned,
        decode_images_per_second=decoded,
        speed=speed,
        proposal=proposal,
    )


def _sections(scanned: Scan, dataset: ImageFiles) -> list[Section]:
    def tiles(names: tuple[str, ...], captions: tuple[str, ...] = ()) -> tuple[Tile, ...]:
        said = captions or ("",) * len(names)
        return tuple(
            Tile(dataset.root / name, name, caption, "") for name, caption in zip(names, said, strict=True)
        )

    groups = [
        Section(f"{heading} {number}: {len(group)} images", "", tiles(group))
        for heading, found in (("Identical", scanned.identical), ("Alike", scanned.alike))
        for number, group in enumerate(found, 1)
    ]
    unreadable = scanned.unreadable
    odd = [
        Section(
            "Unreadable", "", tiles(tuple(e.path for e in unreadable), tuple(e.cause for e in unreadable))
        ),
        Section("Blank", "", tiles(scanned.blank)),
        Section("Dark", "", tiles(scanned.dark)),
        Section("Tiny", "", tiles(scanned.tiny)),
    ]
    return [section for section in (*odd, *groups) if section.tiles]
