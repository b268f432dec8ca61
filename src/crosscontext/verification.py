"""Is a killed run the same as one that was not? Asked on the machine, the data and the settings that count.

recipe → **verification** → two runs in processes of their own → a sentence
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from crosscontext.errors import ResumeError, SettingsError
from crosscontext.planning import PretrainSettings
from crosscontext.run_folder import RunFolder, write_atomically
from crosscontext.settings import dump_yaml
from crosscontext.tracking import read_metrics

_STEPS_BETWEEN_KILLS = 3  # at least, so that each is seen
_SECONDS_BETWEEN_LOOKS = 0.005
_NAMED_AT_MOST = 5


class VerifyResumeSettings(PretrainSettings):
    """A run that is made twice, shortened: in one go, and killed and resumed."""

    out: Path = Path("runs/verify-resume")
    """Folder for both runs; what is there is replaced."""

    verified_steps: int = Field(12, ge=2)
    """Length of both runs in steps, whatever the recipe says."""

    kills: int = Field(2, ge=1)
    """How often the second run is killed, at equal distances."""


def verify_resume(settings: VerifyResumeSettings, notify: Callable[[str], None] = lambda _: None) -> str:
    """Run in one go, and with kills (SIGKILL, which no process can answer); compare all that was written.

    Args:
        settings: see there.
        notify: is told in one line each what happens.

    Returns:
        A sentence that says what is equal.

    Raises:
        SettingsError: there are too few steps for the kills.
        ResumeError: the runs differ, or could not be made.
        RunFolderError: the folder cannot be written.
    """
    marks = [settings.verified_steps * n // (settings.kills + 1) for n in range(1, settings.kills + 1)]
    if settings.verified_steps < (_STEPS_BETWEEN_KILLS + 1) * (settings.kills + 1):
        raise SettingsError(
            f"{settings.verified_steps} steps are too few for {settings.kills} kills. "
            f"Set --verified-steps to at least {(_STEPS_BETWEEN_KILLS + 1) * (settings.kills + 1)}."
        )
    recipe = settings.out / "run.yaml"
    settings.out.mkdir(parents=True, exist_ok=True)
    write_atomically(recipe, lambda file: file.write(_recipe(settings).encode()))
    straight, killed = RunFolder(settings.out / "straight"), RunFolder(settings.out / "killed")
    notify(f"{settings.verified_steps} steps in one go")
    _finish(_start(recipe, straight, "--overwrite"), straight)
    for number, mark in enumerate(marks):
        notify(f"the same, killed after step {mark}")
        process = _start(recipe, killed, "--resume" if number else "--overwrite")
        _kill(process, killed, mark)
    notify("resumed to the end")
    _finish(_start(recipe, killed, "--resume"), killed)
    if found := list(differences(straight, killed)):
        more = f" and {len(found) - _NAMED_AT_MOST} more" if len(found) > _NAMED_AT_MOST else ""
        raise ResumeError(
            f"The killed run differs from the other in {', '.join(found[:_NAMED_AT_MOST])}{more}. Compare "
            f"{straight.path} and {killed.path}; on a GPU, some operations of PyTorch are not deterministic."
        )
    return (
        f"Bitwise equal after {settings.verified_steps} steps: weights, optimiser, memory and metrics of a "
        f"run in one go and of one killed after steps {', '.join(map(str, marks))}."
    )


def differences(one: RunFolder, other: RunFolder) -> Iterator[str]:
    """Name what differs between two finished runs, in checkpoint, encoder and metrics; times do not count."""
    states = [torch.load(run.checkpoint, map_location="cpu", weights_only=True) for run in (one, other)]
    yield from _differing(states[0], states[1], "checkpoint")
    if one.encoder.read_bytes() != other.encoder.read_bytes():
        yield one.encoder.name
    if _timeless(one) != _timeless(other):
        yield one.metrics.name


def _differing(one: object, other: object, place: str) -> Iterator[str]:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
    elif isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from _differing(one[key], other[key], f"{place}.{key}")
        return
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from _differing(*pair, f"{place}.{number}")
        return
    else:
        same = type(one) is type(other) and one == other
    if not same:
        yield place


def _timeless(run: RunFolder) -> list[dict[str, int | float]]:
    return [
        {name: value for name, value in line.items() if not name.startswith("time/")}
        for line in read_metrics(run.metrics)
    ]


def _recipe(settings: VerifyResumeSettings) -> str:
    """Shorten the run; a line of metrics each step says when to kill."""
    own = set(VerifyResumeSettings.model_fields) - set(PretrainSettings.model_fields)
    lasting = {
        **dict.fromkeys(PretrainSettings.ONE_OF),
        "steps": settings.verified_steps,
        "devices": 1,
        "report": False,
        "log_every": "1 steps",
        "checkpoint_every": f"{_STEPS_BETWEEN_KILLS} steps",
        **{"resume": False, "overwrite": False, "extend": False, "stop_after": None, "time_limit": None},
    }
    return dump_yaml(PretrainSettings.model_validate(settings.model_dump(exclude=own) | lasting))


def _start(recipe: Path, run: RunFolder, how: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "crosscontext", "pretrain", str(recipe), "--out", str(run.path), how]
    with _log(run).open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _kill(process: "subprocess.Popen[bytes]", run: RunFolder, step: int) -> None:
    try:
        while max((line["step"] for line in read_metrics(run.metrics)), default=0) < step:
            if process.poll() is not None:
                _finish(process, run)
                break
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    finally:
        process.kill()
        code = process.wait()
    if code != -signal.SIGKILL:
        raise ResumeError(
            f"The run in {run.path} was over before it could be killed after step {step}. "
            "Give more --verified-steps."
        )


def _finish(process: "subprocess.Popen[bytes]", run: RunFolder) -> None:
    try:
        code = process.wait()
    finally:
        process.kill()
    if code != os.EX_OK:
        said = _log(run).read_text(encoding="utf-8", errors="replace").splitlines()
        raise ResumeError(
            f"The run in {run.path} ended with code {code}: {said[-1] if said else 'it said nothing'}"
        )


def _log(run: RunFolder) -> Path:
    return run.path.parent / f"{run.path.name}.log"
