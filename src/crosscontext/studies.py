"""Methods × settings × seeds under one budget: a study file → **studies** → runs, and what they found.

study plan → trials → crew → study records. What is finished stays so: the same command again runs what is
missing, and nothing else.
"""

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence

from crosscontext.crew import claimed, work
from crosscontext.errors import SettingsError, StudyError
from crosscontext.machine import choose_device
from crosscontext.study_plan import StudyPlan, StudySettings, named_cells, plan_of
from crosscontext.study_records import RECORDS, StudyRecord, finished_run, recorded, write_records
from crosscontext.study_runs import RunKey, StudyRun, changed, forget, is_finished, is_trained, runs_of
from crosscontext.trials import Trial, try_out

__all__ = ["StudySettings", "describe", "study"]


def study(settings: StudySettings, notify: Callable[[str], None] = lambda _: None) -> StudyRecord:
    """Run what is missing of a study, and write its results after each run that is finished.

    Args:
        settings: see there.
        notify: is told in one line each what happens.

    Raises:
        SettingsError: a cell is wrong, does not work, cannot be compared, or was begun with other settings.
        RunFolderError: another study is at work on these runs, or something cannot be written.
        StudyError: runs have failed; all others are finished.
        InterruptedRunError: a signal has ended the study; the same command goes on.
    """
    plan = plan_of(settings)
    with claimed(settings.runs, notify) as lock:
        found = recorded(settings, plan)
        trials = try_out(settings, _to_try(settings, plan, found), notify)
        runs = _runs(settings, plan, trials)
        _settle_changes(runs, settings.overwrite, notify)
        here = {run.key: finished_run(run) for run in runs if is_finished(run)}
        if gone := len(found.keys() - here.keys()):
            notify(f"{gone} runs are not here, but in {settings.out / RECORDS}: they count as finished")
        found |= here
        unfinished = [run for run in runs if run.key not in found]
        if found:
            notify(f"{len(found)} of {len(runs)} runs are finished already")
            write_records(settings, runs, found)

        def keep(run: StudyRun) -> None:
            found[run.key] = finished_run(run)
            write_records(settings, runs, found)
            notify(f"{run.name}: finished, {len(found)} of {len(runs)}")

        failures = work(unfinished, jobs_of(settings, plan), lock, notify, keep)
    if failures:
        causes = [f"{failure.run.name}: {failure.cause}; log: {failure.run.log}" for failure in failures]
        summary = f"{len(failures)} of {len(runs)} runs failed; the same command runs them again."
        raise StudyError("\n".join([summary, *causes]))
    return write_records(settings, runs, found)


def describe(settings: StudySettings, notify: Callable[[str], None] = lambda _: None) -> str:
    """Say what a study would do, and how long it would train, after a trial of each cell.

    Raises:
        SettingsError: a cell is wrong, does not work, or cannot be compared.
        RunFolderError: another study is at work on these runs.
    """
    plan = plan_of(settings)
    with claimed(settings.runs, notify):
        known = recorded(settings, plan)
        trials = try_out(settings, plan, notify)
    runs = _runs(settings, plan, trials)
    jobs = jobs_of(settings, plan)
    lines = [f"{len(plan.cells)} cells × {len(settings.seeds)} seeds, {jobs} runs at once"]
    for cell, values in named_cells(settings).items():
        trial = trials[cell]
        states = [_state(run, run.key in known) for run in runs if run.cell == cell]
        counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        size = plan.cells[cell].batch_size
        lines.append(
            f"  {cell} {json.dumps(values)}: {trial.steps} steps of {size} images, "
            f"{trial.minutes:.1f} minutes a run; {counted}"
        )
    tasks = [task.name for evaluation in plan.evaluations for task in evaluation.tasks]
    missing = [run for run in runs if run.key not in known and not is_trained(run)]
    left = sum(trials[run.cell].minutes for run in missing) / jobs
    lines.append(f"  each is scored by: {', '.join(tasks)}")
    lines.append(f"{left:.0f} minutes of training are left, at the speed of a cell that runs alone")
    return "\n".join(lines)


def jobs_of(settings: StudySettings, plan: StudyPlan) -> int:
    """Settle how many runs are made at once."""
    if settings.jobs != "auto":
        return settings.jobs
    on_cpu = all(choose_device(cell.device).type == "cpu" for cell in plan.cells.values())
    return max((os.cpu_count() or 1) // settings.threads, 1) if on_cpu else 1


def _to_try(settings: StudySettings, plan: StudyPlan, found: Collection[RunKey]) -> StudyPlan:
    """Keep the cells with something left to do, or all where it takes trials to know what there is to do."""
    if settings.budget.minutes is not None:
        return plan
    runs = runs_of(settings, plan)
    left = {run.cell for run in runs if changed(run) or not (run.key in found or is_finished(run))}
    return plan._replace(cells={name: cell for name, cell in plan.cells.items() if name in left})


def _runs(settings: StudySettings, plan: StudyPlan, trials: Mapping[str, Trial]) -> list[StudyRun]:
    """List the runs, with budgets of minutes turned into steps."""
    in_steps = {
        name: cell.model_copy(update={"minutes": None, "steps": trials[name].steps})
        if cell.minutes is not None
        else cell
        for name, cell in plan.cells.items()
    }
    return runs_of(settings, plan._replace(cells=in_steps))


def _settle_changes(runs: Sequence[StudyRun], overwrite: bool, notify: Callable[[str], None]) -> None:
    """Refuse to mix runs of different settings, or forget those of the old ones.

    Hours of training are not thrown away by an edit of the file: that has to be asked for.
    """
    found = [(run, what) for run in runs if (what := changed(run))]
    if found and not overwrite:
        lines = [f"{run.name}: {what}" for run, what in found]
        raise SettingsError(
            "\n".join(
                [
                    f"{len(found)} runs were begun with other settings than the study has now (before, now).",
                    *lines,
                    "Take the change back, train these runs anew with --overwrite, or choose another --runs.",
                ]
            )
        )
    for run, what in found:
        notify(f"{run.name}: begins anew, because of {what}")
        forget(run)


def _state(run: StudyRun, is_recorded: bool) -> str:
    if is_recorded and not is_trained(run):
        return "recorded"
    if what := changed(run):
        return f"begun with other settings: {what}"
    if is_finished(run):
        return "finished"
    if is_trained(run):
        return "trained"
    return "begun" if run.folder.has_checkpoint else "new"
