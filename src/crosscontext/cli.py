"""The command line: one function a verb. Settings are read here, and errors become lines and exit codes.

recipe + options → **cli** → the verbs. Heavy imports wait for their verb.
"""

import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import NoReturn

from crosscontext.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_TERMINATED,
    CrossContextError,
    SettingsError,
)

_EXIT_FAILURE = 1
_SPINS = "5000"
"""Turns for which GNU OpenMP's threads wait awake for the next loop. With its own 300 000 a training beside
another busy process is 40 % slower than with these few, which cost 2 % on an idle machine."""


class _Terminated(BaseException):
    """SIGTERM came while no training was there to save a checkpoint."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: what follows the program's name; those of the process by default.

    Returns:
        The exit code, as `errors.py` lists them.
    """
    signal.signal(signal.SIGTERM, _terminate)
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # is read when PyTorch is imported
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _complain("interrupted")
        return EXIT_INTERRUPTED
    except _Terminated:
        _complain("terminated")
        return EXIT_TERMINATED
    except BrokenPipeError:  # the reader has seen enough, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_FAILURE
    except CrossContextError as error:
        _complain(str(error))
        return error.exit_code
    except Exception as error:
        _complain(
            f"{type(error).__name__}: {error}\nThis was not foreseen; CROSSCONTEXT_DEBUG=1 shows where."
        )
        return _EXIT_FAILURE
    return code


def pretrain(arguments: Sequence[str]) -> None:
    """Train a backbone on images without labels."""
    from crosscontext.commandline import Verb, answer, parse
    from crosscontext.layers import resolve
    from crosscontext.pretraining import PretrainSettings
    from crosscontext.pretraining import pretrain as run
    from crosscontext.recipes import recipe_layers, recipes_known
    from crosscontext.resuming import refuse_changes, saved_layer
    from crosscontext.tracking import console_progress

    summary = f"{pretrain.__doc__}\n{recipes_known('pretrain')}"
    verb = Verb("crosscontext pretrain [RECIPE] [OPTIONS]", summary, PretrainSettings)
    line = parse(arguments, verb)
    _refuse(line.positionals[1:])
    layers = (*recipe_layers("pretrain", line.positionals), *line.layers)
    saved = None if "help" in line.flags else saved_layer(layers)
    if saved is not None:
        layers = (saved, *layers)
    if (text := answer(verb, line.flags, layers)) is not None:
        print(text)
        return
    settings = resolve(PretrainSettings, layers)
    if saved is not None:
        refuse_changes(saved, settings)
    with console_progress() as progress:
        folder = run(settings, progress)
    print(f"encoder: {folder.encoder}")
    if folder.report.is_file():
        print(f"report: {folder.report}")


def evaluate(arguments: Sequence[str]) -> None:
    """Score the encoder of a run, next to references such as raw pixels."""
    from rich.console import Console

    from crosscontext.commandline import Verb, answer, parse
    from crosscontext.evaluation import EvaluateSettings
    from crosscontext.evaluation import evaluate as run
    from crosscontext.layers import COMMAND_LINE, Layer, resolve
    from crosscontext.recipes import recipe_layers, recipes_known
    from crosscontext.run_folder import RunFolder
    from crosscontext.tables import score_table

    summary = f"{evaluate.__doc__}\nRUN: the folder that pretrain wrote.\n{recipes_known('evaluate')}"
    flags = {"json": "Print the scores as one JSON list, and nothing else."}
    verb = Verb("crosscontext evaluate RUN [RECIPE] [OPTIONS]", summary, EvaluateSettings, flags)
    line = parse(arguments, verb)
    _refuse(line.positionals[2:])
    folder = [Layer(COMMAND_LINE, {"run": path}) for path in line.positionals[:1]]
    layers = (*recipe_layers("evaluate", line.positionals[1:]), *folder, *line.layers)
    if "help" not in line.flags and not any("run" in layer.values for layer in layers):
        raise SettingsError("Missing RUN, the folder that pretrain wrote: crosscontext evaluate RUN.")
    if (text := answer(verb, line.flags, layers)) is not None:
        print(text)
        return
    settings = resolve(EvaluateSettings, layers)
    scores = run(settings, _notify)
    if "json" in line.flags:
        print(json.dumps([score.model_dump(mode="json") for score in scores]))
    else:
        Console().print(score_table(scores))
        print(f"encoder: {settings.run if settings.run.is_file() else RunFolder(settings.run).encoder}")


def compare(arguments: Sequence[str]) -> None:
    """Put the scores of several runs side by side, with intervals."""
    from crosscontext.commandline import Verb, answer, parse
    from crosscontext.comparison import CompareSettings
    from crosscontext.comparison import compare as run
    from crosscontext.layers import COMMAND_LINE, Layer, resolve
    from crosscontext.tables import comparison_text

    summary = f"{compare.__doc__}\nRUN: folders that evaluate wrote scores into."
    verb = Verb("crosscontext compare RUN... [OPTIONS]", summary, CompareSettings)
    line = parse(arguments, verb)
    layers = line.layers
    if line.positionals:
        layers = (Layer(COMMAND_LINE, {"runs": line.positionals}), *layers)
    elif "help" not in line.flags and not any("runs" in layer.values for layer in layers):
        raise SettingsError("Missing RUN, the folders that evaluate wrote into: crosscontext compare RUN...")
    if (text := answer(verb, line.flags, layers)) is not None:
        print(text)
        return
    settings = resolve(CompareSettings, layers)
    print(comparison_text(run(settings, _notify), settings.format))


def report(arguments: Sequence[str]) -> None:
    """Show a run on one page: verdict, scores, a map of its images."""
    from crosscontext.commandline import Verb, answer, parse
    from crosscontext.layers import COMMAND_LINE, Layer, resolve
    from crosscontext.page import ReportSettings
    from crosscontext.page import report as run

    summary = f"{report.__doc__}\nRUN: the folder that pretrain wrote."
    verb = Verb("crosscontext report RUN [OPTIONS]", summary, ReportSettings)
    line = parse(arguments, verb)
    _refuse(line.positionals[1:])
    layers = (*(Layer(COMMAND_LINE, {"run": path}) for path in line.positionals), *line.layers)
    if "help" not in line.flags and not any("run" in layer.values for layer in layers):
        raise SettingsError("Missing RUN, the folder that pretrain wrote: crosscontext report RUN.")
    if (text := answer(verb, line.flags, layers)) is not None:
        print(text)
        return
    print(f"report: {run(resolve(ReportSettings, layers), _notify)}")


def study(arguments: Sequence[str]) -> None:
    """Run methods × settings × seeds under one budget, and compare them."""
    from crosscontext.commandline import Verb, answer, parse
    from crosscontext.layers import Layer, resolve
    from crosscontext.recipes import find_recipe, recipe_layers, recipes_known
    from crosscontext.studies import StudySettings, describe
    from crosscontext.studies import study as run

    known = recipes_known("study").replace("RECIPE", "STUDY", 1)
    summary = f"{study.__doc__}\n{known}\nThe same command again goes on where it stopped."
    flags = {"dry_run": "Try each cell for a few steps, say what would be done and how long it takes, stop."}
    verb = Verb("crosscontext study STUDY [OPTIONS]", summary, StudySettings, flags)
    line = parse(arguments, verb)
    _refuse(line.positionals[1:])
    for key in StudySettings.OF_THE_FILE:
        if any(key in layer.values for layer in line.layers):
            raise SettingsError(
                f"--{key} stands in the study file alone, so that the file says what was compared."
            )
    if not line.positionals and "help" not in line.flags:
        raise SettingsError("Missing STUDY, a YAML file or a name: crosscontext study STUDY.")
    layers = (*recipe_layers("study", line.positionals), *line.layers)
    if line.positionals:
        name = find_recipe("study", line.positionals[0]).stem
        layers = (Layer("its name", {"out": f"studies/{name}", "runs": f"runs/{name}"}), *layers)
    if (text := answer(verb, line.flags, layers)) is not None:
        print(text)
        return
    settings = resolve(StudySettings, layers)
    if "dry_run" in line.flags:
        print(describe(settings, _notify))
        return
    run(settings, _notify)
    print(f"results: {settings.out}")


def views(arguments: Sequence[str]) -> None:
    """Draw a few images with their views."""
    from crosscontext.commandline import Verb, answer, parse
    from crosscontext.layers import resolve
    from crosscontext.preview import PreviewSettings, preview

    verb = Verb("crosscontext views --data DIR [OPTIONS]", str(views.__doc__), PreviewSettings)
    line = parse(arguments, verb)
    _refuse(line.positionals)
    if (text := answer(verb, line.flags, line.layers)) is not None:
        print(text)
        return
    print(f"views: {preview(resolve(PreviewSettings, line.layers))}")


VERBS: Mapping[str, Callable[[Sequence[str]], None]] = {
    "pretrain": pretrain,
    "evaluate": evaluate,
    "compare": compare,
    "report": report,
    "study": study,
    "views": views,
}
"""What the program can do, by the word that asks for it."""


def _run(arguments: Sequence[str]) -> int:
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if verb in VERBS:
        VERBS[verb](rest)
    elif verb in ("--help", "-h", "help"):
        print(_overview())
    elif verb == "--version":
        from importlib.metadata import version

        print(f"crosscontext {version('crosscontext')}")
    else:
        from crosscontext.complaints import nearest

        there_are = f"there are {', '.join(VERBS)}{nearest(verb, list(VERBS)) or '.'}"
        raise SettingsError(
            f"Unknown verb '{verb}'; {there_are}" if verb else f"The verb is missing; {there_are}"
        )
    return EXIT_OK


def _overview() -> str:
    verbs = "\n".join(f"  {name:12}{function.__doc__}" for name, function in VERBS.items())
    return (
        "usage: crosscontext VERB [OPTIONS]\n\n"
        "Turn a folder of unlabelled images into a visual backbone,\n"
        "and prove what it is worth.\n\n"
        f"{verbs}\n\n"
        "  crosscontext VERB --help    all options of a verb\n"
        "  crosscontext --version"
    )


def _refuse(positionals: Sequence[str]) -> None:
    if positionals:
        raise SettingsError(f"Unexpected argument '{positionals[0]}'. Options begin with --; see --help.")


def _notify(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _complain(message: str) -> None:
    if os.environ.get("CROSSCONTEXT_DEBUG"):
        traceback.print_exc()
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated
