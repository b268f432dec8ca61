"""Scores are data: measurements → **results** → `results.jsonl` → reports.

A record carries all conditions of its number; scores whose `protocol_digest` differ are not comparable.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError
from torch import Tensor

from crosscontext.errors import RunFolderError
from crosscontext.shapes import Bool

RESAMPLES = 1000
CONFIDENCE = 0.95


class Score(BaseModel):
    """One number, and everything that it depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    task: str
    """Name of the task, e.g. ``knn``."""

    model: str
    """What was judged: ``encoder``, or one of its references ``pixels`` and ``random``."""

    split: str
    """Part of the data that the number is about."""

    metric: str
    """E.g. ``top1`` or ``top1_k20``."""

    value: float = Field(ge=0, le=1)
    """Share of the images that are right."""

    low: float = Field(ge=0, le=1)
    """Lower end of the 95 % bootstrap interval over the images."""

    high: float = Field(ge=0, le=1)
    """Upper end of the interval. The luck of pretraining is not in it: only more seeds show that."""

    n: int = Field(ge=1)
    """Images that the value is a mean over."""

    seed: int
    """Of the evaluation."""

    checkpoint_digest: str
    """Identifies the weights."""

    protocol: dict[str, JsonValue]
    """What must be equal for two scores to be comparable: settings of the task, preprocessing, images."""

    protocol_digest: str
    """Of the protocol, 16 hexadecimal digits."""

    details: dict[str, JsonValue]
    """What was found out on the way, e.g. the penalty that was chosen."""

    versions: dict[str, str]
    """Of the software."""

    seconds: float = Field(ge=0)
    """Wall time of the whole task on this model, without the computation of the features."""

    created: AwareDatetime
    """When the score was taken."""


class Results(NamedTuple):
    """The content of a results file."""

    scores: list[Score]
    torn: list[int]
    """Numbers, from 1, of lines that were lost because their writing was cut short."""


def digest(content: Mapping[str, object]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the content as JSON with sorted keys and no spaces."""
    canonical = json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def bootstrap_interval(right: Bool[Tensor, " N"], seed: int) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of an accuracy over its images.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. N outcomes drawn with
    replacement hold a binomial number of right ones, so that number is drawn at once, for each resample.

    Args:
        right: outcome of each image.
        seed: of the resampling.

    Returns:
        Lower and upper end, in [0, 1]. With all images right or all wrong, the interval is a point.
    """
    n = len(right)
    shares = np.random.default_rng(seed).binomial(n, float(right.double().mean()), RESAMPLES) / n
    low, high = np.quantile(shares, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def append_results(path: Path, scores: Sequence[Score]) -> None:
    """Add scores to a file in one write, on the disk when this returns; a torn last line is closed first.

    Raises:
        RunFolderError: the file cannot be written.
    """
    lines = "".join(score.model_dump_json() + "\n" for score in scores).encode()
    try:
        with path.open("ab+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                lines = lines if file.read(1) == b"\n" else b"\n" + lines
            file.write(lines)
            os.fsync(file.fileno())
    except OSError as error:
        raise RunFolderError(
            f"The scores could not be added to {path}: {error.strerror}. Make room or mend its permissions."
        ) from error


def read_results(path: Path) -> Results:
    """Read the scores of a file.

    Raises:
        RunFolderError: the file is missing, or a line of it is JSON but no score.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise RunFolderError(
            f"{path} cannot be read: {error.strerror}. `crosscontext evaluate` writes it."
        ) from error
    scores: list[Score] = []
    torn: list[int] = []
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
        except ValueError:
            torn.append(number)
            continue
        try:
            scores.append(Score.model_validate_json(line))
        except ValidationError as error:
            wrong = ", ".join(".".join(map(str, e["loc"])) or "the line" for e in error.errors())
            raise RunFolderError(
                f"Line {number} of {path} is no score ({str(content)[:60]!r} …; wrong: {wrong}). "
                "Remove it, or read it with the version that wrote it."
            ) from error
    return Results(scores, torn)
