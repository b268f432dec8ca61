"""What a run trains on: device, threads, versions."""

import ctypes
import os
import platform
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Literal

import torch

from crosscontext.distributed import launch_id, local_rank, local_size, size
from crosscontext.errors import SettingsError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST_INT = 2**31 - 1
_LONG_RUN = 2000  # steps

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16"]
_FASTEST_FIRST: tuple[Device, ...] = ("cuda", "mps", "cpu")


def choose_device(device: Device) -> torch.device:
    """Settle where to train; "auto" takes the first GPU, else the CPU. Each of several processes has its own.

    Raises:
        SettingsError: the device is not there.
    """
    has_mps = torch.backends.mps.is_available() and local_size() == 1  # processes cannot share it
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": has_mps}
    if device == "auto":
        device = next(name for name in _FASTEST_FIRST if there[name])
    if device == "cuda" and there["cuda"] and local_size() > 1:
        return _own_gpu()
    if not there[device]:
        usable = ", ".join(name for name in there if there[name])
        raise SettingsError(
            f"device is {device!r}, but this machine offers {usable} to PyTorch. Choose one of these."
        )
    return torch.device(device)


def _own_gpu() -> torch.device:
    """The GPU of this one of several processes; PyTorch uses it where none is named.

    Raises:
        SettingsError: there are more processes than GPUs.
    """
    count = torch.cuda.device_count()
    if local_size() > count:
        raise SettingsError(
            f"{local_size()} processes shall train on this machine, but it has {count} GPUs. Start at most "
            f"{count}, or set --device cpu."
        )
    torch.cuda.set_device(local_rank())
    return torch.device("cuda", local_rank())


def share_cores(threads: int | None) -> None:
    """Set the threads of the mathematics in this process.

    Args:
        threads: as set; None: all cores, of which each of several processes gets an equal part.
    """
    if threads is None and local_size() > 1:
        threads = max((os.cpu_count() or 1) // local_size(), 1)
    if threads is not None:
        torch.set_num_threads(threads)


def settle_precision(precision: Precision, device: torch.device) -> Precision:
    """Settle "auto": bfloat16 where the device multiplies it faster, else float32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return "bfloat16" if device.type == "cpu" and has_tiles() else "float32"


def settle_compile(compile: bool | Literal["auto"], device: torch.device, steps: int | float | None) -> bool:
    """Settle "auto": on GPUs, in runs long enough to pay for the minutes that compiling takes.

    On CPUs the networks gained nothing from it, and it needs a C++ compiler.

    Args:
        compile: as set.
        device: of the run.
        steps: of the run; None where they are not known yet, but minutes.
    """
    if compile != "auto":
        return compile
    return device.type == "cuda" and (steps or _LONG_RUN) >= _LONG_RUN


def settle_winograd(
    winograd: bool | Literal["auto"], device: torch.device, precision: Precision, compile: bool
) -> bool:
    """Settle "auto": on CPUs, in float32, where nothing is compiled.

    Args:
        winograd: as set.
        device: of the run.
        precision: of the run, settled.
        compile: whether the networks are compiled.
    """
    if winograd != "auto":
        return winograd
    return device.type == "cpu" and precision == "float32" and not compile


def keep_memory() -> None:
    """Tell the C library to keep freed memory for the next step instead of returning it to the system.

    A step frees its activations and asks for the same again; by default each large piece is then mapped anew,
    and the kernel clears it page by page: 8 % of a step on the CPU. For the whole process; the GNU C library
    only, elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] == "glibc" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_INT)
        mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)


def start_threads(number: int, name: str) -> ThreadPoolExecutor:
    """Start threads whose tensor operations take one core each; those of other threads take what they took.

    Otherwise each of them would bring a team of its own, of as many threads as there are cores. PyTorch keeps
    the number for each thread, but gives the one set last to later threads; so it is set back in the end.

    Args:
        number: of the threads, at least 1.
        name: that theirs begin with.
    """
    of_this_thread, started = torch.get_num_threads(), threading.Barrier(number + 1)

    def begin() -> None:
        torch.get_num_threads()  # takes over the number of the others, which it would do later on
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(number, thread_name_prefix=name, initializer=begin)
    for _ in range(number):
        pool.submit(int)  # starts a thread, since none is idle before all have started
    started.wait()
    torch.set_num_threads(of_this_thread)
    return pool


def installed_memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """Collect what may explain a difference between two runs."""
    packages = ("crosscontext", "torch", "torchvision", "timm", "numpy", "pillow")
    launch = launch_id()
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "processor": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor(),
        "device": str(device),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "processes": size(),
        **({} if launch is None else {"launch": launch}),
        **{package: version(package) for package in packages},
    }
