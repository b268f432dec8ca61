"""A run of ten steps on a very small network, and what is compared of two of them."""

from pathlib import Path
from typing import Any

import torch

from crosscontext.planning import PretrainSettings
from crosscontext.run_folder import RunFolder
from crosscontext.tracking import read_metrics

TINY = {"name": "resnet", "depth": 10, "width": 0.125}


def settings(data: Path | str | dict[str, Any], out: Path, **changes: Any) -> PretrainSettings:
    usual = {
        "steps": 10,
        "batch_size": 12,
        "image_size": 16,
        "backbone": TINY,
        "method": {"name": "cgh", "memory": {"slots": 30}},
        "log_every": "1 steps",
        "report": False,
        "loggers": ["none"],
        "threads": 1,
        "workers": 1,
    }
    return PretrainSettings.model_validate({"data": data, "out": out} | usual | changes)


def state_of(folder: RunFolder) -> dict[str, Any]:
    return torch.load(folder.checkpoint, weights_only=True)  # type: ignore[no-any-return]


def assert_same(left: object, right: object, place: str = "") -> None:
    assert type(left) is type(right), place
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        assert torch.equal(left, right), place
    elif isinstance(left, dict) and isinstance(right, dict):
        assert left.keys() == right.keys(), place
        for key in left:
            assert_same(left[key], right[key], f"{place}.{key}")
    elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
        assert len(left) == len(right), place
        for number, pair in enumerate(zip(left, right, strict=True)):
            assert_same(*pair, f"{place}[{number}]")
    else:
        assert left == right, place


def timeless(folder: RunFolder) -> list[dict[str, float | int]]:
    """Metrics without those that a clock gives."""
    return [
        {name: value for name, value in line.items() if not name.startswith("time/")}
        for line in read_metrics(folder.metrics)
    ]
