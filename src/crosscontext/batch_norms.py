"""Which images share the statistics of BatchNorm when a batch is divided: settings and layers.

distributed → **batch norms** → assembly. One process with `sync` keeps the layers of PyTorch.
"""

from functools import cache
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from crosscontext import distributed
from crosscontext.errors import SettingsError
from crosscontext.settings import BY_NAME, Settings


class SyncSettings(Settings):
    """One set of statistics for the whole batch: any number of processes gives the result of one."""

    name: Literal["sync"] = "sync"


class SplitSettings(Settings):
    """Statistics of equal groups of the batch, as if each were on a device of its own.

    Any number of processes that divides the number of groups gives the same result, without asking each
    other for statistics. The running ones, for evaluation, are means over the groups.
    """

    name: Literal["split"] = "split"

    groups: int = Field(8, ge=2)
    """Number of groups, a multiple of the number of processes; the batch is a multiple of it."""

    shuffle: bool = True
    """Whether a momentum teacher sees the images in other groups than the student, drawn anew at each step:
    the statistics of a group would tell which images belong together (ShuffleBN: MoCo, arXiv 1911.05722,
    section 3.3)."""


class LocalSettings(Settings):
    """Statistics of the images that a process has at once: the result depends on the number of processes."""

    name: Literal["local"] = "local"


BatchNormSettings = Annotated[
    SyncSettings | SplitSettings | LocalSettings, Field(discriminator="name"), BY_NAME
]


def settle_batch_norms(
    method: nn.Module, settings: BatchNormSettings, batch_size: int, accumulate: int = 1
) -> None:
    """Let the BatchNorms of a method share their statistics as the settings say; names and weights stay.

    Args:
        method: on its device.
        settings: sync, split or local.
        batch_size: of the global batch.
        accumulate: parts in which a process takes its share.

    Raises:
        SettingsError: the groups do not fit the batch and the processes, or a layer is not known here.
    """
    parts = distributed.size() * accumulate
    norms = {name: module for name, module in method.named_modules() if isinstance(module, _BatchNorm)}
    if not norms or isinstance(settings, LocalSettings):
        return
    if isinstance(settings, SyncSettings):
        if accumulate > 1:
            raise SettingsError(
                f"accumulate is {accumulate}, but with batch_norm sync the BatchNorms need all {batch_size} "
                f"images at once. Set --batch-norm split --batch-norm.groups {parts}, or local."
            )
        if parts == 1:
            return
        if next(method.parameters()).device.type == "cuda":
            from timm.layers.norm_act import convert_sync_batchnorm  # knows PyTorch's layers and its own

            for child_name, child in method.named_children():
                setattr(method, child_name, cast(Any, convert_sync_batchnorm)(child))
            return
        group_size = None
    else:
        if settings.groups % parts or batch_size % settings.groups or batch_size < 2 * settings.groups:
            raise SettingsError(
                f"batch_norm.groups is {settings.groups}, but {distributed.size()} processes share a batch "
                f"of {batch_size}, each in {accumulate} parts. Set --batch-norm.groups to a multiple of "
                f"{parts} that divides the batch into groups of at least 2 images."
            )
        group_size = batch_size // settings.groups
    for name, norm in norms.items():
        norm.__class__ = _shared(type(norm), name)
        cast(Any, norm).sharing = Sharing(group_size, batch_size // parts)


class Sharing:
    """Who shares statistics.

    Args:
        group_size: images in a group; None: all images of all processes are one.
        images_at_once: of a process. A layer that sees more rows sees several views of each image, one
            view after the other.
    """

    def __init__(self, group_size: int | None, images_at_once: int):
        self.group_size, self.images_at_once = group_size, images_at_once


def average_statistics(method: nn.Module, settings: BatchNormSettings) -> None:
    """Make the running statistics the same in all processes: their means.

    They are moving averages, linear in what a step adds, so that it is as if they had been means all along.
    With sync they are the same already.
    """
    if not isinstance(settings, SyncSettings):
        distributed.average(
            buffer
            for module in method.modules()
            if isinstance(module, _BatchNorm)
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        )


class SharedBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm over rows, with statistics of other images than those at hand."""

    sharing: Sharing

    def forward(self, input: Tensor) -> Tensor:
        """Normalise."""
        return _normalise(self, self.sharing, input)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over maps, with statistics of other images than those at hand."""

    sharing: Sharing

    def forward(self, input: Tensor) -> Tensor:
        """Normalise."""
        return _normalise(self, self.sharing, input)


@cache
def _with_activation() -> type[_BatchNorm]:
    """The layer of timm that normalises and applies an activation, sharing statistics."""
    from timm.layers.norm_act import BatchNormAct2d

    class SharedBatchNormAct2d(BatchNormAct2d):
        sharing: Sharing

        def forward(self, input: Tensor) -> Tensor:
            result: Tensor = self.act(self.drop(_normalise(self, self.sharing, input)))
            return result

    return SharedBatchNormAct2d


def _shared(kind: type[_BatchNorm], name: str) -> type[_BatchNorm]:
    """Find the class that does the same as another one, with shared statistics.

    Raises:
        SettingsError: there is none.
    """
    if kind is nn.BatchNorm1d:
        return SharedBatchNorm1d
    if kind is nn.BatchNorm2d:
        return SharedBatchNorm2d
    if kind in _with_activation().__bases__:
        return _with_activation()
    raise SettingsError(
        f"{name} is a {kind.__name__}, whose statistics cannot be shared between processes or split. "
        "Set --batch-norm local, or choose another backbone."
    )


def _normalise(norm: _BatchNorm, sharing: Sharing, rows: Tensor) -> Tensor:
    """Do what BatchNorm does; in training mode with the statistics that are shared."""
    if not norm.training:
        return F.batch_norm(
            rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
        )
    result: Tensor
    if sharing.group_size is None:
        result, mean, variance = _SyncedNorm.apply(rows, norm.weight, norm.bias, norm.eps)
        values = distributed.size() * rows.numel() // rows.shape[1]
        variance = variance * (values / (values - 1))  # without bias, as PyTorch keeps it
    else:
        result, mean, variance = _normalise_groups(norm, sharing, rows)
    if norm.track_running_stats:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        assert norm.momentum is not None, "our networks keep moving averages"
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance, norm.momentum)
        norm.num_batches_tracked.add_(1)
    return result


def _normalise_groups(norm: _BatchNorm, sharing: Sharing, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each group by itself.

    Returns:
        The rows as they were ordered, and the means over the groups of their means and variances.
    """
    assert sharing.group_size is not None
    num_groups = sharing.images_at_once // sharing.group_size
    order = torch.arange(len(rows), device=rows.device)
    order = order.view(-1, num_groups, sharing.group_size).transpose(0, 1).flatten()  # group by group
    several_views = len(rows) > sharing.images_at_once
    grouped = (rows[order] if several_views else rows).chunk(num_groups)
    means, variances = torch.zeros(2, num_groups, rows.shape[1], device=rows.device)
    parts = [
        F.batch_norm(part, mean, variance, norm.weight, norm.bias, True, 1.0, norm.eps)
        for part, mean, variance in zip(grouped, means, variances, strict=True)
    ]
    result = torch.cat(parts)
    return result[order.argsort()] if several_views else result, means.mean(dim=0), variances.mean(dim=0)


class _SyncedNorm(torch.autograd.Function):
    """Normalise by the mean and variance of the rows of all processes, which have equally many of them.

    The gradient is that of the sum of what all processes make of the result (Ioffe and Szegedy, arXiv
    1502.03167, section 3), with two sums over the values of a channel, taken over all processes.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        dims = [0, *range(2, rows.ndim)]
        precise = rows.to(torch.promote_types(rows.dtype, torch.float32))
        own_variance, own_mean = torch.var_mean(precise, dims, correction=0)
        means, variances = distributed.collect(torch.stack([own_mean, own_variance])).unbind(1)
        mean = means.mean(dim=0)
        variance = (variances + (means - mean).square()).mean(dim=0)
        ctx.save_for_backward(rows, weight, mean, variance)
        ctx.eps = eps
        result = F.batch_norm(rows, mean, variance, weight, bias, False, 0.0, eps)
        ctx.mark_non_differentiable(mean, variance)
        return result, mean, variance

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor, _mean: Tensor, _variance: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        rows, weight, mean, variance = ctx.saved_tensors
        scale = torch.ones_like(mean) if weight is None else weight
        of_rows, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, rows, scale, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )  # as if mean and variance were constants
        of_bias_total, of_weight_total = distributed.add_up(torch.stack([of_bias, of_weight]))
        values = distributed.size() * rows.numel() // rows.shape[1]
        inverse = (variance + ctx.eps).rsqrt()
        slope = -scale * inverse.square() * of_weight_total / values
        shift = -scale * inverse * of_bias_total / values - slope * mean
        shape = [1, -1, *[1] * (rows.ndim - 2)]
        of_rows = of_rows + (rows * slope.view(shape) + shift.view(shape)).to(of_rows.dtype)
        if weight is None:
            return of_rows, None, None, None
        return of_rows, of_weight, of_bias, None
