"""The verbs of the command line, one function each: options → settings → the stage that does the work.

cli → **verbs** → pretraining, evaluation, … Heavy imports wait for their verb.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

from crosscontext import cluster_verbs, index_verbs
from crosscontext.errors import SettingsError
from crosscontext.tracking import tell


def pretrain(arguments: Sequence[str]) -> None:
    """Train a backbone on images without labels."""
    from crosscontext.commandline import Verb
    from crosscontext.distributed import is_first
    from crosscontext.launching import is_launch_due
    from crosscontext.pretraining import PretrainSettings
    from crosscontext.pretraining import pretrain as run
    from crosscontext.recipes import recipes_known
    from crosscontext.resuming import continued, restarted, saved_layer
    from crosscontext.running import read
    from crosscontext.tracking import Silence, console_progress

    summary = f"{pretrain.__doc__}\n{recipes_known('pretrain')}"
    verb = Verb("crosscontext pretrain [RECIPE] [OPTIONS]", summary, PretrainSettings)
    request = read(arguments, verb, recipes="pretrain")
    saved = None
    if not request.is_for_help:
        request = request._replace(layers=tuple(restarted(request.layers)))
        saved = saved_layer(request.layers)
    if saved is not None:
        request = request._replace(layers=(saved, *request.layers))
    settings = request.settle(PretrainSettings)
    if settings is None:
        return
    if saved is not None:
        settings = continued(saved, settings, tell if is_first() else lambda _: None)
    speaks = is_first() and not is_launch_due(settings)  # of several processes one
    with console_progress() if speaks else nullcontext(Silence()) as progress:
        folder = run(settings, progress)
    if speaks:
        print(f"encoder: {folder.encoder}")
        if folder.report.is_file():
            print(f"report: {folder.report}")


def evaluate(arguments: Sequence[str]) -> None:
    """Score the encoder of a run beside references, e.g. raw pixels."""
    from rich.console import Console

    from crosscontext.commandline import Verb
    from crosscontext.evaluation import EvaluateSettings
    from crosscontext.evaluation import evaluate as run
    from crosscontext.recipes import recipes_known
    from crosscontext.run_folder import RunFolder
    from crosscontext.running import read
    from crosscontext.tables import score_table

    summary = f"{evaluate.__doc__}\nRUN: the folder that pretrain wrote.\n{recipes_known('evaluate')}"
    flags = {"json": "Print the scores as one JSON list, and nothing else."}
    verb = Verb("crosscontext evaluate RUN [RECIPE] [OPTIONS]", summary, EvaluateSettings, flags)
    request = read(arguments, verb, ("run",), recipes="evaluate")
    settings = request.settle(EvaluateSettings)
    if settings is None:
        return
    scores = run(settings, tell)
    if "json" in request.flags:
        print(json.dumps([score.model_dump(mode="json") for score in scores]))
    else:
        Console().print(score_table(scores))
        print(f"encoder: {settings.run if settings.run.is_file() else RunFolder(settings.run).encoder}")


def compare(arguments: Sequence[str]) -> None:
    """Put the scores of several runs side by side, with intervals."""
    from crosscontext.commandline import Verb
    from crosscontext.comparison import CompareSettings
    from crosscontext.comparison import compare as run
    from crosscontext.running import read
    from crosscontext.tables import comparison_text

    summary = f"{compare.__doc__}\nRUN: folders that evaluate wrote scores into."
    verb = Verb("crosscontext compare RUN... [OPTIONS]", summary, CompareSettings)
    if (settings := read(arguments, verb, ("runs",)).settle(CompareSettings)) is not None:
        print(comparison_text(run(settings, tell), settings.format))


def report(arguments: Sequence[str]) -> None:
    """Show a run on one page: verdict, scores, a map of its images."""
    from crosscontext.page import ReportSettings
    from crosscontext.page import report as run
    from crosscontext.running import run_verb

    summary = f"{report.__doc__}\nRUN: the folder that pretrain wrote."
    usage = "crosscontext report RUN [OPTIONS]"
    run_verb(arguments, usage, summary, ReportSettings, ("run",), run, str)


def study(arguments: Sequence[str]) -> None:
    """Run methods × settings × seeds under one budget; compare them."""
    from crosscontext.commandline import Verb
    from crosscontext.layers import COMMAND_LINE, Layer
    from crosscontext.recipes import find_recipe, recipes_known
    from crosscontext.running import read
    from crosscontext.studies import StudySettings, describe
    from crosscontext.studies import study as run

    known = recipes_known("study").replace("RECIPE", "STUDY", 1)
    summary = f"{study.__doc__}\n{known}\nThe same command again goes on where it stopped."
    flags = {"dry_run": "Try each cell for a few steps, say what would be done and how long it takes, stop."}
    verb = Verb("crosscontext study STUDY [OPTIONS]", summary, StudySettings, flags)
    request = read(arguments, verb, recipes="study")
    for key in StudySettings.OF_THE_FILE:
        if any(key in layer.values for layer in request.layers if layer.origin == COMMAND_LINE):
            raise SettingsError(
                f"--{key} stands in the study file alone, so that the file says what was compared."
            )
    if request.recipe is not None:
        name = find_recipe("study", request.recipe).stem
        places = Layer("its name", {"out": f"studies/{name}", "runs": f"runs/{name}"})
        request = request._replace(layers=(places, *request.layers))
    elif not request.is_for_help:
        raise SettingsError("Missing STUDY, a YAML file or a name: crosscontext study STUDY.")
    settings = request.settle(StudySettings)
    if settings is None:
        return
    if "dry_run" in request.flags:
        print(describe(settings, tell))
        return
    run(settings, tell)
    print(f"results: {settings.out}")


def verify_resume(arguments: Sequence[str]) -> None:
    """Check, bit by bit, that a killed run goes on unharmed."""
    from crosscontext.commandline import Verb
    from crosscontext.recipes import recipes_known
    from crosscontext.running import read
    from crosscontext.verification import VerifyResumeSettings
    from crosscontext.verification import verify_resume as run

    summary = f"{verify_resume.__doc__}\n{recipes_known('pretrain')}"
    verb = Verb("crosscontext verify-resume [RECIPE] [OPTIONS]", summary, VerifyResumeSettings)
    if (settings := read(arguments, verb, recipes="pretrain").settle(VerifyResumeSettings)) is not None:
        print(run(settings, tell))


def views(arguments: Sequence[str]) -> None:
    """Draw a few images with their views."""
    from crosscontext.commandline import Verb
    from crosscontext.preview import PreviewSettings, preview
    from crosscontext.running import read

    verb = Verb("crosscontext views --data DIR [OPTIONS]", str(views.__doc__), PreviewSettings)
    if (settings := read(arguments, verb).settle(PreviewSettings)) is not None:
        print(f"views: {preview(settings)}")


def doctor(arguments: Sequence[str]) -> None:
    """Look at machine and images; propose a training, and its length."""
    from crosscontext.errors import DataError
    from crosscontext.examination import DoctorSettings
    from crosscontext.examination import doctor as run
    from crosscontext.examination_text import examination_text
    from crosscontext.running import run_verb

    summary = f"{doctor.__doc__}\nExit code 0: a training can begin; 1: these images are not fit for one."
    usage = "crosscontext doctor [--data DIR] [OPTIONS]"
    found = run_verb(arguments, usage, summary, DoctorSettings, (), run, examination_text)
    if found is not None and not found.ready:
        first = found.findings[0]
        raise DataError(f"{first.what} {first.remedy}")


def convert(arguments: Sequence[str]) -> None:
    """Make an encoder of a checkpoint of another library."""
    from crosscontext.conversion import ConvertSettings
    from crosscontext.conversion import convert as run
    from crosscontext.layouts import LAYOUTS
    from crosscontext.running import run_verb

    known = ", ".join(layout.name for layout in LAYOUTS)
    summary = f"{convert.__doc__}\nFILE: .safetensors or PyTorch; nothing is unpickled. Known are {known}."
    usage = "crosscontext convert FILE [OPTIONS]"
    run_verb(arguments, usage, summary, ConvertSettings, ("file",), lambda given, _: run(given).record, str)


def export(arguments: Sequence[str]) -> None:
    """Hand an encoder over to timm, torchvision, ONNX and others."""
    from crosscontext.exporting import ExportSettings
    from crosscontext.exporting import export as run
    from crosscontext.running import run_verb

    summary = f"{export.__doc__}\nRUN: the folder that pretrain wrote, or the file of an encoder."
    usage = "crosscontext export RUN --format FORMAT --out DIR [OPTIONS]"
    run_verb(arguments, usage, summary, ExportSettings, ("run",), run, str)


def completion(arguments: Sequence[str]) -> None:
    """Write the script by which a shell completes all this."""
    from crosscontext.completion import CompletionSettings
    from crosscontext.completion import completion as run
    from crosscontext.running import run_verb

    summary = (
        f"{completion.__doc__}\nSHELL: bash, zsh or fish. The first lines of the script say where it belongs."
    )
    usage = "crosscontext completion SHELL"
    run_verb(
        arguments,
        usage,
        summary,
        CompletionSettings,
        ("shell",),
        lambda given, _: run(given),
        lambda s: s.text,
    )


VERBS: Mapping[str, Callable[[Sequence[str]], None]] = {
    "pretrain": pretrain,
    "evaluate": evaluate,
    "compare": compare,
    "report": report,
    "study": study,
    "verify-resume": verify_resume,
    "views": views,
    "doctor": doctor,
    "convert": convert,
    "export": export,
    "embed": index_verbs.embed,
    "search": index_verbs.search,
    "dedupe": index_verbs.dedupe,
    "outliers": index_verbs.outliers,
    "label": index_verbs.label,
    "plan": cluster_verbs.plan,
    "submit": cluster_verbs.submit,
    "completion": completion,
}
"""What the program can do, by the word that asks for it."""
