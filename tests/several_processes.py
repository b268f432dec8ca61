"""What each of several processes does in the tests, and how tests start them.

As a program: ``several_processes.py TASK [ARGUMENT]``, once a process, with the variables of a launcher.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Programs = list[subprocess.Popen[str]]


def start(count: int, *command: str) -> Programs:
    """Start a Python program in several processes that find each other, without a launcher over them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env=os.environ
            | {key: str(value) for key, value in shared.items()}
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def finish(programs: Programs, seconds: float = 400) -> list[tuple[int, str, str]]:
    """Wait for all; exit code, output and errors of each."""
    found = []
    for program in programs:
        try:
            output, errors = program.communicate(timeout=seconds)
        finally:
            program.kill()
        found.append((program.returncode, output, errors))
    return found


def run_task(count: int, *arguments: str) -> None:
    """Do a task of this file in several processes; all have to succeed."""
    for code, _, errors in finish(start(count, __file__, *arguments)):
        assert code == 0, errors


def pretrain_all(file: str) -> None:
    """Do the runs of a JSON list of settings, one after the other."""
    from crosscontext.errors import StoppedEarlyError
    from crosscontext.pretraining import PretrainSettings, pretrain

    for values in json.loads(Path(file).read_text()):
        try:
            pretrain(PretrainSettings.model_validate(values))
        except StoppedEarlyError:
            assert "stop_after" in values


def check_collectives() -> None:
    """Compare what the processes get from each other with what one process knows."""
    import pytest
    import torch

    from crosscontext import distributed
    from crosscontext.distributed import rank, share, size
    from crosscontext.errors import ProcessError

    torch.manual_seed(0)
    batch = 3 * size()
    first, second = torch.randn(batch, 5), torch.randn(batch, 2)
    mine = share(batch)
    gathered = distributed.gather({"first": first[mine], "second": second[mine]})
    assert torch.equal(gathered["first"], first)
    assert torch.equal(gathered["second"], second)

    images = torch.randn(batch, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    for seed in range(5):
        order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
        dealt = distributed.exchange(images[mine], order)
        assert torch.equal(dealt, images[order][mine])
        assert torch.equal(distributed.exchange(dealt, order.argsort()), images[mine])

    weight = torch.randn(5, 4, requires_grad=True)
    (whole,) = torch.autograd.grad((first @ weight).T.cov().square().sum(), weight)
    rows = distributed.whole_batch(first[mine] @ weight)
    (own,) = torch.autograd.grad(rows.T.cov().square().sum(), weight)
    distributed.average([own])
    torch.testing.assert_close(own, whole)

    middle = (size() - 1) / 2
    assert distributed.mean({"rank": float(rank()), "one": 1.0}) == {"rank": middle, "one": 1.0}
    assert distributed.union({f"{rank()}.jpg": "cut off"}) == {f"{n}.jpg": "cut off" for n in range(size())}
    assert distributed.from_first(float(rank() + 7)) == 7

    vote = distributed.Vote()
    answers = [vote.largest(15 if rank() == size() - 1 and call == 2 else 0) for call in range(5)]
    assert answers == [0, 0, 0, 15, 0]
    vote.close()
    assert vote.largest(3) == 0  # a new question, without the answer to the one before
    vote.close()

    state = {"slots": torch.ones(3), "pushed": 5, "weight": torch.full((2,), float(rank()))}
    with pytest.raises(
        ProcessError, match=r"After step 9 the \d processes hold different values of weight\."
    ):
        distributed.require_same(state, "after step 9")
    distributed.require_same(state | {"weight": torch.zeros(2)}, "after step 9")


def check_sync() -> None:
    """BatchNorm over the images of all processes is that of one process, forward and backward."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    from crosscontext import distributed
    from crosscontext.batch_norms import SyncSettings, settle_batch_norms

    torch.manual_seed(0)
    batch = 4 * distributed.size()
    mine = distributed.share(batch)
    for shape, plain in (((6,), nn.BatchNorm1d(6)), ((6, 5, 3), nn.BatchNorm2d(6))):
        norm = type(plain)(6)
        settle_batch_norms(nn.Sequential(nn.Linear(1, 1), norm), SyncSettings(), batch)
        assert type(norm) is not type(plain)
        images, targets = 5 + 3 * torch.randn(2, batch, *shape)
        ours, theirs = images[mine].requires_grad_(), images.clone().requires_grad_()
        F.mse_loss(norm(ours), targets[mine]).backward()
        F.mse_loss(plain(theirs), targets).backward()
        assert ours.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad / distributed.size(), theirs.grad[mine])
        for (name, weight), other_weight in zip(norm.named_parameters(), plain.parameters(), strict=True):
            assert weight.grad is not None
            distributed.average([weight.grad])
            torch.testing.assert_close(weight.grad, other_weight.grad, msg=name)
        for (name, buffer), other in zip(norm.named_buffers(), plain.buffers(), strict=True):
            torch.testing.assert_close(buffer, other, msg=name)


def fail_alone() -> None:
    """Process 1 has an error of its own, while the others wait for it."""
    from crosscontext import distributed
    from crosscontext.errors import DataError

    if distributed.rank() == 1:
        raise DataError("the disk of process 1 is empty. Fill it.")
    distributed.meet()


TASKS: dict[str, Callable[..., None]] = {
    "pretrain_all": pretrain_all,
    "check_collectives": check_collectives,
    "check_sync": check_sync,
    "fail_alone": fail_alone,
}


if __name__ == "__main__":
    from crosscontext.errors import CrossContextError
    from crosscontext.joining import joined

    try:
        with joined(0.5):
            TASKS[sys.argv[1]](*sys.argv[2:])
    except CrossContextError as failure:
        print(f"{type(failure).__name__} {failure.told}: {failure}", file=sys.stderr)
        sys.exit(failure.exit_code + 40)
