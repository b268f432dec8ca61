"""One run of a study on the disk: what is there already, and the command that comes next.

study plan → **study runs** → crew. What is done is read off what the commands have written, so that nothing
has to be kept in step with it.
"""

from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from crosscontext.contenders import told
from crosscontext.encoders import read_card
from crosscontext.errors import CheckpointError
from crosscontext.evaluation import EvaluateSettings
from crosscontext.layers import Layer, changes, resolve
from crosscontext.planning import SESSION_FIELDS, PretrainSettings
from crosscontext.results import Score, digest
from crosscontext.run_folder import RunFolder, write_atomically
from crosscontext.settings import Settings, dump_yaml, load_yaml
from crosscontext.study_plan import StudyPlan, StudySettings, at

_NO_SAY = {"run", "threads", "device", "workers", "batch_size", "cache"}  # in the scores
_SCORES = TypeAdapter(list[Score])


RunKey = tuple[str, int]
"""Cell and seed."""


class Command(NamedTuple):
    """What a process is started with."""

    arguments: tuple[str, ...]
    """Of the program, the verb first."""

    output: Path | None = None
    """File that takes what it prints, once it has ended well; None: the log."""


class StudyRun(NamedTuple):
    """One cell with one seed."""

    cell: str
    settings: PretrainSettings
    evaluations: tuple[EvaluateSettings, ...]

    @property
    def name(self) -> str:
        """For people."""
        return told_run(self.key)

    @property
    def key(self) -> RunKey:
        """Tells the runs of a study apart."""
        return self.cell, self.settings.seed

    @property
    def folder(self) -> RunFolder:
        """Where `crosscontext pretrain` writes."""
        return RunFolder(self.settings.out)

    @property
    def asked(self) -> Path:
        """Settings that the study asked for when the run was begun."""
        return self.folder.path / "asked.yaml"

    @property
    def log(self) -> Path:
        """What the commands said."""
        return self.folder.path / "log.txt"

    def scores_of(self, evaluation: EvaluateSettings) -> Path:
        """File with the scores of an evaluation; it is there once they are complete."""
        return self.folder.path / f"scores-{as_scored(evaluation)}.json"


def runs_of(study: StudySettings, plan: StudyPlan) -> list[StudyRun]:
    """List the runs of a study, seed by seed, so that early results are of all cells."""
    runs: list[StudyRun] = []
    for seed in study.seeds:
        for cell, settings in plan.cells.items():
            out = run_folder(study, (cell, seed)).path
            settled = settings.model_copy(update={"seed": seed, "out": out})
            evaluations = [
                each.model_copy(update={"run": out, **({"references": ()} if runs else {})})
                for each in plan.evaluations
            ]
            runs.append(StudyRun(cell, settled, tuple(evaluations)))
    return runs


def told_run(key: RunKey) -> str:
    """Name a run for people."""
    cell, seed = key
    return f"{cell}, seed {seed}"


def run_folder(study: StudySettings, key: RunKey) -> RunFolder:
    """Where a run is."""
    cell, seed = key
    return RunFolder(study.runs / cell / f"seed-{seed}")


def next_command(run: StudyRun) -> Command | None:
    """Find out what a run lacks, and write the settings that the command reads.

    Returns:
        None if the run is finished: trained to its end, with the scores of all evaluations.

    Raises:
        RunFolderError: the settings cannot be written.
    """
    path, threads = str(run.folder.path), str(run.settings.threads)
    if not is_trained(run):
        if run.asked.is_file() and run.folder.config.is_file() and run.folder.has_checkpoint:
            return Command(("pretrain", "--out", path, "--resume", "--threads", threads))
        run.folder.path.mkdir(parents=True, exist_ok=True)
        for scores in run.folder.path.glob("scores-*.json"):
            scores.unlink()
        _write(run.asked, run.settings)
        return Command(("pretrain", str(run.asked), "--overwrite"))
    for evaluation in run.evaluations:
        scores = run.scores_of(evaluation)
        if scores_in(scores) is None:
            recipe = scores.with_suffix(".yaml")
            _write(recipe, evaluation)
            return Command(("evaluate", path, str(recipe), "--json"), scores)
    return None


def is_trained(run: StudyRun) -> bool:
    """Whether the encoder is that of the last step."""
    if not (run.folder.config.is_file() and run.folder.encoder.is_file()):
        return False
    try:
        return read_card(run.folder.encoder).step == load_yaml(run.folder.config)["steps"]
    except CheckpointError:
        return False  # what a crash has left is written again


def is_finished(run: StudyRun) -> bool:
    """Whether nothing is left to do."""
    return is_trained(run) and all(scores_in(run.scores_of(each)) is not None for each in run.evaluations)


def changed(run: StudyRun) -> str:
    """Say in which settings a run that was begun differs from what the study asks for now; else nothing.

    Raises:
        SettingsError: the settings that it was begun with are no longer valid.
    """
    if not run.asked.is_file():
        return ""
    before = resolve(PretrainSettings, [Layer(str(run.asked), load_yaml(run.asked))])
    return told(differing(before, run.settings))


def differing(before: PretrainSettings, now: PretrainSettings) -> dict[str, tuple[object, object]]:
    """Find the settings that differ and have a say in the weights, with both values."""
    found = [path for path in changes(before, now) if path.partition(".")[0] not in SESSION_FIELDS]
    return {path: (at(before, path), at(now, path)) for path in found}


def forget(run: StudyRun) -> None:
    """Remove what the run has written, so that it begins anew."""
    run.folder.claim()
    run.asked.unlink(missing_ok=True)


def read_scores(run: StudyRun) -> list[Score]:
    """Read the scores of a finished run, as its evaluations are now."""
    found = [scores_in(run.scores_of(evaluation)) for evaluation in run.evaluations]
    return [score for scores in found for score in scores or ()]


def scores_in(file: Path) -> list[Score] | None:
    """Read what an evaluation has printed; None where it has not, or a crash has damaged the file."""
    try:
        return _SCORES.validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _write(path: Path, settings: Settings) -> None:
    write_atomically(path, lambda file: file.write(dump_yaml(settings).encode()))


def as_scored(evaluation: EvaluateSettings) -> str:
    """Identify an evaluation by what has a say in its scores."""
    return digest(evaluation.model_dump(mode="json", exclude=_NO_SAY))
