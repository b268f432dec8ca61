"""What the processes of a run send each other in a step: workload → **traffic** → forecasting.

Each entry is one kind of message, as `distributed.py`, `batch_norms.py`, `shuffling.py` and PyTorch's DDP
send it. Nothing else is sent between two lines of metrics.
"""

from typing import Literal, NamedTuple

from crosscontext.batch_norms import SplitSettings, SyncSettings
from crosscontext.planning import PretrainSettings
from crosscontext.workload import Workload

Kind = Literal["all_reduce", "all_gather", "all_to_all"]

_FLOAT, _INT, _LONG = 4, 4, 8


class Message(NamedTuple):
    """One kind of collective in a step."""

    what: str
    kind: Kind

    payload: int
    """Bytes that a process hands over, all calls of the step together."""

    calls: int
    """Of the step; the gradients travel in buckets, which count as one."""

    waits: bool = True
    """Whether the next kernel needs the answer."""

    def sent(self, processes: int) -> float:
        """Bytes that each process has to send at least, if none sends more than another.

        A ring needs no more (Patarasuk and Yuan, Journal of Parallel and Distributed Computing, 2009).
        """
        factor = {
            "all_reduce": 2 * (processes - 1) / processes,
            "all_gather": processes - 1,
            "all_to_all": (processes - 1) / processes,
        }
        return float(factor[self.kind] * self.payload)


def messages(settings: PretrainSettings, work: Workload, processes: int) -> list[Message]:
    """List what is sent in a step; nothing with one process.

    Args:
        settings: settled.
        work: of one process.
        processes: that train together.
    """
    if processes == 1:
        return []
    found = [
        Message("gradients", "all_reduce", work.gradient_bytes, 1, waits=False),
        Message("which gradients there are", "all_reduce", _INT * work.parameter_tensors, 1),
        Message("signals and time limits", "all_reduce", _LONG, 1, waits=False),
    ]
    if work.key_bytes:
        found.append(Message("keys of the memory", "all_gather", work.key_bytes, 1))
    if work.compared_bytes:
        found.append(
            Message("embeddings to compare", "all_gather", sum(work.compared_bytes), len(work.compared_bytes))
        )
    if isinstance(settings.batch_norm, SyncSettings) and work.norms:
        channels = [norm.channels for norm in work.norms]
        learned = [norm.channels for norm in work.norms if norm.learns]
        found += [
            Message("BatchNorm, forward", "all_gather", 2 * _FLOAT * sum(channels), len(channels)),
            Message("BatchNorm, backward", "all_reduce", 2 * _FLOAT * sum(learned), len(learned)),
        ]
    if isinstance(settings.batch_norm, SplitSettings) and settings.batch_norm.shuffle and work.key_bytes:
        found += [
            Message("images to shuffle", "all_to_all", work.teacher_view_bytes, 1),
            Message("shuffled embeddings", "all_to_all", work.key_bytes, 1),
        ]
    return found
