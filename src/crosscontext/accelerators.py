"""What a machine can do, in the numbers of a forecast: file or name → **accelerators** → scaling."""

import math
from importlib.resources import files
from pathlib import Path

from pydantic import Field

from crosscontext.complaints import nearest
from crosscontext.errors import SettingsError
from crosscontext.layers import Layer, resolve
from crosscontext.settings import Settings, load_yaml
from crosscontext.traffic import Message
from crosscontext.workload import Operation

HERE = "here"

_GIGA, _TERA, _MICRO = 1e9, 1e12, 1e-6


class Machine(Settings):
    """Accelerators in machines that are all alike; a process has one accelerator."""

    title: str
    """For people."""

    bfloat16_teraflops: float = Field(gt=0)
    """Products and convolutions of an accelerator, dense, in 10¹² operations a second."""

    float32_teraflops: float = Field(gt=0)
    """The same as PyTorch computes float32 there, which is TF32 on recent GPUs."""

    memory_gigabytes: float = Field(gt=0)
    """Of an accelerator."""

    memory_gigabytes_per_second: float = Field(gt=0)
    """Reading and writing together."""

    processes_per_machine: int = Field(ge=1)
    """Accelerators in a machine."""

    link_gigabytes_per_second: float = Field(gt=0)
    """From one accelerator to the others of its machine."""

    network_gigabytes_per_second: float = Field(gt=0)
    """From one machine to the others, all adapters together."""

    cores: int = Field(ge=1)
    """Of a machine, for decoding."""

    decoded_images_per_second: float = Field(gt=0)
    """Of one core."""

    efficiency: float = Field(gt=0)
    """Seconds of the roofline over seconds of a step."""

    bandwidth_reached: float = Field(gt=0, le=1)
    """Part of link and network that a collective gets."""

    link_microseconds: float = Field(ge=0)
    """Of a small message, for each doubling of the processes in a machine."""

    network_microseconds: float = Field(ge=0)
    """Of a small message, for each doubling of the machines."""

    launch_microseconds: float = Field(ge=0)
    """Of the CPU, to start a kernel."""

    disk_gigabytes_per_second: float = Field(gt=0)
    """At which a checkpoint is written."""

    processes_without_sharing: int | None = Field(None, ge=1)
    """On a CPU: processes of a machine that have cores of their own; more of them share, and sending hides
    behind nothing. None: each process has its accelerator."""

    measured: tuple[str, ...] = ()
    """Fields that were measured by us."""

    assumed: tuple[str, ...] = ()
    """Fields that are neither published nor measured."""

    def seconds(self, operations: tuple[Operation, ...], precision: str) -> float:
        """Roofline: each kernel takes as long as its arithmetic or its memory, over the efficiency.

        Source: Williams, Waterman and Patterson, Communications of the ACM 52 (4), 2009.
        """
        teraflops = self.bfloat16_teraflops if precision == "bfloat16" else self.float32_teraflops
        flops = teraflops * _TERA * self.efficiency
        bandwidth = self.memory_gigabytes_per_second * _GIGA * self.efficiency
        return sum(max(each.flops / flops, each.bytes / bandwidth) for each in operations)

    def launching(self, operations: tuple[Operation, ...]) -> float:
        """Seconds that the CPU takes to start kernels; it runs ahead of the accelerator where it can."""
        return len(operations) * self.launch_microseconds * _MICRO

    def sending(self, message: Message, processes: int) -> float:
        """Seconds of a collective: its waits, and its bytes over the narrowest link."""
        inside = min(processes, self.processes_per_machine)
        machines = math.ceil(processes / self.processes_per_machine)
        narrowest = self.link_gigabytes_per_second
        if machines > 1:
            narrowest = min(narrowest, self.network_gigabytes_per_second)
        wait = math.log2(inside) * self.link_microseconds + math.log2(machines) * self.network_microseconds
        rounds = 2 if message.kind == "all_reduce" else 1
        bandwidth = narrowest * _GIGA * self.bandwidth_reached
        if machines > 1 and message.kind == "all_to_all":  # no ring: each process has its own for the others
            bandwidth /= inside
        return message.calls * rounds * wait * _MICRO + message.sent(processes) / bandwidth

    def crowd(self, processes: int) -> float:
        """How many processes share what one of them could do."""
        inside = min(processes, self.processes_per_machine)
        return max(inside / self.processes_without_sharing, 1.0) if self.processes_without_sharing else 1.0

    def origins(self) -> str:
        """Say which figures are measured and which are assumed."""
        said = []
        for kind, names in (("measured", self.measured), ("assumed", self.assumed)):
            if names:
                values = (f"{name.replace('_', ' ')} {getattr(self, name):.4g}" for name in names)
                said.append(f"{kind}: {', '.join(values)}")
        return "; ".join([*said, "the rest is published"])


def known_machines() -> dict[str, Machine]:
    """Read the machines that come with the package."""
    path = Path(str(files("crosscontext"))) / "assets" / "machines.yaml"
    return {name: _machine(str(path), values) for name, values in load_yaml(path).items()}


def find_machine(name: str) -> Machine:
    """Find a machine.

    Args:
        name: of a known one, or the path of a YAML file with the fields of one.

    Raises:
        SettingsError: there is none, or its file does not hold.
    """
    path = Path(name)
    if path.is_file() or path.suffix in (".yaml", ".yml"):
        return _machine(name, load_yaml(path))
    known = known_machines()
    if name not in known:
        hint = nearest(name, [*known, HERE]) or ". Give one of them, or a YAML file with the same fields."
        raise SettingsError(f"No machine '{name}'; there are {', '.join(known)} and {HERE}{hint}")
    return known[name]


def _machine(origin: str, values: object) -> Machine:
    if not isinstance(values, dict):
        raise SettingsError(
            f"'{origin}' is no machine. Copy an entry of assets/machines.yaml, and change it."
        )
    return resolve(Machine, [Layer(origin, values)])
