"""Comparison with reference values; `pytest -rP` prints the largest errors of the tests that passed."""

import torch
from torch import Tensor


def assert_agrees(ours: Tensor, theirs: Tensor, name: str, *, atol: float, rtol: float = 0.0) -> None:
    error = (ours.detach() - theirs).abs().max().item()
    print(f"{name}: largest error {error:.1e}, tolerance {atol:.0e}")
    torch.testing.assert_close(ours.detach(), theirs, atol=atol, rtol=rtol, msg=lambda m: f"{name}: {m}")
