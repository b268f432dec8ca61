import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from crosscontext.backbones import ResNetSettings
from crosscontext.checkpoints import KEYS, damage_of, fall_back, load_checkpoint, save_checkpoint
from crosscontext.contexts import ContextSettings
from crosscontext.errors import CheckpointError, RunFolderError
from crosscontext.memory import MemorySettings
from crosscontext.methods import CGHSettings, Method
from crosscontext.optimizers import OptimizerSettings
from crosscontext.run_folder import RunFolder
from crosscontext.schedules import Plan

SETTINGS = CGHSettings(
    memory=MemorySettings(slots=20), contexts=ContextSettings(hidden_width=16), warmup="4 steps"
)
NARROW = ResNetSettings(depth=10, width=0.125, stem="small")


def training(
    settings: CGHSettings = SETTINGS, backbone: ResNetSettings = NARROW, seed: int = 0
) -> tuple[Method, Optimizer]:
    torch.manual_seed(seed)
    method = settings.resolve(256).build(backbone.build(), Plan(256, 8, total_steps=40)).train()
    return method, OptimizerSettings().build(method.student)


def train(method: Method, optimizer: Optimizer, start: int, stop: int) -> list[float]:
    """Losses of some steps; the views are functions of the step."""
    losses = []
    for step in range(start, stop):
        generator = torch.Generator().manual_seed(step)
        weak, strong = torch.randn(2, 8, 3, 16, 16, generator=generator)
        outcome = method({"weak": [weak], "strong": [strong], "local": []}, step)
        optimizer.zero_grad()
        outcome.loss.backward()
        optimizer.step()
        method.after_step(outcome)
        losses.append(outcome.loss.item())
    return losses


def values(state: object) -> list[object]:
    """All leaves of a state, tensors copied."""
    if isinstance(state, dict):
        return [leaf for key, value in state.items() for leaf in [key, *values(value)]]
    if isinstance(state, list):
        return [leaf for value in state for leaf in values(value)]
    return [state.clone() if isinstance(state, Tensor) else state]


def same(one: object, other: object) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
        for a, b in zip(values(one), values(other), strict=True)
    )


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    folder.claim()
    return folder


def test_training_goes_on_from_a_checkpoint_as_if_nothing_had_happened(folder: RunFolder) -> None:
    method, optimizer = training()
    train(method, optimizer, 0, 3)
    save_checkpoint(folder, method, optimizer, step=3)
    uninterrupted = train(method, optimizer, 3, 6)

    resumed, its_optimizer = training(seed=1)
    assert load_checkpoint(folder, resumed, its_optimizer) == 3
    assert train(resumed, its_optimizer, 3, 6) == uninterrupted
    assert same(resumed.state_dict(), method.state_dict())
    assert same(its_optimizer.state_dict(), optimizer.state_dict())


def test_a_checkpoint_has_these_keys_and_needs_no_unpickling(folder: RunFolder) -> None:
    method, optimizer = training()
    save_checkpoint(folder, method, optimizer, step=0)
    state = torch.load(folder.checkpoint, weights_only=True)
    assert tuple(state) == KEYS == ("format_version", "step", "method", "optimizer")
    assert state["format_version"] == 1
    assert "memory._extra_state" in state["method"]


def test_the_checkpoint_before_the_last_is_kept_and_no_other(folder: RunFolder) -> None:
    method, optimizer = training()
    for step in (1, 2, 3):
        save_checkpoint(folder, method, optimizer, step)
    stored = [
        torch.load(file, weights_only=True)["step"]
        for file in (folder.previous_checkpoint, folder.checkpoint)
    ]
    assert stored == [2, 3]
    assert len(list(folder.checkpoint.parent.iterdir())) == 2


def test_what_a_crash_has_left_is_not_in_the_way(folder: RunFolder) -> None:
    method, optimizer = training()
    save_checkpoint(folder, method, optimizer, step=1)
    folder.previous_checkpoint.with_suffix(".kept").hardlink_to(folder.checkpoint)  # killed between two lines
    save_checkpoint(folder, method, optimizer, step=2)
    assert torch.load(folder.previous_checkpoint, weights_only=True)["step"] == 1


def test_a_file_system_without_hard_links_keeps_the_checkpoint_before_too(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    method, optimizer = training()
    for step in (1, 2):
        save_checkpoint(folder, method, optimizer, step)
    assert torch.load(folder.previous_checkpoint, weights_only=True)["step"] == 1
    assert torch.load(folder.checkpoint, weights_only=True)["step"] == 2


@pytest.mark.parametrize("free", [1000, 100_000])
def test_a_full_disk_leaves_the_last_checkpoint_whole(folder: RunFolder, free: int) -> None:
    method, optimizer = training()
    save_checkpoint(folder, method, optimizer, step=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))
    try:
        with pytest.raises(RunFolderError, match=r"last\.ckpt could not be written: File too large"):
            save_checkpoint(folder, method, optimizer, step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_checkpoint(folder, method, optimizer) == 1


@pytest.mark.parametrize("kept", [0, 10, 5000, -20])
def test_a_truncated_checkpoint_gives_way_to_the_one_before_and_is_kept(folder: RunFolder, kept: int) -> None:
    method, optimizer = training()
    for step in (1, 2):
        save_checkpoint(folder, method, optimizer, step)
    damaged = folder.checkpoint.read_bytes()[:kept]
    folder.checkpoint.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="is damaged: "):
        load_checkpoint(folder, method, optimizer)
    told: list[str] = []
    fall_back(folder, told.append)
    assert load_checkpoint(folder, method, optimizer) == 1
    assert folder.damaged_checkpoint.read_bytes() == damaged
    assert len(told) == 1
    assert "last.ckpt is damaged: " in told[0]
    assert "kept as damaged.ckpt; going on from the checkpoint before it" in told[0]
    save_checkpoint(folder, method, optimizer, 2)
    fall_back(folder, told.append)
    assert load_checkpoint(folder, method, optimizer) == 2
    assert len(told) == 1


def test_a_flipped_bit_is_found_or_changes_nothing(folder: RunFolder) -> None:
    method, optimizer = training()
    save_checkpoint(folder, method, optimizer, step=1)
    whole = folder.checkpoint.read_bytes()
    state = torch.load(folder.checkpoint, weights_only=True)
    spoiled, generator = folder.path / "spoiled.ckpt", np.random.default_rng(0)
    inside = generator.integers(0, len(whole), 150)  # mostly tensors
    ends = [*generator.integers(0, 2000, 100), *(len(whole) - generator.integers(1, 5000, 100))]
    found = 0
    for place in map(int, [*inside, *ends]):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        spoiled.write_bytes(content)
        if damage_of(spoiled) is not None:
            found += 1
        else:
            assert same(torch.load(spoiled, weights_only=True), state), place
    assert found > 150


def test_a_flipped_bit_in_a_tensor_goes_unseen_by_pytorch_and_is_found_here(folder: RunFolder) -> None:
    method, optimizer = training()
    for step in (1, 2):
        save_checkpoint(folder, method, optimizer, step)
    content = bytearray(folder.checkpoint.read_bytes())
    weights = next(p for p in method.student.parameters() if p.ndim > 1).detach().numpy().tobytes()
    content[content.index(weights)] ^= 1
    folder.checkpoint.write_bytes(content)
    assert load_checkpoint(folder, method, optimizer) == 2
    told: list[str] = []
    fall_back(folder, told.append)
    assert load_checkpoint(folder, method, optimizer) == 1
    assert "checksum" in told[0] or "CRC" in told[0]


def test_a_last_checkpoint_that_is_gone_gives_way_too(folder: RunFolder) -> None:
    method, optimizer = training()
    for step in (1, 2):
        save_checkpoint(folder, method, optimizer, step)
    folder.checkpoint.unlink()
    folder.check(resume=True, overwrite=False)
    fall_back(folder, lambda _: None)
    assert load_checkpoint(folder, method, optimizer) == 1
    assert not folder.damaged_checkpoint.exists()


def test_two_damaged_checkpoints_are_refused_and_stay(folder: RunFolder) -> None:
    method, optimizer = training()
    for step in (1, 2):
        save_checkpoint(folder, method, optimizer, step)
    for file in (folder.checkpoint, folder.previous_checkpoint):
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"is damaged: .* previous\.ckpt, is no better"):
        fall_back(folder, lambda _: None)
    assert folder.checkpoint.exists()


@pytest.mark.parametrize(
    "content",
    [{}, {"format_version": 2, "step": 1, "method": {}, "optimizer": {}}, {"format_version": 1}, [1]],
    ids=repr,
)
def test_files_of_another_format_are_refused(folder: RunFolder, content: object) -> None:
    torch.save(content, folder.checkpoint)
    with pytest.raises(CheckpointError, match="not a checkpoint of format 1"):
        load_checkpoint(folder, *training())


@pytest.mark.parametrize(
    ("settings", "backbone", "complaint"),
    [
        (SETTINGS, ResNetSettings(depth=18, width=0.125, stem="small"), r"missing: .*layer1\.1\."),
        (SETTINGS, ResNetSettings(depth=10, width=0.25, stem="small"), r"other shape: .* instead of"),
        (SETTINGS.model_copy(update={"pairs": ("global->global",)}), NARROW, r"left over: memory\.hyper"),
        (
            SETTINGS.model_copy(update={"memory": MemorySettings(slots=21)}),
            NARROW,
            r"memory\.global \(20, 128\) instead of \(21, 128\)",
        ),
    ],
    ids=["deeper", "wider", "other contexts", "other memory"],
)
def test_another_architecture_is_refused_with_the_keys_and_nothing_is_loaded(
    folder: RunFolder, settings: CGHSettings, backbone: ResNetSettings, complaint: str
) -> None:
    save_checkpoint(folder, *training(), step=1)
    method, optimizer = training(settings, backbone, seed=1)
    before = values(method.state_dict())
    with pytest.raises(CheckpointError, match=f"last.ckpt are those of another architecture; .*{complaint}"):
        load_checkpoint(folder, method, optimizer)
    assert same(before, values(method.state_dict()))
