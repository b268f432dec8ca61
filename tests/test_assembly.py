from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from crosscontext.assembly import build_method
from crosscontext.errors import SettingsError
from crosscontext.methods import Method
from crosscontext.planning import PretrainSettings
from crosscontext.schedules import Plan
from crosscontext.stepping import Stepper

BATCH, STEPS = 16, 6
NO_SHUFFLE = {"name": "split", "groups": 4, "shuffle": False}


def made(**changes: Any) -> tuple[Stepper, Method]:
    settings = PretrainSettings.model_validate(
        {
            "data": "shapes",
            "out": Path("unused"),
            "steps": STEPS,
            "batch_size": BATCH,
            "image_size": 16,
            "backbone": {"name": "resnet", "depth": 10, "width": 0.125, "stem": "small"},
            "method": {"name": "cgh", "memory": {"slots": 30}, "momentum": 0.9},
            "optimizer": {"warmup": "0%", "learning_rate": 0.2},
        }
        | changes
    )
    plan = Plan(160, BATCH, STEPS)
    method = build_method(settings, plan, torch.device("cpu"))
    return Stepper(settings, plan, method, settings.optimizer.build(method.student)), method


def views(step: int, num_strong: int = 1) -> dict[str, list[Tensor]]:
    generator = torch.Generator().manual_seed(step)
    weak, *strong = torch.randn(1 + num_strong, BATCH, 3, 16, 16, generator=generator)
    return {"weak": [weak], "strong": strong}


@pytest.mark.parametrize("accumulate", [2, 4])
def test_a_batch_in_parts_is_the_whole_batch(accumulate: int) -> None:
    (whole, its_method), (parts, method) = (
        made(batch_norm=NO_SHUFFLE, accumulate=number) for number in (1, accumulate)
    )
    for step in range(STEPS):
        outcome, expected = parts.step(views(step), step), whole.step(views(step), step)
        torch.testing.assert_close(outcome.loss, expected.loss.detach(), atol=1e-5, rtol=1e-5)
        norms = (each.measurements["gradient_norm"] for each in (outcome, expected))
        torch.testing.assert_close(*norms, atol=1e-5, rtol=1e-3)
        for name, keys in expected.keys.items():
            torch.testing.assert_close(outcome.keys[name], keys, atol=1e-4, rtol=0)
    assert method.get_submodule("memory").pushed == its_method.get_submodule("memory").pushed == BATCH * STEPS


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"accumulate": 3}, r"batch_size is 16, .*with 3 parts .* e\.g\. 15"),
        ({"accumulate": 2}, "accumulate is 2, but with batch_norm sync"),
        (
            {"accumulate": 2, "batch_norm": "split", "batch_size": 16},
            r"accumulate is 2, but batch_norm\.shuffle",
        ),
        ({"accumulate": 4, "batch_norm": {"name": "split", "groups": 2}}, r"groups is 2, .*multiple of 4"),
        ({"accumulate": 2, "method": "simclr", "batch_norm": "local"}, "simclr compares all images"),
        ({"accumulate": 2, "method": "simcgh", "batch_norm": "local"}, "simcgh compares all images"),
        ({"accumulate": 2, "method": "vicreg", "batch_norm": "local"}, "vicreg compares all images"),
        ({"accumulate": 2, "method": "barlow_twins", "batch_norm": "local"}, "barlow_twins compares all"),
    ],
)
def test_what_cannot_be_exact_is_refused(changes: dict[str, Any], cause: str) -> None:
    with pytest.raises(SettingsError, match=cause):
        made(**changes)


def test_the_teacher_sees_other_groups_only_where_asked() -> None:
    memory = {"name": "moco", "memory": {"slots": 30}, "momentum": 0.9}
    apart = {"name": "split", "groups": 4}
    same, other = (
        made(method=memory, batch_norm=batch_norm)[0].step(views(0, 2), 0)
        for batch_norm in (NO_SHUFFLE, apart)
    )
    assert not torch.allclose(same.keys["global"], other.keys["global"], atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"test_size": 96}, "pictures of 96 px alone, and image_size is 64"),
        ({"test_size": 64, "earlier_sizes": [32]}, "pictures of 64 px alone, and earlier_sizes is 32"),
        (
            {
                "test_size": 64,
                "method": {"name": "simcgh", "local_views": 2},
                "views": {"local": {"image_size": 32}},
            },
            "pictures of 64 px alone, and views.local.image_size is 32",
        ),
    ],
)
def test_a_backbone_that_takes_one_size_alone_is_given_no_other(changes: dict[str, Any], told: str) -> None:
    backbone = {"name": "timm", "model": "swin_tiny_patch4_window7_224", "image_size": changes["test_size"]}
    with pytest.raises(SettingsError, match=told):
        made(image_size=64, backbone=backbone, **changes)


def test_a_backbone_that_was_made_for_one_size_and_takes_others_is_given_them() -> None:
    backbone = {"name": "timm", "model": "xcit_nano_12_p8_224", "image_size": 64}
    made(image_size=48, test_size=64, backbone=backbone)
