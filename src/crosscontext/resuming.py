"""What a resumed run is told: the settings that it saved, and of those given again none that differ.

A run that torchrun has restarted resumes by itself.

options → **resuming** → layers
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from crosscontext.distributed import is_restarted, launch_id
from crosscontext.errors import RunFolderError, SettingsError
from crosscontext.extending import differing, may_be_extended
from crosscontext.layers import Layer, merge, resolve
from crosscontext.planning import SESSION_FIELDS, PretrainSettings, settle
from crosscontext.run_folder import RunFolder
from crosscontext.settings import load_yaml

_RESTART = "the restart"


def restarted(layers: Sequence[Layer]) -> Sequence[Layer]:
    """Go on with the run that this launch has begun, where torchrun has restarted the processes.

    Which launch has begun a run stands in its environment.json, so that an older run which was in the way at
    first is still in the way now. Over several machines torchrun has to name the launch: --rdzv-id.

    Returns:
        The layers to use instead: without a checkpoint yet, the run begins again.
    """
    given = merge(PretrainSettings, layers)
    if not is_restarted() or "out" not in given:
        return layers
    folder = RunFolder(Path(str(given["out"])))
    if not folder.environment.is_file():
        return layers
    launch = json.loads(folder.environment.read_text()).get("launch")
    if launch is None or launch != launch_id():
        return layers
    if not folder.has_checkpoint:
        return (*layers, Layer(_RESTART, {"overwrite": True}))
    of_session = {key: value for key, value in given.items() if key in SESSION_FIELDS}
    return (Layer(_RESTART, {**of_session, "resume": True, "overwrite": False}),)


def saved_layer(layers: Sequence[Layer]) -> Layer | None:
    """Read what a run saved, where the layers ask to resume it; None where they do not.

    Raises:
        RunFolderError: there is no run to resume.
    """
    given = merge(PretrainSettings, layers)
    if given.get("resume") is not True or "out" not in given:
        return None
    path = RunFolder(Path(str(given["out"]))).config
    if not path.is_file():
        raise RunFolderError(
            f"There is no {path}, so there is no run to resume. Check --out, or start one without --resume."
        )
    return Layer(str(path), load_yaml(path))


def continued(saved: Layer, settings: PretrainSettings, say: Callable[[str], None]) -> PretrainSettings:
    """Make sure that going on with these settings is going on with the same run, or an extension asked for.

    Args:
        saved: what the run saved; nothing in it is "auto", and its length is in steps.
        settings: those of the run, with what was given on top.
        say: is told in one line if minutes are left out: they were turned into steps when the run began.

    Returns:
        The settings to go on with.

    Raises:
        SettingsError: a setting differs that has a say in the result.
    """
    before = resolve(PretrainSettings, [saved])
    if settings.minutes is not None and not settings.extend:
        say(
            f"{settings.minutes:g} minutes are left out: the run's length was settled when it began, to "
            f"{before.steps} steps. --extend changes it."
        )
        settings = settings.model_copy(
            update={name: getattr(before, name) for name in PretrainSettings.ONE_OF}
        )
    if not _refused(before, settings):
        return settings
    dataset = settings.data.open().train  # what was given may say the same in other words: epochs, auto
    refused = _refused(before, settle(settings, dataset, lambda _: None))
    if refused:
        remedy = "Leave that out, or start another run."
        if not settings.extend and all(map(may_be_extended, refused)):
            remedy = "Leave that out, or ask for it with --extend."
        raise SettingsError(
            f"A resumed run keeps its settings, but {', '.join(refused)} would differ from {saved.origin}. "
            f"{remedy}"
        )
    return settings


def _refused(before: PretrainSettings, after: PretrainSettings) -> list[str]:
    names = differing(before, after)
    return [name for name in names if not (after.extend and may_be_extended(name))]
