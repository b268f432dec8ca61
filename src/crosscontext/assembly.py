"""Settings → the method and the loader of a run, as they stand before its first step.

methods, loading → **assembly** → rehearsal, pretraining
"""

from typing import Any

import torch

from crosscontext import distributed
from crosscontext.backbones import TimmSettings
from crosscontext.backbones.timm_models import fixed_size
from crosscontext.batch_norms import SplitSettings, settle_batch_norms
from crosscontext.datasets.contract import Dataset
from crosscontext.errors import SettingsError
from crosscontext.loading import Loader
from crosscontext.methods import Method
from crosscontext.planning import PretrainSettings
from crosscontext.schedules import Plan
from crosscontext.shuffling import Shuffle
from crosscontext.teacher import Teacher
from crosscontext.views import side_of
from crosscontext.winograd import train_by_winograd


def build_method(settings: PretrainSettings, plan: Plan, device: torch.device) -> Method:
    """Build backbone and method, with weights that are a function of the seed.

    Raises:
        SettingsError: batch, processes, accumulation, BatchNorm and method do not fit together, or the
            backbone takes pictures of one size alone and the run has others.
    """
    distributed.check_share(settings.batch_size, settings.accumulate)
    torch.manual_seed(settings.seed)
    method: Method = settings.method.build(settings.backbone.build(), plan)
    if settings.accumulate > 1 and method.compares_images:
        raise SettingsError(
            f"accumulate is {settings.accumulate}, but {settings.method.name} compares all images of a batch "
            "with each other. Set --accumulate 1 and train with more processes or a smaller batch, or choose "
            "a method with a memory, e.g. cgh."
        )
    _refuse_other_sizes(settings, method)
    method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    if settings.winograd is True:
        train_by_winograd(method)
    settle_batch_norms(method, settings.batch_norm, settings.batch_size, settings.accumulate)
    if isinstance(settings.batch_norm, SplitSettings) and settings.batch_norm.shuffle:
        _shuffle(settings, [module for module in method.modules() if isinstance(module, Teacher)])
    return method.train()


def make_loader(settings: PretrainSettings, dataset: Dataset, method: Method, device: torch.device) -> Loader:
    """Make the loader of the views that the method takes, of this process's share of each batch."""
    return Loader(
        dataset,
        settings.views,
        method.view_counts,
        settings.image_size_at,
        settings.batch_size,
        settings.seed,
        settings.workers,
        device,
        method.needs_labels,
        distributed.share(settings.batch_size),
    )


def noise_views(settings: PretrainSettings, method: Method, rows: int) -> dict[str, list[torch.Tensor]]:
    """Draw views that show nothing, in the shapes that a step takes: for timing and counting.

    Args:
        settings: settled.
        method: that takes them.
        rows: images.
    """
    assert settings.image_size != "auto"
    views: dict[str, list[torch.Tensor]] = {}
    for name, copies in method.view_counts.items():
        if copies:
            side = side_of(settings.views, name, settings.image_size)
            images = torch.randn(rows, 3, side, side).contiguous(memory_format=torch.channels_last)
            views[name] = [images.clone() for _ in range(copies)]
    if method.needs_labels:
        views["labels"] = [torch.zeros(rows, dtype=torch.int64)]
    return views


def _refuse_other_sizes(settings: PretrainSettings, method: Method) -> None:
    """Try sizes that the backbone was not built for, where it may take no others, as Swin does."""
    only = fixed_size(settings.backbone) if isinstance(settings.backbone, TimmSettings) else None
    if only is None:
        return
    assert settings.image_size != "auto"
    sides = [
        ("image_size", settings.image_size),
        *(("earlier_sizes", side) for side in settings.earlier_sizes),
    ]
    if method.view_counts.get("local"):
        sides.append(("views.local.image_size", side_of(settings.views, "local", settings.image_size)))
    for name, side in sides:
        if side == only:
            continue
        try:
            with torch.no_grad():
                method.encoder.eval()(torch.zeros(1, 3, side, side))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise SettingsError(
                f"The backbone takes pictures of {only} px alone, and {name} is {side} ({error}). Give all "
                "the same size, without earlier_sizes and local views, or choose a ResNet, ConvNeXt or ViT."
            ) from error


def _shuffle(settings: PretrainSettings, teachers: list[Teacher[Any]]) -> None:
    """Let momentum teachers see the images in other groups than the student.

    Raises:
        SettingsError: the images of a group would be in different parts of the batch.
    """
    if teachers and settings.accumulate > 1:
        raise SettingsError(
            f"accumulate is {settings.accumulate}, but batch_norm.shuffle needs the whole batch at once. "
            "Set --batch-norm.no-shuffle, or --accumulate 1."
        )
    for teacher in teachers:
        teacher.shuffle = Shuffle(settings.seed, settings.batch_size)
