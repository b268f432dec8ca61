"""This machine in the numbers of a forecast, timed in a minute: settings → **calibration** → forecasting.

Arithmetic, memory and messages are timed by themselves; a few steps of the run in one process then say how
much of the roofline it reaches. What several processes take follows from the model alone.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from crosscontext import distributed
from crosscontext.accelerators import Machine
from crosscontext.assembly import build_method, noise_views
from crosscontext.batch_norms import LocalSettings
from crosscontext.errors import ProcessError
from crosscontext.joining import joined
from crosscontext.machine import installed_memory, keep_memory, share_cores
from crosscontext.planning import PretrainSettings
from crosscontext.schedules import Plan
from crosscontext.stepping import Stepper
from crosscontext.workload import workload_of

_FEWEST, _TRIAL_STEPS, _UNTIMED = 8, 3, 1
_LONG = 0.5  # seconds of a step in which what does not grow with its images is little
_SIDE, _FLOATS = 1024, 2**26
_DECODED = 115.0  # images/s of a core, photometry included: python -m bench photographs, 229 on two
_GIGA, _TERA, _MICRO = 1e9, 1e12, 1e-6
_MESSAGES, _LARGE = 200, 2**22  # floats


def calibrate(settings: PretrainSettings, num_images: int, notify: Callable[[str], None]) -> Machine:
    """Time this machine's CPU.

    Args:
        settings: settled; a step is timed, of eight images or of as many more as take half a second.
        num_images: of the training set.
        notify: is told in one line each what is timed.

    Raises:
        ProcessError: two processes could not exchange messages.
    """
    share_cores(settings.threads)
    keep_memory()
    notify("timing arithmetic and memory")
    flops, bandwidth = _flops(settings.precision), _bandwidth()
    notify("timing messages between two processes")
    wait, sending = _messages()
    notify("timing a few steps in one process")
    small, seconds = _trial(settings, num_images)
    cores = os.cpu_count() or 1
    machine = Machine(
        title=f"this machine: {cores} cores, {torch.get_num_threads()} threads in one process",
        bfloat16_teraflops=flops / _TERA,
        float32_teraflops=flops / _TERA,
        memory_gigabytes=installed_memory() / _GIGA,
        memory_gigabytes_per_second=bandwidth / _GIGA,
        processes_per_machine=2**20,  # of any number none is elsewhere
        link_gigabytes_per_second=sending / _GIGA,
        network_gigabytes_per_second=sending / _GIGA,
        cores=cores,
        decoded_images_per_second=_DECODED,
        efficiency=1.0,
        bandwidth_reached=1.0,
        link_microseconds=wait / _MICRO,
        network_microseconds=wait / _MICRO,
        launch_microseconds=0.0,
        disk_gigabytes_per_second=1.0,
        processes_without_sharing=cores // settings.threads if settings.threads else 1,
        measured=(
            "float32_teraflops",
            "memory_gigabytes_per_second",
            "link_gigabytes_per_second",
            "link_microseconds",
            "efficiency",
        ),
        assumed=("decoded_images_per_second", "disk_gigabytes_per_second"),
    )
    work = workload_of(small, _plan(small, num_images), small.batch_size)
    least = machine.seconds((*work.forward, *work.backward, *work.update), settings.precision)
    return machine.model_copy(update={"efficiency": least / seconds})


def _plan(settings: PretrainSettings, num_images: int) -> Plan:
    assert settings.steps is not None
    return Plan(num_images, settings.batch_size, settings.steps, num_classes=1000)


def _trial(settings: PretrainSettings, num_images: int) -> tuple[PretrainSettings, float]:
    """The run with as many images a step as can be timed soon, and the seconds of its step."""
    images = _FEWEST
    while True:
        update = {
            "batch_size": min(images, settings.batch_size),
            "accumulate": 1,
            "batch_norm": LocalSettings(),
        }
        small = settings.model_copy(update=update)
        seconds = _step_seconds(small, num_images)
        if seconds >= _LONG or images >= settings.batch_size:
            return small, seconds
        images *= 2


def _step_seconds(settings: PretrainSettings, num_images: int) -> float:
    """Seconds of a step on views that are ready."""
    plan = _plan(settings, num_images)
    method = build_method(settings, plan, torch.device("cpu"))
    stepper = Stepper(settings, plan, method, settings.optimizer.build(method.student))
    views = noise_views(settings, method, settings.batch_size)
    middle = plan.total_steps // 2
    return _median(lambda: stepper.step(views, middle), _TRIAL_STEPS)


def _flops(precision: str) -> float:
    """Operations a second of a product of matrices."""
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = torch.randn(2, _SIDE, _SIDE).to(kind)
    return float(2 * _SIDE**3 / _median(lambda: left @ right, 15))


def _bandwidth() -> float:
    """Bytes a second, read and written, of a copy that no cache holds."""
    source, target = torch.zeros(2, _FLOATS)
    return float(2 * source.nbytes / _median(lambda: target.copy_(source), 5))


def _median(work: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(_UNTIMED + rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[_UNTIMED:])


def _messages() -> tuple[float, float]:
    """Seconds of half a small all-reduce, and bytes a second of a large one, between two processes.

    Raises:
        ProcessError: they cannot reach each other.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }
    programs = [
        subprocess.Popen(
            [sys.executable, "-m", "crosscontext.calibration"],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [program.communicate() for program in programs]
    if any(program.returncode for program in programs):
        raise ProcessError(
            f"Two processes of this machine could not exchange messages: {outputs[0][1][-300:].strip()} Make "
            "sure that localhost can be reached, or name another --machine."
        )
    wait, sending = json.loads(outputs[0][0].splitlines()[-1])
    return float(wait), float(sending)


def _exchange() -> None:
    """What each of the two processes does."""
    share_cores(None)
    with joined(minutes=1.0):
        small = _median(distributed.meet, _MESSAGES)
        large = torch.zeros(_LARGE)
        sending = large.nbytes / _median(lambda: distributed.add_up(large), 5)
        print(json.dumps([small / 2, sending]))


if __name__ == "__main__":
    _exchange()
