"""What this machine offers to a training: processor, memory, disk, software → **environment**."""

import os
import re
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

import torch

from crosscontext.machine import describe_machine, installed_memory
from crosscontext.settings import Settings

_GIGA: Final = 1e9
_VARIABLES: Final = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("CUDA_VISIBLE_DEVICES", "CROSSCONTEXT_DATA_DIR", "CROSSCONTEXT_MAX_PIXELS"),
)
_FOR_DEVELOPERS: Final = ("bench", "dev", "docs")
_PURPOSES: Final = {
    "detect": "evaluate --tasks detect",
    "mlflow": "pretrain --loggers mlflow",
    "onnx": "export --format onnx",
    "parquet": "images in parquet files",
    "remote": "images behind URLs",
    "slurm": "submit",
    "tensorboard": "pretrain --loggers tensorboard",
    "trackio": "pretrain --loggers trackio",
    "usearch": "search --approximate",
    "wandb": "pretrain --loggers wandb",
}


class Extra(Settings):
    """Optional packages of crosscontext."""

    name: str
    missing: tuple[str, ...]
    """Packages that are not installed; none means that all are."""

    purpose: str
    """What they are for."""


class Environment(Settings):
    """A machine as a training finds it."""

    machine: dict[str, str | int]
    """As in environment.json: platform, processor, device, cores, threads of the mathematics, versions."""

    usable_cores: int
    """Cores that this process may run on; a container may have fewer than the machine."""

    instructions: str
    """The widest vector instructions that PyTorch uses on the CPU, e.g. AVX2."""

    gpus: tuple[str, ...]
    """Names of the GPUs, with their memory."""

    memory_gigabytes: float
    """Of the machine."""

    free_gigabytes: float
    """Memory that a training could take on its device."""

    disk_gigabytes: float
    """Free where run folders would be written."""

    variables: dict[str, str]
    """Those of the process's environment that change what a training does."""

    extras: tuple[Extra, ...]


def examine_environment(device: torch.device, place: Path) -> Environment:
    """Look at the machine.

    Args:
        device: of the training.
        place: of the run folder, which need not exist.
    """
    there = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_properties(number) for number in range(count)]
    return Environment(
        machine=describe_machine(device),
        usable_cores=usable_cores(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        gpus=tuple(f"{gpu.name}, {gpu.total_memory / _GIGA:.1f} GB" for gpu in gpus),
        memory_gigabytes=round(installed_memory() / _GIGA, 1),
        free_gigabytes=round(_free_memory(device) / _GIGA, 1),
        disk_gigabytes=round(shutil.disk_usage(there).free / _GIGA, 1),
        variables={name: os.environ[name] for name in _VARIABLES if name in os.environ},
        extras=_extras(),
    )


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_memory(device: torch.device) -> int:
    """Bytes that can be had without taking them from others."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    status = Path("/proc/meminfo")
    if status.exists() and (found := re.search(r"MemAvailable:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    return installed_memory()


def _extras() -> tuple[Extra, ...]:
    """Read off the installed package what it can be extended with."""
    packages: dict[str, list[str]] = {}
    for requirement in requires("crosscontext") or ():
        if found := re.match(r"([A-Za-z0-9._-]+).*extra == ['\"]([^'\"]+)['\"]", requirement):
            packages.setdefault(found[2], []).append(found[1])
    return tuple(
        Extra(
            name=name,
            missing=tuple(package for package in packages[name] if not _is_installed(package)),
            purpose=_PURPOSES.get(name, ""),
        )
        for name in sorted(packages.keys() - set(_FOR_DEVELOPERS))
    )


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
