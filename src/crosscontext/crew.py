"""Several runs at once, each in a process of its own: study runs → **crew** → finished runs and failures.

A process is one command of `crosscontext`, as a person would type it; the log has it word for word.
"""

import os
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from crosscontext.errors import CrossContextError, InterruptedRunError, RunFolderError
from crosscontext.interruption import Interruption
from crosscontext.locking import Use, take
from crosscontext.study_runs import Command, StudyRun, is_trained, next_command, scores_in

_SECONDS_BETWEEN_LOOKS = 0.1
_BEGINS = "$ crosscontext "  # in the log, what a command said
_STUDYING = Use(
    "a folder of runs", "Another study, or a process that one has left behind, is at work in", "--runs"
)


class Failure(NamedTuple):
    """A run that ended otherwise than it should have."""

    run: StudyRun
    cause: str


class _Worker(NamedTuple):
    run: StudyRun
    command: Command
    process: subprocess.Popen[bytes]
    output: IO[bytes]


def work(
    runs: Sequence[StudyRun],
    jobs: int,
    lock: int,
    tell: Callable[[str], None],
    finished: Callable[[StudyRun], None],
) -> list[Failure]:
    """Bring runs to their end, so many at once. A failure stops its run and no other.

    The first Ctrl-C or SIGTERM asks all processes to save and end, and waits for them; a second one kills
    them.

    Args:
        runs: to be finished, in this order.
        jobs: processes at once.
        lock: what `claimed` gave; each process holds it too.
        tell: is told in one line each what begins and what fails.
        finished: is called after each run that has all it needs.

    Returns:
        The runs that failed, with what their logs say.

    Raises:
        InterruptedRunError: a signal has ended the work.
        CrossContextError: what `finished` raises, after all processes have saved and ended.
    """
    waiting, workers, failures = deque(runs), list[_Worker](), list[Failure]()

    def fail(run: StudyRun, cause: str) -> None:
        tell(f"{run.name}: {cause}; log: {run.log}")
        failures.append(Failure(run, cause))

    def advance(run: StudyRun) -> None:
        try:
            worker = _started(run, lock)
        except RunFolderError as error:
            fail(run, str(error))
        except OSError as error:
            fail(run, f"cannot be started: {error}")
        else:
            finished(run) if worker is None else workers.append(worker)

    with Interruption() as interruption:
        try:
            while waiting or workers:
                while waiting and len(workers) < jobs:
                    tell(f"{waiting[0].name}: begins, log: {waiting[0].log}")
                    advance(waiting.popleft())
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                interruption.ask()
                for worker in [worker for worker in workers if worker.process.poll() is not None]:
                    workers.remove(worker)
                    worker.output.close()
                    if interruption.signal is not None:
                        continue
                    if cause := _cause_of_failure(worker):
                        fail(worker.run, cause)
                    else:
                        advance(worker.run)
                if interruption.signal is not None:
                    waiting.clear()
                    _end(workers, tell)
        except CrossContextError:  # the results cannot be written
            _end(workers, tell)
            raise
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.wait()
        if interruption.signal is not None:
            raise InterruptedRunError(
                f"Interrupted by {interruption.signal.name}; all runs have stopped with their checkpoints. "
                "The same command goes on.",
                interruption.signal,
            )
    return failures


@contextmanager
def claimed(folder: Path, tell: Callable[[str], None]) -> Iterator[int]:
    """Keep other studies out of a folder of runs, as long as this one or any of its processes lives.

    Args:
        folder: of the runs.
        tell: is told in one line if the file system has no locks.

    Raises:
        RunFolderError: another one is at work there, or the folder cannot be written.
    """
    with take(folder, _STUDYING, tell) as file:
        yield file.fileno()


def _started(run: StudyRun, lock: int) -> _Worker | None:
    """Start what comes next in a run; None if that was all."""
    command = next_command(run)
    if command is None:
        return None
    with run.log.open("ab") as log:
        log.write(f"{_BEGINS}{shlex.join(command.arguments)}\n".encode())
        log.flush()
        output = _unfinished(command.output).open("wb") if command.output else run.log.open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "crosscontext", *command.arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": str(run.settings.threads)},
            start_new_session=True,  # Ctrl-C reaches this process alone, which then asks the others
            pass_fds=(lock,),
        )
    return _Worker(run, command, process, output)


def _cause_of_failure(worker: _Worker) -> str:
    """Say why a process failed; of one that did not, put its output in place and say nothing."""
    code, command = worker.process.returncode, worker.command
    verb = command.arguments[0]
    if code != 0:
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{verb} failed ({ended}){_last_complaint(worker.run.log)}"
    if command.output is not None:
        printed = _unfinished(command.output)
        if scores_in(printed) is None:
            return f"{verb} ended well, but what it printed into {printed} is no list of scores"
        printed.replace(command.output)
    elif not is_trained(worker.run):
        return f"{verb} ended well, but {worker.run.folder.encoder} is not that of the last step"
    return ""


def _last_complaint(log: Path) -> str:
    of_all = log.read_text(encoding="utf-8", errors="replace")
    lines = of_all.rpartition(f"\n{_BEGINS}")[2].splitlines()  # of this command, not of those before it
    said = next((line for line in reversed(lines) if line.startswith("error: ")), "")
    return said.replace("error", "", 1)


def _end(workers: Sequence[_Worker], tell: Callable[[str], None]) -> None:
    """Ask all processes to save and end, and wait for that."""
    if workers:
        tell(f"stopping {len(workers)} runs; their checkpoints are being saved")
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.wait()


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}")
