"""A run of the small study as its processes leave it, made in this process to save time."""

import json
from pathlib import Path
from typing import Any

from crosscontext.evaluation import evaluate
from crosscontext.pretraining import pretrain
from crosscontext.study_plan import StudySettings, plan_of
from crosscontext.study_runs import StudyRun, next_command, runs_of
from small_study import small_study


def small_runs(folder: Path, **changes: Any) -> tuple[StudySettings, list[StudyRun]]:
    """The runs of the small study; nothing is begun."""
    study = small_study(folder, **changes)
    return study, runs_of(study, plan_of(study))


def train(run: StudyRun, **changes: Any) -> None:
    """Do what the first command of a run asks for, with changes of the session."""
    command = next_command(run)
    assert command is not None
    assert command.arguments[0] == "pretrain"
    pretrain(run.settings.model_copy(update={"overwrite": True, **changes}))


def score(run: StudyRun) -> None:
    """Do what the commands after it ask for."""
    for evaluation in run.evaluations:
        scores = evaluate(evaluation)
        content = json.dumps([score.model_dump(mode="json") for score in scores])
        run.scores_of(evaluation).write_text(content)
