from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from bench.step import flops_per_image, our_settings
from crosscontext.assembly import build_method, noise_views
from crosscontext.planning import PretrainSettings
from crosscontext.pretraining import pretrain
from crosscontext.schedules import Plan
from crosscontext.settings import load_yaml
from crosscontext.workload import Norm, _Saved, workload_of
from tiny_run import TINY, settings, state_of

PLAN = Plan(1000, 8, 100, num_classes=2)


def small(method: dict[str, Any] | str = "cgh", **changes: Any) -> PretrainSettings:
    if method in ("cgh", "moco", "ressl"):
        method = {"name": method, "memory": {"slots": 64, "start": "random"}, "momentum": 0.99}
    usual = {
        "data": "shapes",
        "out": "run",
        "steps": 100,
        "batch_size": 8,
        "image_size": 16,
        "winograd": False,
    }
    backbone = {**TINY, "stem": "small"}
    return PretrainSettings.model_validate({**usual, "method": method, "backbone": backbone, **changes})


def test_the_operations_are_those_of_a_real_step() -> None:
    few = our_settings("moco", 0.25, batch_size=4, image_size=16)
    work = workload_of(few.model_copy(update={"winograd": False}), Plan(50_000, 4, 10_000), 4)
    assert work.flops / 4 == flops_per_image(few)


def test_what_forward_holds_is_what_a_real_step_holds() -> None:
    run = small("moco")
    method = build_method(run, PLAN, torch.device("cpu"))
    views = noise_views(run, method, 8)
    saved = _Saved([*method.parameters(), *method.buffers()])
    with saved_tensors_hooks(saved.note, lambda tensor: tensor):
        method(views, 50)
    held = saved.bytes + sum(view.nbytes for copies in views.values() for view in copies)
    assert workload_of(run, PLAN, 8).held_bytes == held


def test_the_checkpoint_is_as_large_as_a_real_one(image_folder: Path, tmp_path: Path) -> None:
    folder = pretrain(settings(image_folder, tmp_path / "run", steps=2))
    state, run = state_of(folder), PretrainSettings.model_validate(load_yaml(folder.config))
    real = sum(leaf.nbytes for leaf in tree_leaves(state) if isinstance(leaf, torch.Tensor))
    assert workload_of(run, Plan(40, 12, 2), 12).checkpoint_bytes == real


def test_student_and_teacher_pass_each_norm_and_the_student_learns() -> None:
    norms = workload_of(small("moco"), PLAN, 8).norms
    assert len(norms) % 2 == 0
    half = len(norms) // 2
    assert [norm.learns for norm in norms] == [True] * half + [False] * half
    assert norms[0] == Norm(8, True)


def test_half_the_images_hold_half_the_activations() -> None:
    whole, half = (workload_of(small("cgh"), PLAN, share) for share in (8, 4))
    assert half.held_bytes == pytest.approx(whole.held_bytes / 2, rel=0.05)
    assert half.state_bytes == whole.state_bytes
    parts = workload_of(small("cgh", accumulate=2, batch_norm="local"), PLAN, 8)
    assert parts.held_bytes == half.held_bytes
    assert parts.key_bytes == whole.key_bytes


@pytest.mark.parametrize("name", ["ressl", "byol", "dino", "simclr", "simcgh", "supervised"])
def test_every_kind_of_method_has_a_workload(name: str) -> None:
    work = workload_of(small(name), PLAN, 8)
    assert work.flops > 0
    assert work.gradient_bytes > 0
    assert (work.compared_bytes != ()) == (name in ("simclr", "simcgh"))
    assert (work.memory_bytes > 0) == (name == "ressl")
