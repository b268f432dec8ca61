"""Parameters → optimiser, and its learning rate at each step."""

from pydantic import Field
from torch import nn
from torch.optim import SGD, Optimizer

from crosscontext.schedules import Duration, Plan, warmup_cosine
from crosscontext.settings import Settings

_REFERENCE_BATCH = 256


class OptimizerSettings(Settings):
    """SGD with momentum, linear warm-up and cosine, as in the published recipe."""

    learning_rate: float = Field(0.06, gt=0)
    """Peak learning rate for a batch of 256, scaled in proportion to the batch; published: 0.05."""

    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD."""

    weight_decay: float = Field(5e-4, ge=0)
    """Weight decay. Published for ImageNet: 1e-4; proven for small sets: 5e-4."""

    decay_norms_and_biases: bool = False
    """Apply weight decay to normalisation weights and biases too."""

    warmup: Duration = "2.5%"
    """Linear rise of the learning rate; published: 5 of 200 epochs."""

    def build(self, module: nn.Module) -> Optimizer:
        """Make the optimiser of all parameters that take a gradient.

        Normalisation weights and biases are told by having one dimension, not by their names.
        """
        parameters = [p for p in module.parameters() if p.requires_grad]
        matrices = [p for p in parameters if p.ndim > 1 or self.decay_norms_and_biases]
        vectors = [p for p in parameters if p.ndim <= 1 and not self.decay_norms_and_biases]
        groups = [
            {"params": matrices, "weight_decay": self.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        chosen = [group for group in groups if group["params"]]
        return SGD(chosen, lr=self.learning_rate, momentum=self.momentum, foreach=True)

    def learning_rate_at(self, step: int, plan: Plan) -> float:
        """The learning rate of one step."""
        factor = warmup_cosine(step, total_steps=plan.total_steps, warmup_steps=plan.steps(self.warmup))
        return self.learning_rate * plan.batch_size / _REFERENCE_BATCH * factor
