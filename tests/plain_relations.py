"""Relations and their losses with the (B, K) matrix written out: what ours must equal."""

import torch
from torch import Tensor


def unit_rows(count: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    rows = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows).to(dtype)


def plain_relation(embeddings: Tensor, slots: Tensor, temperature: float) -> Tensor:
    return (embeddings @ slots.T / temperature).softmax(dim=1)


def plain_cross_entropy(target: Tensor, student: Tensor, slots: Tensor, temperature: float) -> Tensor:
    return -(target * (student @ slots.T / temperature).log_softmax(dim=1)).sum(dim=1).mean()


def plain_info_nce(queries: Tensor, keys: Tensor, slots: Tensor, temperature: float) -> Tensor:
    logits = torch.cat([(queries * keys).sum(dim=1, keepdim=True), queries @ slots.T], dim=1) / temperature
    return -logits.log_softmax(dim=1)[:, 0].mean()
