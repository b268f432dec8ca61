"""The examples run as they stand."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_loop_of_ones_own_takes_forty_lines() -> None:
    assert len((EXAMPLES / "own_loop.py").read_text().splitlines()) <= 40


@pytest.mark.slow
def test_the_parts_serve_in_a_loop_of_ones_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(64):
        path = tmp_path / "images" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
    command = [sys.executable, str(EXAMPLES / "own_loop.py"), str(tmp_path / "images"), "3"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    assert len(losses) == 3
    assert losses[0] == 0  # the memory is empty
    assert all(0 < loss < 20 for loss in losses[1:])
    assert "conv1.weight" in torch.load(tmp_path / "backbone.pt", weights_only=True)
