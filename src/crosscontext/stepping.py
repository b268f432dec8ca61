"""One training step: views → loss → gradients → weights, teacher and memory.

method, optimiser → **stepping** → the loop
"""

from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from crosscontext.errors import NonFiniteError
from crosscontext.methods import Method, Outcome, Views
from crosscontext.planning import PretrainSettings
from crosscontext.schedules import Plan

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

    def step(self, views: Views, step: int) -> Outcome:
        """Do step number `step`.

        Returns:
            What the method gave; among its measurements is `gradient_norm`, the L2 norm of the gradient.

        Raises:
            NonFiniteError: loss or gradient is not a number; the weights are untouched.
        """
        torch.manual_seed((self._settings.seed << 32) + step)  # for backbones that draw, as dropout does
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.optimizer.learning_rate_at(step, self._plan)
        with self._autocast():
            outcome: Outcome = self._method(views, step)
        self._optimizer.zero_grad()
        outcome.loss.backward()
        gradients = [p.grad for p in self._method.student.parameters() if p.grad is not None]
        outcome.measurements["gradient_norm"] = get_total_norm(gradients)
        self._unchecked.append((step, {"loss": outcome.loss.detach(), **outcome.measurements}))
        if self._waits:
            self.check()
        self._optimizer.step()
        self._method.after_step(outcome)
        return outcome

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


def scalars_of(outcome: Outcome) -> dict[str, float]:
    """Name the measurements of a step as they are logged."""
    scalars = {"train/loss": outcome.loss.item()}
    for name, value in outcome.measurements.items():
        of_training = name.startswith(("loss_", "gradient_"))
        scalars[f"train/{name}" if of_training else f"health/{name}"] = value.item()
    return scalars
