"""The settings of a run in its folder: written at the start, and again when a run is extended.

planning → **extending** → the loop. What an extension changes is said and kept, so that the files still tell
how each step was made.
"""

import json
from collections.abc import Callable

import torch

from crosscontext.errors import SettingsError
from crosscontext.layers import Layer, changes, resolve
from crosscontext.machine import describe_machine
from crosscontext.planning import SESSION_FIELDS, PretrainSettings
from crosscontext.run_folder import RunFolder, keep, write_atomically
from crosscontext.schedules import Plan
from crosscontext.settings import dump_yaml, load_yaml

_POINTS = 4
_EXTENDED = (
    *PretrainSettings.ONE_OF,
    *("optimizer.learning_rate", "optimizer.warmup", "log_every", "checkpoint_every"),
)
_OF_ONE_SESSION = {
    "resume": False,
    "overwrite": False,
    "extend": False,
    "stop_after": None,
    "time_limit": None,
}


def write_settings(folder: RunFolder, settings: PretrainSettings, device: torch.device) -> None:
    """Write the settings and the machine of a run that begins.

    Raises:
        RunFolderError: they cannot be written.
    """
    _write_config(folder, settings)
    machine = json.dumps(describe_machine(device), indent=1)
    write_atomically(folder.environment, lambda file: file.write(machine.encode()))


def read_settings(folder: RunFolder) -> PretrainSettings:
    """Read the settings that a run was made with last.

    Raises:
        SettingsError: they are missing, or of another version.
    """
    return resolve(PretrainSettings, [Layer(str(folder.config), load_yaml(folder.config))])


def differing(before: PretrainSettings, after: PretrainSettings) -> list[str]:
    """Name the settings that differ and have a say in the result, by their dotted paths."""
    return [name for name in changes(before, after) if name.partition(".")[0] not in SESSION_FIELDS]


def may_be_extended(name: str) -> bool:
    """Whether a setting may change within a run, if that is asked for: its length, learning rate and habits.

    The batch may not: steps, the order of the images and the memory are counted in batches.
    """
    return name in _EXTENDED or name.startswith("monitor.")


def extend(
    folder: RunFolder, settings: PretrainSettings, plan: Plan, step: int, say: Callable[[str], None]
) -> None:
    """Make new settings those of a run, and show what becomes of its schedule.

    The settings so far are kept beside them; their name says up to which step they counted.

    Args:
        folder: of the run.
        settings: new, settled.
        plan: of these.
        step: steps done.
        say: is told the change line by line.

    Raises:
        SettingsError: the new end has been passed already, or a setting may not change within a run.
        RunFolderError: the settings cannot be written.
    """
    before = read_settings(folder)
    names = differing(before, settings)
    if not names:
        say("extend changes nothing: the settings are those of the run")
        return
    if fixed := [name for name in names if not may_be_extended(name)]:
        raise SettingsError(
            f"{', '.join(fixed)} cannot change within a run, with extend neither. Leave that out, or begin "
            f"another run from the weights of this one: --backbone.weights {folder.encoder}"
        )
    if plan.total_steps < step:
        raise SettingsError(
            f"The run has done {step} steps; it cannot be shortened to {plan.total_steps}. Give a longer one."
        )
    assert before.steps is not None
    told = ", ".join(f"{name} {_at(before, name)} → {_at(settings, name)}" for name in names)
    say(f"extended after step {step}: {told}")
    say(_curve("learning rate before", before, plan._replace(total_steps=before.steps)))
    say(_curve("learning rate now", settings, plan))
    if step < plan.total_steps:
        rate = settings.optimizer.learning_rate_at(step, plan)
        say(f"  the next step, {step}, has {rate:.3g}; durations in % are of {plan.total_steps} steps now")
    keep(folder.config, under=folder.earlier_config(step))
    _write_config(folder, settings)


def _write_config(folder: RunFolder, settings: PretrainSettings) -> None:
    text = dump_yaml(settings.model_copy(update=_OF_ONE_SESSION))
    write_atomically(folder.config, lambda file: file.write(text.encode()))


def _curve(title: str, settings: PretrainSettings, plan: Plan) -> str:
    last = plan.total_steps - 1
    steps = dict.fromkeys([*(last * part // _POINTS for part in range(_POINTS)), last])
    points = [f"step {step}: {settings.optimizer.learning_rate_at(step, plan):.3g}" for step in steps]
    return f"  {title}: {', '.join(points)}"


def _at(settings: PretrainSettings, name: str) -> object:
    value: object = settings
    for key in name.split("."):
        value = getattr(value, key)
    return value
