"""Scores as evaluation would write them, with whatever a test wants to be different."""

from datetime import UTC, datetime

import numpy as np
from pydantic import JsonValue

from crosscontext.results import Score, digest, pack

PROTOCOL: dict[str, JsonValue] = {"task": {"name": "knn", "k": [20]}, "train": {"images": 10, "digest": "ab"}}


def score(
    value: float = 0.5, protocol: dict[str, JsonValue] = PROTOCOL, hour: int = 3, **changes: object
) -> Score:
    """A score of the k-NN task, taken at some hour of the second of January 2026."""
    usual: dict[str, object] = {
        "task": "knn",
        "model": "encoder",
        "split": "test",
        "metric": "top1_k20",
        "unit": "share",
        "value": value,
        "low": value - 0.25,
        "high": value + 0.25,
        "n": 100,
        "replicates": pack(np.full(1000, value, np.float32)),
        "seed": 0,
        "checkpoint_digest": "0123456789abcdef",
        "protocol": protocol,
        "protocol_digest": digest(protocol),
        "details": {},
        "versions": {"torch": "2"},
        "seconds": 1.5,
        "created": datetime(2026, 1, 2, hour, 4, 5, tzinfo=UTC),
    }
    return Score.model_validate(usual | changes)
