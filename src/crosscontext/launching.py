"""One command → several processes of this machine that train together, by PyTorch's own launcher.

settings with devices > 1 → **launching** → `crosscontext pretrain` once a process, as torchrun would start it
"""

import logging
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from crosscontext.distributed import is_launched
from crosscontext.errors import InterruptedRunError, ProcessError
from crosscontext.planning import PretrainSettings
from crosscontext.settings import dump_yaml

_TALKATIVE = ("torch.distributed.elastic.multiprocessing.api", "torch.distributed.elastic.agent.server.api")


def is_launch_due(settings: PretrainSettings) -> bool:
    """Whether the settings ask for several processes, which nobody has started yet."""
    return settings.devices > 1 and not is_launched()


def launch(settings: PretrainSettings) -> None:
    """Train in as many processes as the settings ask for; what they say goes to this process's outputs.

    Raises:
        ProcessError: one of them was killed, or has failed and said why.
        InterruptedRunError: a signal came to this process; they have saved a checkpoint.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in _TALKATIVE:  # what they say is said below, in one sentence
        logging.getLogger(name).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=settings.devices,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    with TemporaryDirectory() as place:
        recipe = Path(place) / "settings.yaml"
        recipe.write_text(dump_yaml(settings), encoding="utf-8")
        command = ("-m", "crosscontext", "pretrain", str(recipe))
        try:
            elastic_launch(config, sys.executable)(*command)
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
            raise _failure(codes, settings) from error
        except SignalException as error:
            interrupted = InterruptedRunError(
                f"Interrupted by {error.sigval.name}; the processes have ended.", error.sigval
            )
            interrupted.told = True  # by process 0, with the step
            raise interrupted from error


def _failure(codes: dict[int, int], settings: PretrainSettings) -> ProcessError:
    """Say which process was killed, or take over the exit code of one that has failed and said why.

    Args:
        codes: exit codes by rank, negative for signals. When one process fails, the launcher itself ends the
            others by SIGTERM.
        settings: of the run.
    """
    causes = {rank: code for rank, code in codes.items() if code != -signal.SIGTERM} or codes
    rank = min(causes, key=lambda rank: causes[rank])
    if causes[rank] > 0:
        failure = ProcessError(f"Process {rank} of {settings.devices} has failed.", causes[rank])
        failure.told = True
        return failure
    return ProcessError(
        f"Process {rank} of {settings.devices} was killed by {signal.Signals(-causes[rank]).name}; the last "
        f"checkpoint is kept. Go on with: crosscontext pretrain --out {settings.out} --resume. If nobody "
        "killed it, the machine was out of memory: lower --batch-size, --workers or --hold-gigabytes."
    )
