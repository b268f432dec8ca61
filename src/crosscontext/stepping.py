"""One training step: views → loss → gradients → weights, teacher and memory.

method, optimiser → **stepping** → the loop. Of several processes each does this with its share of the views;
gradients are averaged over them and keys put together, so that all make the same change.
"""

import warnings
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from crosscontext import distributed
from crosscontext.errors import NonFiniteError
from crosscontext.methods import Method, Outcome, Views
from crosscontext.planning import PretrainSettings
from crosscontext.schedules import Plan
from crosscontext.teacher import Teacher

_REMEDY = (
    "The last good checkpoint is kept. Lower optimizer.learning_rate or lengthen optimizer.warmup, "
    "and start again."
)


class Stepper:
    """Does the steps of a run.

    Nothing in a step waits for the device, so a loss that is no number is found when `check` is called. On
    the CPU, where looking costs nothing, that is in each step, before the weights have changed.

    Args:
        settings: settled.
        plan: of the run.
        method: on its device.
        optimizer: of the student.
        waits: whether each step is checked; by default on the CPU.
    """

    def __init__(
        self,
        settings: PretrainSettings,
        plan: Plan,
        method: Method,
        optimizer: Optimizer,
        waits: bool | None = None,
    ):
        self._settings, self._plan = settings, plan
        self._method, self._optimizer = method, optimizer
        self._device = next(method.student.parameters()).device
        self._waits = self._device.type == "cpu" if waits is None else waits
        self._unchecked: list[tuple[int, dict[str, Tensor]]] = []
        if settings.compile is True:
            for network in method.networks:
                network.compile()
        self._shuffles = [m.shuffle for m in method.modules() if isinstance(m, Teacher) and m.shuffle]
        self._forward: nn.Module = _Pass(method)
        if distributed.size() > 1:
            self._forward = _averaging_gradients(self._forward)

    def step(self, views: Views, step: int) -> Outcome:
        """Do step number `step`.

        Args:
            views: of this process's share of the batch.
            step: steps done so far.

        Returns:
            What the method gave for this share, with the keys of all images. Among its measurements is
            `gradient_norm`, the L2 norm of the gradient.

        Raises:
            NonFiniteError: loss or gradient is not a number; the weights are untouched.
        """
        # for backbones that draw, as dropout does; other processes draw other numbers
        torch.manual_seed((self._settings.seed << 32) + step * distributed.size() + distributed.rank())
        for shuffle in self._shuffles:
            shuffle.step = step
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.optimizer.learning_rate_at(step, self._plan)
        self._optimizer.zero_grad()
        outcome = self._forward_and_backward(views, step)
        gradients = [p.grad for p in self._method.student.parameters() if p.grad is not None]
        outcome.measurements["gradient_norm"] = get_total_norm(gradients)
        self._unchecked.append((step, {"loss": outcome.loss.detach(), **outcome.measurements}))
        if self._waits:
            self.check()
        self._optimizer.step()
        outcome = outcome._replace(keys=distributed.gather(outcome.keys))
        self._method.after_step(outcome)
        return outcome

    def _forward_and_backward(self, views: Views, step: int) -> Outcome:
        """Go through the share of the batch in parts, whose gradients add up to that of the whole."""
        count = self._settings.accumulate
        outcomes: list[Outcome] = []
        for number in range(count):
            part = {name: [copy.chunk(count)[number] for copy in copies] for name, copies in views.items()}
            with self._sending(number == count - 1):
                with self._autocast():
                    outcomes.append(self._forward(part, step))
                (outcomes[-1].loss / count).backward()
        return joined_outcome(outcomes)

    def _sending(self, is_last: bool) -> AbstractContextManager[None]:
        """Gradients travel once a step, in the backward pass of its last part."""
        if is_last or not isinstance(self._forward, DistributedDataParallel):
            return nullcontext()
        return self._forward.no_sync()

    def check(self) -> None:
        """Make sure that the steps done since the last call had numbers for losses and gradients.

        Raises:
            NonFiniteError: naming the first step that had not, and its terms.
        """
        unchecked, self._unchecked = self._unchecked, []
        for step, scalars in unchecked:
            wrong = [f"{name} {value.item()}" for name, value in scalars.items() if not torch.isfinite(value)]
            if wrong:
                raise NonFiniteError(
                    f"At step {step} these are not finite: {', '.join(wrong)}. {_REMEDY}", step
                )

    def check_weights(self, step: int) -> None:
        """Stop before weights or statistics that are not numbers are measured or saved.

        Raises:
            NonFiniteError: naming the step and the first tensors.
        """
        wrong = [
            name
            for name, value in self._method.state_dict().items()
            if isinstance(value, Tensor) and not torch.isfinite(value).all()
        ]
        if wrong:
            raise NonFiniteError(
                f"After step {step} these are not finite: {', '.join(wrong[:5])}. {_REMEDY}", step - 1
            )

    def _autocast(self) -> AbstractContextManager[None]:
        enabled = self._settings.precision == "bfloat16"
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=enabled)


def joined_outcome(parts: list[Outcome]) -> Outcome:
    """Join what was computed for equal parts of a batch: means of scalars, keys one after the other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return Outcome(
        torch.stack([part.loss.detach() for part in parts]).mean(),
        {
            name: torch.stack([part.measurements[name] for part in parts]).mean()
            for name in first.measurements
        },
        {name: torch.cat([part.keys[name] for part in parts]) for name in first.keys},
        first.momentum,
    )


class _Pass(nn.Module):
    """The forward pass of a method as PyTorch wraps it, which shall see the student's parameters alone."""

    def __init__(self, method: Method):
        super().__init__()
        self.student = method.student
        self._method = (method,)  # in a tuple it is no part of this module

    def forward(self, views: Views, step: int) -> Outcome:
        """Compute the loss of one step."""
        (method,) = self._method
        outcome: Outcome = method(views, step)
        return outcome


def _averaging_gradients(module: nn.Module) -> DistributedDataParallel:
    """Wrap a module so that the gradients of its parameters are means over the processes after backward.

    They travel in buckets while backward goes on. Buffers are not touched: those that shall be the same in
    all processes are computed to be so.
    """
    # Which parameters take part may change from step to step (DINO's prototypes at first, the one-way pairs
    # of CGH later) and with the backbone, so that PyTorch has to look.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`broadcast_buffers`")  # its new name is newer than 2.6
        return DistributedDataParallel(
            module, broadcast_buffers=False, find_unused_parameters=True, gradient_as_bucket_view=True
        )


def scalars_of(outcome: Outcome) -> dict[str, float]:
    """Name the measurements of a step as they are logged."""
    scalars = {"train/loss": outcome.loss.item()}
    for name, value in outcome.measurements.items():
        of_training = name.startswith(("loss_", "gradient_"))
        scalars[f"train/{name}" if of_training else f"health/{name}"] = value.item()
    return scalars
