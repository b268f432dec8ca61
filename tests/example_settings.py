"""A small house of settings with an open set, as the tests of the command line need it."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from crosscontext.settings import Settings


class SparrowSettings(Settings):
    """Sparrows are small."""

    name: Literal["sparrow"] = "sparrow"

    momentum: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Share of the old speed that is kept, in [0, 1]."""

    songs: tuple[str, ...] = ("morning", "evening")
    """What it sings."""


class HeronSettings(Settings):
    """Herons stand still."""

    name: Literal["heron"] = "heron"

    legs: Literal[1, 2] = 2
    """Legs on the ground."""

    hunts: bool = True
    """Whether it fishes."""


def _from_text(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


BirdSettings = Annotated[
    SparrowSettings | HeronSettings, Field(discriminator="name"), BeforeValidator(_from_text)
]


class NestSettings(Settings):
    """Where the eggs lie."""

    depth: float = 0.1
    """Metres, more than 0."""

    lined: bool = False
    """With feathers."""


class FlightSettings(Settings):
    """A flight."""

    ONE_OF: ClassVar[tuple[str, ...]] = ("epochs", "miles")

    out: Path
    """Folder of the log."""

    epochs: float | None = None
    """Passes over the field."""

    miles: float | None = None
    """Length of the flight."""

    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Wings in parallel, at least 1."""

    span: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest wing span, in metres."""

    resume: bool = False
    """Go on with an interrupted flight."""

    bird: BirdSettings = SparrowSettings(momentum=0.8)
    """Who flies."""

    flock: tuple[BirdSettings, ...] = ()
    """Who flies along."""

    escort: Annotated[tuple[BirdSettings, ...], Field(min_length=1)] = (HeronSettings(),)
    """Who flies ahead."""

    nest: NestSettings = NestSettings(lined=True)
    """Where it comes home to."""
