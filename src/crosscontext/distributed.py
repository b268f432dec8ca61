"""Processes that train together: which one this is, its share of a batch, and what they tell each other.

joining → **distributed** → BatchNorm, methods, steps, the loop. One process alone has no group: every
function then gives back what it was given, and nothing is sent. All processes call the collectives in the
same order.
"""

import hashlib
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from crosscontext.errors import ProcessError, SettingsError


def is_launched() -> bool:
    """Whether torchrun, or another launcher that sets its variables, has started this process."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def launch_id() -> str | None:
    """Name the launch that this process belongs to; processes that torchrun restarts keep the name.

    Returns:
        None without a launcher, and on several machines where torchrun got no --rdzv-id.
    """
    given = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if given != "none":
        return given
    on_one_machine = is_launched() and os.environ["WORLD_SIZE"] == str(local_size())
    return f"{socket.gethostname()}-{os.getppid()}" if on_one_machine else None


def is_restarted() -> bool:
    """Whether torchrun has started this process anew, after another one had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def local_rank() -> int:
    """Number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_size() -> int:
    """Processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def size() -> int:
    """Processes that train together."""
    return dist.get_world_size() if _has_group() else 1


def rank() -> int:
    """Number of this process, in [0, size). Process 0 writes what a run leaves behind."""
    return dist.get_rank() if _has_group() else 0


def is_first() -> bool:
    """Whether this is process 0, also before the processes have found each other."""
    return (rank() if _has_group() else int(os.environ.get("RANK", "0"))) == 0


def _has_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def check_share(batch_size: int, accumulate: int) -> None:
    """Make sure that a batch can be divided among the processes, and the share of each into parts.

    Raises:
        SettingsError: what is left over, and the nearest batch that would do.
    """
    parts = size() * accumulate
    if batch_size % parts:
        fits = max(round(batch_size / parts), 1) * parts
        raise SettingsError(
            f"batch_size is {batch_size}, which {size()} processes with {accumulate} parts each cannot share "
            f"equally. Set --batch-size to a multiple of {parts}, e.g. {fits}."
        )


def share(batch_size: int) -> slice:
    """Rows of a global batch that this process works on: a block, in the order of the ranks."""
    rows = batch_size // size()
    return slice(rank() * rows, (rank() + 1) * rows)


def collect(tensor: Tensor) -> Tensor:
    """Stack the tensors of all processes, which are of one shape, in the order of the ranks: (size, …)."""
    if size() == 1:
        return tensor[None]
    stacked = tensor.new_empty(size(), *tensor.shape)
    dist.all_gather(list(stacked), tensor.contiguous())
    return stacked


@torch.no_grad()
def gather(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the rows of all processes together, in the order of the global batch, by one collective.

    Args:
        rows: name → (b, D), with b and the type of numbers the same for all names.

    Returns:
        The same names, (size · b, D).
    """
    if size() == 1 or not rows:
        return dict(rows)
    packed = collect(torch.cat(list(rows.values()), dim=1)).flatten(0, 1)
    widths = [each.shape[1] for each in rows.values()]
    return dict(zip(rows, packed.split(widths, dim=1), strict=True))


def whole_batch(rows: Tensor) -> Tensor:
    """Put the rows of all processes together, for a loss that compares images of a batch with each other.

    Every process computes that loss, the same one, from all rows, so that it knows the gradient of its own
    rows without asking: nothing is sent in backward. As the gradients of the weights are averaged over the
    processes, that of the rows is multiplied by their number.

    Args:
        rows: (b, D).

    Returns:
        (size · b, D), in the order of the global batch.
    """
    if size() == 1:
        return rows
    result: Tensor = _WholeBatch.apply(rows)
    return result


class _WholeBatch(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, rows: Tensor) -> Tensor:
        return collect(rows).flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return gradient[share(len(gradient))] * size()


def exchange(rows: Tensor, order: Int64[Tensor, " B"]) -> Tensor:
    """Deal the rows of the global batch out anew: each process gets its share of the rows in another order.

    Args:
        rows: this process's share of the global batch, (b, …).
        order: a permutation of all B = size · b rows, on the CPU.

    Returns:
        ``all_rows[order][share(B)]``; each row is sent once.
    """
    if size() == 1:
        return rows[order.to(rows.device)]
    own, count = share(len(order)), len(rows)
    wanted = order[own]  # rows of the global batch, in the order of the result
    places = order.argsort()[own]  # where the rows of this process go
    leaving = rows[places.argsort().to(rows.device)].contiguous()
    arrived = torch.empty_like(leaving)
    from_each = torch.bincount(wanted // count, minlength=size()).tolist()
    to_each = torch.bincount(places // count, minlength=size()).tolist()
    dist.all_to_all_single(arrived, leaving, from_each, to_each)
    by_sender = torch.argsort(wanted // count, stable=True)  # the order in which they arrive
    return arrived[by_sender.argsort().to(rows.device)]


def add_up(tensor: Tensor) -> Tensor:
    """Sum over the processes, elementwise; the tensor itself becomes the sum."""
    if size() > 1:
        dist.all_reduce(tensor)
    return tensor


@torch.no_grad()
def average(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their means over the processes, by one collective."""
    kept = list(tensors)
    if size() == 1 or not kept:
        return
    total = add_up(torch.cat([each.flatten() for each in kept])) / size()
    for each, mean in zip(kept, total.split([each.numel() for each in kept]), strict=True):
        each.copy_(mean.view_as(each))


def mean(scalars: Mapping[str, float]) -> dict[str, float]:
    """Average numbers over the processes; all of them have the same names."""
    if size() == 1:
        return dict(scalars)
    total = add_up(torch.tensor(list(scalars.values()), dtype=torch.float64)) / size()
    return dict(zip(scalars, total.tolist(), strict=True))


def union(found: Mapping[str, str]) -> dict[str, str]:
    """Put mappings of all processes together."""
    if size() == 1:
        return dict(found)
    parts: list[Any] = [None] * size()
    dist.all_gather_object(parts, dict(found))
    return {key: value for part in parts for key, value in part.items()}


def from_first(number: float) -> float:
    """Give the number of process 0 to all."""
    if size() == 1:
        return number
    value = torch.tensor(number, dtype=torch.float64)
    dist.broadcast(value, src=0)
    return value.item()


def meet() -> None:
    """Wait until all processes are here."""
    add_up(torch.zeros(1))


@contextmanager
def first_goes_ahead() -> Iterator[None]:
    """Let process 0 do something before the others do it, too."""
    if not is_first():
        meet()
    yield
    if is_first():
        meet()


class Vote:
    """Asks all processes for the largest number that one of them names, without making anybody wait.

    With several processes the answer is that to the call before: it has travelled while a step was computed.
    """

    def __init__(self) -> None:
        self._asked: tuple[Tensor, Any] | None = None

    def largest(self, number: int) -> int:
        """Name a number; get the largest one named, the same in all processes."""
        if size() == 1:
            return number
        answer = 0
        if self._asked is not None:
            value, sending = self._asked
            sending.wait()
            answer = int(value)
        value = torch.tensor(number)
        self._asked = value, dist.all_reduce(value, op=dist.ReduceOp.MAX, async_op=True)
        return answer

    def close(self) -> None:
        """Wait for the answer that nobody will ask for: who leaves while it travels cuts the others off."""
        if self._asked is not None:
            _, sending = self._asked
            sending.wait()
            self._asked = None


def require_same(state: Mapping[str, object], when: str) -> None:
    """Make sure that all processes hold the same state, bit by bit.

    Args:
        state: tensors, and other values that print alike if they are alike.
        when: for the message, e.g. "before step 5".

    Raises:
        ProcessError: naming what differs.
    """
    if size() == 1:
        return
    digests = collect(torch.tensor([_digest(value) for value in state.values()]))
    differing = (digests != digests[0]).any(dim=0).tolist()
    names = [name for name, differs in zip(state, differing, strict=True) if differs]
    if names:
        raise ProcessError(
            f"{when[0].upper()}{when[1:]} the {size()} processes hold different values of "
            f"{', '.join(names[:5])}. Make sure that all machines have the same files and versions "
            "(environment.json), and start again."
        )


def _digest(value: object) -> int:
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    else:
        content = repr(value).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), signed=True)
