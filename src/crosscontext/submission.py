"""A run as a job of SLURM that goes on by itself after its time limit: recipe → **submission** → submitit.

Each task of the job starts `crosscontext pretrain`, as torchrun would. The run stops before the limit of
SLURM, with a checkpoint; the job then asks to be queued again, and resumes.
"""

import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from crosscontext.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_TERMINATED, SettingsError, StoppedEarlyError
from crosscontext.planning import PretrainSettings
from crosscontext.run_folder import RunFolder
from crosscontext.schedules import Timespan, seconds_of
from crosscontext.settings import AbsolutePath, Settings, dump_yaml

if TYPE_CHECKING:
    from submitit import JobEnvironment
    from submitit.helpers import DelayedSubmission

_SECONDS_BETWEEN_LOOKS = 0.2
_SIGNAL_DELAY = 120  # seconds from the signal of SLURM to its end, where the run has not stopped by itself
_PORTS = range(20_000, 60_000)


class SubmitSettings(PretrainSettings):
    """A run, and the job that makes it. `devices` is the number of processes on each machine."""

    out: AbsolutePath
    """Run folder to write, which all machines see."""

    cluster: Literal["slurm", "local"] = "slurm"
    """local: in the background of this machine, e.g. to try it out."""

    partition: str | None = None
    """Of SLURM; by default its own choice."""

    time: Timespan = "24h"
    """Limit of the job, each time that it is queued."""

    reserve: Timespan = "5min"
    """By which the run stops before that limit, to save a checkpoint."""

    nodes: int = Field(1, ge=1)
    """Machines."""

    cores: int = Field(8, ge=1)
    """Cores of each process, which decode its images too."""

    account: str | None = None
    """Who pays, where SLURM asks for that."""

    qos: str | None = None
    """Quality of service, where SLURM asks for that."""

    requeues: int = Field(100, ge=0)
    """How often the job may reach its limit and be queued again."""

    jobs: AbsolutePath | None = None
    """Folder of the job's files and of what its processes say; by default OUT-jobs, beside the run folder."""

    print: bool = False
    """Show the script for sbatch, and submit nothing."""


class SubmitReport(Settings):
    """What was submitted."""

    job: str | None
    """Its number; None: nothing was submitted."""

    out: Path
    """The run folder."""

    jobs: Path
    """Where the outputs of the job are."""

    script: str | None
    """For sbatch, where it was asked for."""


def submit(settings: SubmitSettings, notify: Callable[[str], None] = lambda _: None) -> SubmitReport:
    """Submit a run; it goes on until it is finished, however often its job is stopped.

    Args:
        settings: see there.
        notify: is told in one line when the run stops by itself.

    Raises:
        SettingsError: submitit or SLURM is not there, or the settings contradict each other.
        RunFolderError: the run folder is taken, or there is nothing to resume.
    """
    try:
        import submitit
        from submitit.slurm.slurm import SlurmExecutor
    except ImportError as error:
        raise SettingsError(
            'Jobs are submitted by submitit, which is not installed. Run: pip install "crosscontext[slurm]"'
        ) from error
    job = _job(settings)
    jobs = settings.jobs or settings.out.with_name(f"{settings.out.name}-jobs")
    parameters = _parameters(settings)
    if settings.print:

        class Writer(SlurmExecutor):
            """Writes scripts where there is no SLURM, too."""

            @classmethod
            def affinity(cls) -> int:
                """Let it be chosen."""
                return 1

        writer = Writer(jobs)
        writer.update_parameters(**writer._convert_parameters(parameters))
        script = writer._make_submission_file_text(writer._submitit_command_str, "script")
        return SubmitReport(job=None, out=settings.out, jobs=jobs, script=script.rstrip("\n"))
    RunFolder(settings.out).check(resume=settings.resume, overwrite=settings.overwrite)
    try:
        executor = submitit.AutoExecutor(
            jobs,
            settings.cluster,
            local_max_num_timeout=settings.requeues,
            slurm_max_num_timeout=settings.requeues,
        )
    except RuntimeError as error:
        raise SettingsError(
            f"Cannot submit to {settings.cluster}: {error}. Do it where sbatch is, or see --print."
        ) from error
    chosen = {(f"slurm_{name}" if name in _OF_SLURM else name): value for name, value in parameters.items()}
    executor.update_parameters(**chosen)
    number = executor.submit(job).job_id
    notify(f"each session stops {settings.reserve} before the limit of {settings.time}, and is queued again")
    return SubmitReport(job=number, out=settings.out, jobs=jobs, script=None)


_OF_SLURM = ("partition", "account", "qos", "signal_delay_s", "additional_parameters")


def _job(settings: SubmitSettings) -> "PretrainJob":
    left = seconds_of(settings.time) - seconds_of(settings.reserve)
    if left <= 0:
        raise SettingsError(
            f"time is {settings.time}, of which reserve takes {settings.reserve}, so that no time is left. "
            "Raise --time, or lower --reserve."
        )
    run = settings.alone()
    limit = run.time_limit if run.time_limit is not None else f"{left:.0f}s"
    return PretrainJob(dump_yaml(run.model_copy(update={"devices": 1, "time_limit": limit})), settings.out)


def _parameters(settings: SubmitSettings) -> dict[str, object]:
    """What the scheduler is asked for, in submitit's words."""
    parameters: dict[str, object] = {
        "name": settings.out.name,
        "timeout_min": math.ceil(seconds_of(settings.time) / 60),
        "nodes": settings.nodes,
        "tasks_per_node": settings.devices,
        "cpus_per_task": settings.cores,
        "stderr_to_stdout": True,
        "signal_delay_s": _SIGNAL_DELAY,
        "additional_parameters": {"requeue": True},
    }
    if settings.device != "cpu":
        parameters["gpus_per_node"] = settings.devices
    asked = {"partition": settings.partition, "account": settings.account, "qos": settings.qos}
    return parameters | {name: value for name, value in asked.items() if value is not None}


class PretrainJob:
    """What each task of the job does; submitit calls it, again after each requeueing.

    Args:
        recipe: settings of the run, as YAML.
        out: the run folder.
        requeued: whether the job has run before.
    """

    def __init__(self, recipe: str, out: Path, requeued: bool = False):
        self._recipe, self._out, self._requeued = recipe, out, requeued
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> str:
        """Train until the run is finished or stops.

        Returns:
            How it ended.

        Raises:
            RuntimeError: the training failed, and has said why.
        """
        import submitit

        place = submitit.JobEnvironment()
        with TemporaryDirectory() as folder:
            recipe = Path(folder) / "settings.yaml"
            recipe.write_text(self._recipe, encoding="utf-8")
            command = [sys.executable, "-m", "crosscontext", "pretrain", str(recipe), *self._how()]
            print(f"$ {shlex.join(command)}", flush=True)
            self._process = subprocess.Popen(command, env={**os.environ, **_launched(place)})
            while self._process.poll() is None:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        code = self._process.returncode
        if code == StoppedEarlyError.exit_code and place.global_rank == 0:
            signal.raise_signal(getattr(signal, f"SIG{place.USR_SIG}"))  # submitit queues the job again
        if code not in (EXIT_OK, StoppedEarlyError.exit_code, EXIT_INTERRUPTED, EXIT_TERMINATED):
            raise RuntimeError(
                f"crosscontext pretrain ended with exit code {code}; its message stands above."
            )
        return "finished" if code == EXIT_OK else "stopped, with a checkpoint"

    def checkpoint(self) -> "DelayedSubmission":
        """Stop the training with a checkpoint, and say how to go on; submitit asks before it requeues."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            with suppress(ChildProcessError):  # where it has ended
                # no `Popen.wait`: this is a signal's handler, which may interrupt that function itself
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(PretrainJob(self._recipe, self._out, requeued=True))

    def _how(self) -> list[str]:
        """Begin as the settings say; after a requeueing, by whomever, go on."""
        if not self._requeued and os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
            return []
        return ["--resume", "--no-overwrite"] if RunFolder(self._out).has_checkpoint else ["--overwrite"]


def _launched(place: "JobEnvironment") -> Mapping[str, str]:
    """Variables of a launcher, for a job of several tasks."""
    if place.num_tasks == 1:
        return {}
    number = int("".join(filter(str.isdigit, place.job_id)))
    return {
        "RANK": str(place.global_rank),
        "WORLD_SIZE": str(place.num_tasks),
        "LOCAL_RANK": str(place.local_rank),
        "LOCAL_WORLD_SIZE": str(place.num_tasks // place.num_nodes),
        "MASTER_ADDR": place.hostnames[0],
        "MASTER_PORT": str(_PORTS[number % len(_PORTS)]),
    }
