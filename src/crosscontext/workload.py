"""What one process computes, holds and keeps in a step, found out without computing it.

settings → **workload** → traffic, scaling. The step of the method itself runs, on tensors that have shapes
and types but no content.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from crosscontext.assembly import noise_views
from crosscontext.memory import Memory
from crosscontext.methods import Method
from crosscontext.planning import PretrainSettings
from crosscontext.schedules import Plan


class Operation(NamedTuple):
    """One kernel."""

    flops: float
    """Of products and convolutions; a multiplication and an addition are two."""

    bytes: float
    """Read and written, if nothing stays in a cache."""


class Norm(NamedTuple):
    """One pass of a batch through a BatchNorm."""

    channels: int
    learns: bool
    """Whether a backward pass follows."""


class Workload(NamedTuple):
    """Of one process, in one step after the warm-up of the loss, with a full memory."""

    forward: tuple[Operation, ...]
    """Of one part of the share, as backward."""

    backward: tuple[Operation, ...]
    update: tuple[Operation, ...]
    """Optimiser, teacher and memory."""

    norms: tuple[Norm, ...]
    """Of one part."""

    parts: int
    """In which the share of a batch is taken."""

    gradient_bytes: int
    parameter_tensors: int
    """That have a gradient."""

    key_bytes: int
    """Embeddings that the memory takes, of the share."""

    compared_bytes: tuple[int, ...]
    """Embeddings that a loss compares with those of the other processes, of the share, one entry a view."""

    teacher_view_bytes: int
    """Images that a momentum teacher sees, of the share."""

    memory_bytes: int
    """Of the ring, all contexts."""

    state_bytes: int
    """Of the method: student, teacher, memory, statistics."""

    optimizer_bytes: int

    held_bytes: int
    """Views, and what forward saves for backward, of one part."""

    @property
    def flops(self) -> float:
        """Of the whole share."""
        once = sum(operation.flops for operation in (*self.forward, *self.backward))
        return self.parts * once + sum(operation.flops for operation in self.update)

    @property
    def checkpoint_bytes(self) -> int:
        """What a checkpoint holds."""
        return self.state_bytes + self.optimizer_bytes


def workload_of(settings: PretrainSettings, plan: Plan, share: int) -> Workload:
    """Do one step without content.

    Args:
        settings: settled.
        plan: of the run.
        share: images of this process.
    """
    with torch.device("meta"):
        method: Method = settings.method.build(settings.backbone.build(), plan).train()
    memories = [module for module in method.modules() if isinstance(module, Memory)]
    for memory in memories:
        memory.pushed = memory.num_slots
    rows, norms, compared = share // settings.accumulate, list[Norm](), list[int]()
    with FakeTensorMode(allow_non_fake_inputs=True), _noting_norms(method, norms):
        method.to_empty(device="cpu")
        if method.compares_images:
            method.student.register_forward_hook(
                lambda _module, _images, embeddings: compared.append(_bytes(embeddings))
            )
        views = noise_views(settings, method, rows)
        optimizer = settings.optimizer.build(method.student)
        weights = [*method.parameters(), *method.buffers()]
        saved = _Saved(weights)
        with (
            _Operations() as forward,
            saved_tensors_hooks(saved.note, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bfloat16"),
        ):
            outcome = method(views, plan.total_steps // 2)
        with _Operations() as backward:
            outcome.loss.backward()
        keys = {name: torch.cat([rows] * settings.accumulate) for name, rows in outcome.keys.items()}
        with _Operations() as update:
            optimizer.step()
            method.after_step(outcome._replace(keys=keys))
        learned = [p for p in method.student.parameters() if p.requires_grad]
        state = [value for value in method.state_dict().values() if isinstance(value, Tensor)]
        kept = [value for entry in optimizer.state.values() for value in entry.values()]
        return Workload(
            tuple(forward.found),
            tuple(backward.found),
            tuple(update.found),
            tuple(norms),
            settings.accumulate,
            _bytes(learned),
            len(learned),
            _bytes(keys),
            tuple(compared),
            settings.accumulate * _bytes(views.get("weak", [])),
            sum(_bytes(dict(memory.named_buffers())) for memory in memories),
            _bytes(state),
            _bytes(kept),
            _bytes(views) + saved.bytes,
        )


def _bytes(tensors: object) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(tensors) if isinstance(leaf, Tensor))


@contextmanager
def _noting_norms(method: nn.Module, found: list[Norm]) -> Iterator[None]:
    """Write down each pass through a BatchNorm in training mode."""

    def note(module: nn.Module, *_: object) -> None:
        assert isinstance(module, _BatchNorm)
        if module.training:
            found.append(Norm(module.num_features, torch.is_grad_enabled()))

    hooks = [
        module.register_forward_hook(note) for module in method.modules() if isinstance(module, _BatchNorm)
    ]
    yield
    for hook in hooks:
        hook.remove()


class _Operations(TorchDispatchMode):
    """Notes each kernel; what only looks at memory in another way is none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch gives it no types
        self.found: list[Operation] = []

    def __torch_dispatch__(
        self, function: Any, _types: object, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        result = function(*args, **(kwargs or {}))
        if function.namespace == "aten" and not function.is_view and not _is_free(function):
            count = flop_registry.get(function.overloadpacket)
            flops = 0.0 if count is None else count(*args, **(kwargs or {}), out_val=result)
            self.found.append(Operation(float(flops), float(_bytes((args, kwargs)) + _bytes(result))))
        return result


def _is_free(function: Any) -> bool:
    """Whether a kernel moves next to nothing: it makes room, or a tensor like another one."""
    name = function.overloadpacket.__name__
    return name in ("empty", "empty_like", "empty_strided", "detach", "lift_fresh") or name.startswith("new_")


class _Saved:
    """Adds up what is saved for backward, each piece of memory once, weights excepted."""

    def __init__(self, weights: list[Tensor]):
        self.bytes = 0
        self._storages = [tensor.untyped_storage() for tensor in weights]  # held, so that no number is reused
        self._known = {storage._cdata for storage in self._storages}

    def note(self, tensor: Tensor) -> Tensor:
        """Take a tensor that autograd saves."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._storages.append(storage)
            self.bytes += storage.nbytes()
        return tensor
