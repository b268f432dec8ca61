"""Which training suits these images and this machine: data set, environment → trials → **proposal**.

The command that is proposed is read as the command line reads it, and what is tried are its settings.
"""

import math
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import torch

from crosscontext.commandline import Verb, parse
from crosscontext.complaints import spelled
from crosscontext.data_options import data_words
from crosscontext.datasets import DatasetSettings
from crosscontext.datasets.contract import Dataset
from crosscontext.datasets.held import hold
from crosscontext.environment import Environment
from crosscontext.layers import COMMAND_LINE, resolve
from crosscontext.machine import choose_device
from crosscontext.memory import auto_slots
from crosscontext.planning import PretrainSettings, settle
from crosscontext.recipes import recipe_layers
from crosscontext.settings import Settings, leaves
from crosscontext.speed import Speed, measure_speed

SMALL, MEDIUM = 20_000, 300_000
"""Images up to which the recipes folder_small and folder_medium are meant; beyond it is folder_large."""

QUICK: Final = "folder_quick"
"""Recipe for trainings that are too short for those."""

_BATCHES_A_PASS: Final = 8
_SMALLEST_BATCH: Final = 8  # that is proposed for want of memory
_SHARE_OF_MEMORY: Final = 0.8
_SPARE: Final = 1.2  # times the workers that would just keep the networks busy
_TRIALS: Final = 2  # that share the time, as a rule
_ENOUGH: Final = 0.5  # of the passes of the recipe


class Choice(Settings):
    """One setting of the proposed training."""

    setting: str
    """Its name, e.g. batch_size."""

    value: str

    reason: str


class Proposal(Settings):
    """A training that suits the images and the machine."""

    recipe: str
    """folder_small, folder_medium or folder_large, by the number of images; folder_quick for want of time."""

    command: str
    """To be pasted into a shell."""

    choices: tuple[Choice, ...]
    """Settings of the command, then those that follow from the images."""

    image_size: int
    """Side of the views in pixels."""

    passes: float | None
    """Over the set; None where minutes are proposed without a trial."""

    hours: float | None
    """That the training would take; None without a trial."""

    recipe_hours: float | None
    """That the recipe as it is would take on this machine; None without a trial."""

    gigabytes: float | None
    """Memory that it would take; None without a trial."""


class Trial(NamedTuple):
    """How long a training may take, and how long one may look for that."""

    hours: float
    """Of the training."""

    seconds: float
    """Of all trials, about."""

    @property
    def minutes(self) -> int:
        """Of the training, as --minutes takes them."""
        return max(round(self.hours * 60), 1)


def propose(
    data: DatasetSettings,
    dataset: Dataset,
    out: Path,
    environment: Environment,
    device: torch.device,
    trial: Trial | None,
    notify: Callable[[str], None],
) -> tuple[Proposal, Speed | None]:
    """Choose recipe and settings, and try them for a few steps.

    Where the recipe would take too long, cheaper networks are tried, until one sees at least half of the
    recipe's passes in time; if that is not all of them, minutes end the training. Where no network does, it
    is the recipe for short trainings.

    Args:
        data: of the training.
        dataset: its training part, of at least two images.
        out: run folder of the training.
        environment: of this machine.
        device: of the training.
        trial: None: nothing is tried, and no time is predicted.
        notify: is told what is tried.

    Raises:
        DataError: too many images cannot be read.
    """
    size = len(dataset.names)
    recipe = "folder_small" if size <= SMALL else "folder_medium" if size <= MEDIUM else "folder_large"
    draft = _Draft(recipe, (*data_words(data), "--out", str(out)), ())
    own = draft.settings()
    fitting = 1 << max(size // _BATCHES_A_PASS, 2).bit_length() - 1
    if fitting < own.batch_size:
        draft = draft.having(
            "batch_size", fitting, f"at least {_BATCHES_A_PASS} batches a pass over {size} images"
        )
    else:
        draft = draft.having("batch_size", own.batch_size, "that of the recipe")
    draft = draft.having("workers", min(own.workers, environment.usable_cores), "that of the recipe")
    if device.type != choose_device("auto").type:
        draft = draft.having("device", device.type, "as --device says")
    if device.type == "cuda" and len(environment.gpus) > 1:
        draft = draft.having("devices", len(environment.gpus), "one process a GPU")
    held = hold(dataset, own.hold_gigabytes)
    workshop = _Workshop(held, environment, device)
    done = None if trial is None else workshop.fitting(draft, trial, notify)
    settled = workshop.settled(draft if done is None else done.draft)
    draft, passes = (draft, None) if done is None else (done.draft, done.passes)
    if settled.steps is not None:
        passes = settled.steps * settled.batch_size / size
    proposal = Proposal(
        recipe=draft.recipe,
        command=shlex.join(("crosscontext", "pretrain", *draft.words())),
        choices=(*draft.choices, *_following(draft.settings(), settled, size)),
        image_size=_side(settled),
        passes=None if passes is None else round(passes, 1),
        hours=None if done is None else done.hours,
        recipe_hours=None if done is None else done.recipe_hours,
        gigabytes=None if done is None else done.speed.gigabytes(settled.batch_size),
    )
    return proposal, None if done is None else done.speed


class _Draft(NamedTuple):
    """A command in the making."""

    recipe: str
    start: tuple[str, ...]
    choices: tuple[Choice, ...]

    def having(self, setting: str, value: object, reason: str) -> "_Draft":
        """Set an option, perhaps anew."""
        others = tuple(choice for choice in self.choices if choice.setting != setting)
        choice = Choice(setting=setting, value=str(value), reason=reason)
        return self._replace(choices=(*others, choice))

    def words(self) -> tuple[str, ...]:
        """Spell out what follows the verb."""
        options = [
            word
            for choice in self.choices
            for word in (spelled(tuple(choice.setting.split(".")), COMMAND_LINE), choice.value)
        ]
        return (self.recipe, *self.start, *options)

    def settings(self) -> PretrainSettings:
        """Read the words as the command line would."""
        line = parse(self.words(), Verb("", "", PretrainSettings))
        return resolve(PretrainSettings, (*recipe_layers("pretrain", line.positionals), *line.layers))


class _Found(NamedTuple):
    """What a trial has led to."""

    draft: _Draft
    speed: Speed
    hours: float
    passes: float
    recipe_hours: float


class _Workshop(NamedTuple):
    """Where drafts are tried."""

    dataset: Dataset
    """Held in memory if that is what the training would do."""

    environment: Environment
    device: torch.device

    @property
    def free_gigabytes(self) -> float:
        """That a training may take, with some left for others."""
        return _SHARE_OF_MEMORY * self.environment.free_gigabytes

    def settled(self, draft: _Draft) -> PretrainSettings:
        """Settle what the draft leaves to the images."""
        return settle(draft.settings(), self.dataset, lambda _: None)

    def fitting(self, draft: _Draft, trial: Trial, notify: Callable[[str], None]) -> _Found:
        """Find the first draft of the ladder that can be trained in time."""
        recipe_hours = 0.0
        for step, cheaper in _ladder(draft, _side(self.settled(draft)), trial.minutes):
            if recipe_hours / cheaper > trial.hours / _ENOUGH:
                continue  # even if each step became as much cheaper as it can
            notify(f"trying {step.recipe} {' '.join(f'{c.setting} {c.value}' for c in step.choices)}")
            speed = measure_speed(
                self.settled(step), self.dataset, self.device, trial.seconds / _TRIALS, self.free_gigabytes
            )
            rung = self._for_memory(self._with_workers(step, speed), speed)
            settled = self.settled(rung)
            on_cpu = self.device.type == "cpu"
            rate = speed.images_per_second(settled.workers, self.environment.usable_cores, on_cpu)
            if settled.steps is None:
                passes = rate * trial.hours * 3600 / len(self.dataset.names)
                return _Found(rung, speed, trial.hours, passes, recipe_hours)
            images = settled.steps * settled.batch_size
            hours = images / rate / 3600
            recipe_hours = recipe_hours or hours
            if hours <= trial.hours / _ENOUGH:
                break
        if hours > trial.hours:
            all_of_them = f"{images / len(self.dataset.names):.0f} passes would take {hours:.0f} hours"
            rung = rung.having("minutes", trial.minutes, f"what --hours allows; {all_of_them}")
            images, hours = round(images * trial.hours / hours), trial.hours
        return _Found(rung, speed, hours, images / len(self.dataset.names), recipe_hours)

    def _with_workers(self, draft: _Draft, speed: Speed) -> _Draft:
        load, step = speed.load_images_per_second, speed.step_images_per_second
        workers = min(math.ceil(_SPARE * step / load), self.environment.usable_cores)
        reason = f"one core prepares {load:.0f} images a second, the networks take {step:.3g}"
        return draft.having("workers", workers, reason)

    def _for_memory(self, draft: _Draft, speed: Speed) -> _Draft:
        batch = whole = draft.settings().batch_size
        while speed.gigabytes(batch) > self.free_gigabytes and batch > _SMALLEST_BATCH:
            batch //= 2
        if batch == whole:
            return draft
        reason = (
            f"{whole} would take {speed.gigabytes(whole):.1f} GB, {self.free_gigabytes:.1f} GB can be had"
        )
        return draft.having("batch_size", batch, reason)


def _ladder(draft: _Draft, side: int, minutes: int) -> Iterator[tuple[_Draft, float]]:
    """Go from the recipe to cheaper trainings, with how much cheaper they may become at most."""
    reason = "the recipe's own network would take too long on this machine"
    yield draft, 1
    yield draft.having("backbone.width", 0.5, reason), 4
    yield draft.having("backbone.width", 0.25, reason), 16
    quick = draft._replace(recipe=QUICK)
    if side < _side(quick.settings()):
        quick = quick.having("image_size", side, "that of the images")
    yield quick.having("minutes", minutes, f"what --hours allows; {draft.recipe} needs more"), math.inf


def _side(settled: PretrainSettings) -> int:
    assert settled.image_size != "auto"
    return settled.image_size


def _following(given: PretrainSettings, settled: PretrainSettings, size: int) -> Iterator[Choice]:
    """What "auto" comes to, where a user may ask why."""
    autos = {path for path, value in leaves(given.model_dump(mode="json")) if value == "auto"}
    side = _side(settled)
    for setting, value, reason in (
        ("image_size", side, "the usual size that the median image fills, at most 224"),
        (
            "backbone.stem",
            getattr(settled.backbone, "stem", None),
            f"views of {side} px; the large one is for 64 px and more",
        ),
        ("method.memory.slots", auto_slots(size), "the power of two up to a tenth of the set, from 256 on"),
    ):
        if setting in autos:
            yield Choice(setting=setting, value=str(value), reason=reason)
