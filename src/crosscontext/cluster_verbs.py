"""The verbs for runs on many processes: plan, submit.

options → **cluster verbs** → cli. Heavy imports wait for their verb.
"""

from collections.abc import Sequence


def plan(arguments: Sequence[str]) -> None:
    """Forecast time, memory, traffic and cost on many GPUs."""
    from crosscontext.forecast_text import plan_text
    from crosscontext.forecasting import PlanSettings
    from crosscontext.forecasting import plan as run
    from crosscontext.recipes import recipes_known
    from crosscontext.running import run_verb

    summary = f"{plan.__doc__}\n{recipes_known('pretrain')}"
    usage = "crosscontext plan [RECIPE] [--machine NAME] [OPTIONS]"
    run_verb(arguments, usage, summary, PlanSettings, (), run, plan_text, recipes="pretrain")


def submit(arguments: Sequence[str]) -> None:
    """Make a run a SLURM job that resumes by itself."""
    from crosscontext.recipes import recipes_known
    from crosscontext.running import run_verb
    from crosscontext.submission import SubmitReport, SubmitSettings
    from crosscontext.submission import submit as run

    def text(report: SubmitReport) -> str:
        if report.script is not None:
            return report.script
        return f"job: {report.job}\noutput: {report.jobs}\nrun: {report.out}"

    summary = f"{submit.__doc__}\n{recipes_known('pretrain')}"
    usage = "crosscontext submit [RECIPE] --out RUN [OPTIONS]"
    run_verb(arguments, usage, summary, SubmitSettings, (), run, text, recipes="pretrain")
