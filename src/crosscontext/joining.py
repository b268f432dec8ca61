"""How processes come together before training, and how each of them learns why another one has left.

torchrun's variables → **joining** → distributed. What a process has to say to the others when collectives no
longer work lies in the store through which they have found each other.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import NamedTuple

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from crosscontext.distributed import is_launched
from crosscontext.errors import CrossContextError, ProcessError

_MEETING = timedelta(minutes=10)  # within which all have started
_GRACE = 5.0  # seconds in which the others notice, too, that a collective has failed
_PAUSE = 0.05
_REASON, _HERE, _GONE = "reason", "here", "gone"
_UNFORESEEN = 1


@contextmanager
def joined(minutes: float) -> Iterator[None]:
    """Train together with the processes that the same launcher has started; without a launcher, alone.

    The first process that fails leaves its message in the store. The others fail, too, as soon as they wait
    for it, with its exit code, and keep silent about what it has told (`CrossContextError.told`).

    Args:
        minutes: how long a process waits for the others before it gives up.

    Raises:
        ProcessError: a process was killed or hangs; the message says which one.
    """
    if not is_launched() or os.environ["WORLD_SIZE"] == "1" or dist.is_initialized():
        yield
        return
    timeout = timedelta(minutes=minutes)
    try:
        shared, rank, size = next(iter(rendezvous("env://", timeout=_MEETING)))
        # torchrun's store survives a restart, with what the processes before have left in it
        store = PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", shared)
        ready = PrefixStore("ready", store)
        ready.set(str(rank), "")
        ready.wait([str(each) for each in range(size)], _MEETING)
        dist.init_process_group(
            store=PrefixStore("collectives", store), rank=rank, world_size=size, timeout=timeout
        )
    except dist.DistError as error:
        raise ProcessError(
            f"The processes did not find each other within {_MEETING}: {error}. Make sure that all of them "
            "are started, and that MASTER_ADDR can be reached on MASTER_PORT."
        ) from error
    board = _Board(PrefixStore("board", store), rank, size)
    try:
        yield
    except CrossContextError as error:
        error.told = board.post(str(error), error.exit_code).rank != rank
        raise
    except Exception as error:
        if not _is_lost_connection(error):
            board.post(f"{type(error).__name__}: {error}", _UNFORESEEN)
            raise
        raise board.explain(error) from error
    finally:
        board.leave()
        dist.destroy_process_group()


class _Reason(NamedTuple):
    """Why a run has ended for all."""

    rank: int
    """Of the process that says so."""

    message: str
    exit_code: int


class _Board:
    """Where processes leave notes for each other.

    Args:
        store: that all of them reach.
        rank: of this process.
        size: number of processes.
    """

    def __init__(self, store: Store, rank: int, size: int):
        self._store, self._rank, self._size = store, rank, size

    def post(self, message: str, exit_code: int) -> _Reason:
        """Say why this process fails; the first reason stays, and is given back."""
        own = _Reason(self._rank, message, exit_code)
        try:
            return _Reason(*json.loads(self._store.compare_set(_REASON, "", json.dumps(own))))
        except dist.DistError:  # who held the store has died
            return own

    def explain(self, error: Exception) -> ProcessError:
        """Find out why a collective has failed: who has said why it left, or who does not say anything.

        Args:
            error: of the collective.
        """
        try:
            self._store.set(f"{_HERE}/{self._rank}", "")
            silent = self._missing(_HERE, until_reason=True)
        except dist.DistError:
            silent = [0]  # without torchrun, it is process 0 that holds the store
        if not silent:
            message = (
                f"All {self._size} processes answer, but one of them was too late: {error}. If it was busy "
                "for a reason, raise --timeout-minutes."
            )
        else:
            named = ", ".join(str(rank) for rank in silent)
            message = (
                f"No answer from process {named} of {self._size}: killed, hanging, or cut off. {_REMEDY}"
            )
        reason = self.post(message, _UNFORESEEN)
        explained = ProcessError(reason.message, reason.exit_code)
        explained.told = reason.rank != self._rank
        return explained

    def leave(self) -> None:
        """Let process 0 go last where it holds the store, which the others still want to read."""
        with suppress(dist.DistError):
            self._store.set(f"{_GONE}/{self._rank}", "")
            if self._rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
                self._missing(_GONE, until_reason=False)

    def _missing(self, note: str, *, until_reason: bool) -> list[int]:
        """Wait a while for a note of every process, or for the first reason; name those that left none."""
        deadline = time.monotonic() + _GRACE
        while True:
            missing = [rank for rank in range(self._size) if not self._store.check([f"{note}/{rank}"])]
            has_reason = until_reason and self._store.check([_REASON])
            if not missing or has_reason or time.monotonic() > deadline:
                return missing
            time.sleep(_PAUSE)


_REMEDY = (
    "The last checkpoint is kept: the same command with --resume goes on from it, and torchrun "
    "--max-restarts does so by itself. A process that was killed without a message has often run out of "
    "memory: lower --batch-size, --workers or --hold-gigabytes."
)


def _is_lost_connection(error: Exception) -> bool:
    """Whether a collective failed because of another process; those of gloo have no type of their own."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
