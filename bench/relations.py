"""The relation loss with and without the (B, K) matrix: time and memory of forward and backward.

Relations of the published size (batch 256, width 512, teacher and student in different contexts) to 4096 …
131 072 slots. Memory is what the peak of resident memory (VmHWM, of Linux) grows by in a process of its own,
after inputs are made and a small loss has warmed up the libraries; so the slots themselves are not counted.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from bench.harness import Row, alternate, clocked, compare, fresh, spread_note
from crosscontext.losses import relation_cross_entropy
from crosscontext.machine import keep_memory
from crosscontext.relations import relate

BATCH, WIDTH, TEACHER_TEMPERATURE, STUDENT_TEMPERATURE = 256, 512, 0.04, 0.08
COMMAND = "python -m bench relations"
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def plain(student: Tensor, slots: Tensor, teacher: Tensor, teacher_slots: Tensor) -> tuple[Tensor, Tensor]:
    """Write both relations out, and leave the gradient to autograd."""
    target = (teacher @ teacher_slots.T / TEACHER_TEMPERATURE).softmax(dim=1)
    log_prediction = (student @ slots.T / STUDENT_TEMPERATURE).log_softmax(dim=1)
    entropy = torch.special.entr(target).sum(dim=1).mean()
    return -(target * log_prediction).sum(dim=1).mean(), entropy


def streamed(student: Tensor, slots: Tensor, teacher: Tensor, teacher_slots: Tensor) -> tuple[Tensor, Tensor]:
    """Use the loss of the package."""
    target = relate(teacher, teacher_slots, slots, TEACHER_TEMPERATURE)
    return relation_cross_entropy(target, student, slots, STUDENT_TEMPERATURE), target.entropy


LOSSES: dict[str, Loss] = {"plain": plain, "streamed": streamed}


def inputs(num_slots: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Make student, slots, teacher and its slots, without copies that would raise the peak."""
    torch.manual_seed(0)
    rows = []
    for count in (BATCH, num_slots, BATCH, num_slots):
        row = torch.empty(count, WIDTH).normal_()
        rows.append(row.div_(torch.linalg.vector_norm(row, dim=1, keepdim=True)))
    student, slots, teacher, teacher_slots = rows
    return student.requires_grad_(), slots, teacher, teacher_slots


def step(loss: Loss, given: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """Run forward and backward."""
    given[0].grad = None
    loss(*given)[0].backward()


def peak_kilobytes() -> int:
    """Largest resident memory of this process so far."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def growth(name: str, num_slots: int) -> float:
    """Megabytes that one forward and backward adds to the peak; run in a fresh process."""
    given = inputs(num_slots)
    step(LOSSES[name], (given[0], given[1][:BATCH], given[2], given[3][:BATCH]))
    before = peak_kilobytes()
    step(LOSSES[name], given)
    return (peak_kilobytes() - before) / 1024


def measure(short: bool) -> list[Row]:
    """Two rows a size of the memory."""
    keep_memory()  # as `pretrain` does
    rows = []
    for num_slots in (4096, 131_072) if short else (4096, 16_384, 65_536, 131_072):
        given = inputs(num_slots)
        works = {name: clocked(partial(step, loss, given)) for name, loss in LOSSES.items()}
        timings = alternate(works, rounds=3 if short else 9, warmup=1)
        peaks = {name: fresh(growth, name=name, num_slots=num_slots) for name in LOSSES}
        claim = f"relation loss, batch {BATCH}, width {WIDTH}, K = {num_slots}"
        seconds = {name: 1000 * timing.seconds for name, timing in timings.items()}
        spread = spread_note(*(timings[name] for name in ("streamed", "plain")))
        rows += [
            compare(
                f"{claim}: time", "ms", seconds["streamed"], seconds["plain"], "plain", COMMAND, note=spread
            ),
            compare(f"{claim}: memory", "MB", peaks["streamed"], peaks["plain"], "plain", COMMAND),
        ]
    return rows
