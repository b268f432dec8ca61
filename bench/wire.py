"""What processes send each other, counted: calls of collectives, and what the kernel has sent over TCP."""

import os
import socket
import struct
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_BYTES_SENT = 200  # offset of tcpi_bytes_sent in struct tcp_info of linux/tcp.h
_LONGEST = 256  # bytes of that struct


class Collectives(TorchDispatchMode):
    """While it is entered, counts calls and payloads of this process's collectives, those of DDP too.

    Attributes:
        calls: by kind: all_reduce, all_gather, all_to_all.
        payload: bytes handed over, by kind.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch gives it no types
        self.calls: Counter[str] = Counter()
        self.payload: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, _types: object, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        """Note a collective, and do it."""
        if function.namespace == "c10d":
            kind, given = _KINDS[function.overloadpacket.__name__]
            self.calls[kind] += 1
            self.payload[kind] += sum(
                leaf.nbytes for leaf in tree_leaves(args[given]) if isinstance(leaf, Tensor)
            )
        return function(*args, **(kwargs or {}))


_KINDS = {
    "allreduce_": ("all_reduce", 0),
    "allgather_": ("all_gather", 1),
    "alltoall_base_": ("all_to_all", 1),
}
"""Operation of PyTorch → its kind, and which argument is handed over."""


def bytes_sent() -> int:
    """Ask the kernel what the TCP connections of this process have sent, headers of gloo included."""
    total = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed in between, or no TCP
            if entry.readlink().name.startswith("socket:"):
                with closing(socket.socket(fileno=os.dup(int(entry.name)))) as connection:
                    told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LONGEST)
                    total += int(struct.unpack_from("Q", told, _BYTES_SENT)[0])
    return total
