"""The relation loss with and without the (B, K) matrix: seconds and memory of forward and backward.

Run: python bench/relations.py [--short]. Relations of the published size (batch 256, width 512, teacher and
student in different contexts) to 4096 … 131 072 slots; two minutes on an idle computer, seconds with --short.

seconds: median over rounds in which both take turns, in one process. megabytes: what the peak of resident
memory (VmHWM, of Linux) grows by in a process of its own, after inputs are made and a small loss has warmed
up the libraries; so the slots themselves are not counted.
"""

import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from crosscontext.losses import relation_cross_entropy
from crosscontext.machine import describe_machine
from crosscontext.relations import relate

BATCH, WIDTH, TEACHER_TEMPERATURE, STUDENT_TEMPERATURE = 256, 512, 0.04, 0.08
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


def seconds(num_slots: int, rounds: int) -> dict[str, float]:
    """Median time of each, in turns."""
    given = inputs(num_slots)
    times: dict[str, list[float]] = {name: [] for name in LOSSES}
    for turn in range(rounds + 1):
        for name, loss in LOSSES.items():
            start = time.perf_counter()
            step(loss, given)
            if turn:  # the first one warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}


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


def measure(short: bool) -> list[dict[str, object]]:
    """One record a size of the memory."""
    records: list[dict[str, object]] = []
    for num_slots in (4096, 16_384) if short else (4096, 16_384, 65_536, 131_072):
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            megabytes = {name: pool.apply(growth, (name, num_slots)) for name in LOSSES}
        times = seconds(num_slots, rounds=3 if short else 7)
        records.append(
            {
                "batch": BATCH,
                "width": WIDTH,
                "slots": num_slots,
                "seconds": {name: round(value, 4) for name, value in times.items()},
                "seconds_streamed_over_plain": round(times["streamed"] / times["plain"], 3),
                "megabytes": {name: round(value, 1) for name, value in megabytes.items()},
            }
        )
    return records


def main() -> None:
    """Print the records, with the machine, as JSON."""
    machine = describe_machine(torch.device("cpu")) | {"threads": torch.get_num_threads()}
    print(json.dumps({"relations": measure("--short" in sys.argv), **machine}, indent=1))


if __name__ == "__main__":
    main()
