"""Several processes on this machine: images a second, efficiency, and bytes on the wire against theory.

A process has one thread. Its ideal is the same share of the batch in as many processes that know nothing of
each other, at the same time: what they lose, they lose to memory bandwidth and cores, not to messages.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypedDict

import torch

from bench.harness import HERE, ChildFailedError, Row, alternate, compare, spread_note
from bench.step import our_settings
from bench.wire import Collectives, bytes_sent
from crosscontext import distributed
from crosscontext.assembly import build_method, noise_views
from crosscontext.calibration import calibrate
from crosscontext.joining import joined
from crosscontext.machine import keep_memory
from crosscontext.planning import PretrainSettings
from crosscontext.scaling import forecast
from crosscontext.schedules import Plan
from crosscontext.stepping import Stepper
from crosscontext.traffic import messages
from crosscontext.workload import workload_of

COMMAND = "python -m bench scaling"
BATCH = 128
NUM_IMAGES = 1_281_167
UNTIMED = 2
QUIET = {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}  # DDP warns of what it may do without
SETTLING = 0.3  # seconds until the kernel has sent what it was given


class Measured(TypedDict):
    """What a process reports."""

    seconds: float
    """Of a step, on average."""

    calls: dict[str, int]
    payload: dict[str, int]
    """Bytes handed to collectives in one step, by kind."""

    sent: float
    """Bytes that TCP has sent in a step, on average."""


class Counted(NamedTuple):
    """Bytes of a step, of each process."""

    payload: int
    predicted: int
    sent: float
    least: float


def measure(short: bool) -> list[Row]:
    """Compare one, two and four processes with their ideal and their forecast, and count bytes."""
    small = our_settings("cgh", 0.25, batch_size=BATCH, winograd=True)
    counts, steps = ((1, 2), 8) if short else ((1, 2, 4), 40)
    together = {f"{count}": partial(seconds_of, small, count, steps, together=True) for count in counts}
    apart = {
        f"{count} apart": partial(seconds_of, small, count, steps, together=False) for count in counts[1:]
    }
    contenders: dict[str, Callable[[], float]] = {**together, **apart}
    timings = alternate(contenders, rounds=1 if short else 5)
    alone = BATCH / timings["1"].seconds
    rows = []
    for count in counts[1:]:
        ours, ideal = timings[f"{count}"], timings[f"{count} apart"]
        rate = BATCH / ours.seconds
        rows.append(
            compare(
                f"CGH, ResNet-18 × 0.25, batch {BATCH}, {count} processes of one thread",
                "images/s",
                rate,
                alone,
                "one process of one thread",
                COMMAND,
                BATCH / ideal.seconds,
                f"{spread_note(ours, timings['1'])}; limit: {count} processes that send nothing; "
                f"{rate / alone / count:.0%} of {count} times one",
            )
        )
    machine = calibrate(small.model_copy(update={"threads": 1}), NUM_IMAGES, lambda _: None)
    for count in counts[:2]:
        measured, said = timings[f"{count}"].seconds, forecast(small, machine, NUM_IMAGES, count).step_seconds
        rows.append(
            compare(
                f"a step of CGH, ResNet-18 × 0.25, batch {BATCH}, {count} processes, against its forecast",
                "s",
                measured,
                said,
                "`crosscontext plan --machine here`",
                COMMAND,
                note="a ratio of 1 is a forecast that comes true",
            )
        )
    of_bytes = {"ResNet-50, K = 65 536, D = 512": resnet50()} | ({} if short else {"ResNet-18 × 0.25": small})
    for name, settings in of_bytes.items():
        found = count_bytes(settings, 2)
        rows.append(
            compare(
                f"bytes that each of 2 processes sends in a step: {name}",
                "MB",
                found.sent / 1e6,
                None,
                "",
                COMMAND,
                found.least / 1e6,
                f"limit: a ring; handed to collectives {found.payload:,} B, forecast {found.predicted:,} B",
            )
        )
    return rows


def resnet50() -> PretrainSettings:
    """The published sizes with 65 536 slots; few and small images, on which the bytes hardly depend."""
    return our_settings(
        "cgh",
        1.0,
        batch_size=4,
        image_size=32,
        winograd=False,
        backbone={"name": "resnet", "depth": 50, "stem": "large"},
        method={
            "name": "cgh",
            "memory": {"slots": 65_536, "start": "random"},
            "momentum": 0.999,
            "contexts": {"global_width": 512, "hyper_width": 512, "hidden_width": 4096},
        },
    )


def seconds_of(settings: PretrainSettings, count: int, steps: int, together: bool) -> float:
    """Seconds of a step of so many processes; apart, each does its share and sends nothing."""
    if together:
        return max(each["seconds"] for each in run(settings, count, steps))
    share = settings.model_copy(update={"batch_size": settings.batch_size // count})
    return max(each["seconds"] for each in run(share, count, steps, together=False))


def count_bytes(settings: PretrainSettings, count: int, steps: int = 2) -> Counted:
    """Count the bytes of a step, and say what was forecast and what is the least possible.

    The least is a ring for the gradients and the keys; statistics are counted too, as nothing can do without.
    """
    measured = run(settings, count, steps)[0]
    assert settings.steps is not None
    plan = Plan(NUM_IMAGES, settings.batch_size, settings.steps)
    work = workload_of(settings, plan, settings.batch_size // count)
    sent = [each for each in messages(settings, work, count) if each.what != "signals and time limits"]
    return Counted(
        sum(measured["payload"].values()),
        sum(each.payload for each in sent),
        measured["sent"],
        sum(each.sent(count) for each in sent),
    )


def run(settings: PretrainSettings, count: int, steps: int, together: bool = True) -> list[Measured]:
    """Do steps in so many processes at once, each a program of its own.

    Args:
        settings: of all processes together, or of each where they are apart.
        count: of processes.
        steps: that are timed.
        together: whether they form a group.

    Raises:
        ChildFailedError: one of them failed.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    arguments = [settings.model_dump_json(), str(steps)]
    programs = []
    for rank in range(count):
        launched: Mapping[str, object] = {**shared, "RANK": rank, "LOCAL_RANK": rank} if together else {}
        programs.append(
            subprocess.Popen(
                [sys.executable, "-m", "bench.processes", *arguments],
                env={**os.environ, **QUIET, **{k: str(v) for k, v in launched.items()}},
                cwd=HERE.parent,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    outputs = [program.communicate()[0] for program in programs]
    if any(program.returncode for program in programs):
        raise ChildFailedError(f"One of {count} processes failed; its message stands above.")
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def in_this_process(settings: PretrainSettings, steps: int) -> Measured:
    """Do the steps of one of the processes, on views that are ready."""
    assert settings.steps is not None
    torch.set_num_threads(1)
    keep_memory()
    plan = Plan(NUM_IMAGES, settings.batch_size, settings.steps)
    method = build_method(settings, plan, torch.device("cpu"))
    stepper = Stepper(settings, plan, method, settings.optimizer.build(method.student))
    rows = len(range(settings.batch_size)[distributed.share(settings.batch_size)])
    views = noise_views(settings, method, rows)
    first = settings.steps // 2  # the warm-up of the loss is over
    for step in range(UNTIMED):
        stepper.step(views, first + step)
    with Collectives() as counted:
        stepper.step(views, first)
    _settle()
    before, start = bytes_sent(), time.perf_counter()
    for step in range(steps):
        stepper.step(views, first + step)
    seconds = (time.perf_counter() - start) / steps
    time.sleep(SETTLING)
    sent = (bytes_sent() - before) / steps
    _settle()
    return {"seconds": seconds, "calls": dict(counted.calls), "payload": dict(counted.payload), "sent": sent}


def _settle() -> None:
    """Let all have sent what they have to, and begin together."""
    distributed.meet()
    time.sleep(SETTLING)


def main(arguments: Sequence[str]) -> None:
    """Be one of the processes."""
    values: dict[str, Any] = json.loads(arguments[0])
    with joined(minutes=10.0):
        print(json.dumps(in_this_process(PretrainSettings.model_validate(values), int(arguments[1]))))


if __name__ == "__main__":
    main(sys.argv[1:])
