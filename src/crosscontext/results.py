"""Scores are data: measurements → **results** → `results.jsonl` → reports.

A record carries all conditions of its number; scores whose `protocol_digest` differ are not comparable.
"""

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from crosscontext.errors import RunFolderError
from crosscontext.shapes import Float32

ABSENT = "absent"
"""Stands for the value of a key that a mapping lacks."""


class Score(BaseModel):
    """One number, and everything that it depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    task: str
    """Name of the task, e.g. ``knn``."""

    model: str
    """What was judged: ``encoder``, or the name of one of its references."""

    split: str
    """Part of the data that the number is about."""

    metric: str
    """E.g. ``top1`` or ``top1_k20``."""

    unit: Literal["share", "number"]
    """share: shown in per cent. number: shown as it is."""

    value: float
    """E.g. the share of the images that are right."""

    low: float
    """Lower end of the 95 % bootstrap interval over the images."""

    high: float
    """Upper end of the interval. The luck of pretraining is not in it: only more seeds show that."""

    n: int = Field(ge=1)
    """Images that the value was computed from."""

    replicates: str = Field(repr=False)
    """The value on 1000 resamples of the images, as `pack` writes them. Scores with the same protocol, n and
    seed have the same resamples, so that their differences have an interval too."""

    seed: int
    """Of the evaluation."""

    checkpoint_digest: str
    """Identifies the weights."""

    protocol: dict[str, JsonValue]
    """What must be equal for two scores to be comparable: settings of the task, preprocessing, images."""

    protocol_digest: str
    """Of the protocol, 16 hexadecimal digits."""

    details: dict[str, JsonValue]
    """What was found out on the way, e.g. the penalty that was chosen, and the model's own preprocessing."""

    versions: dict[str, str]
    """Of the software."""

    seconds: float = Field(ge=0)
    """Wall time of the whole task on this model, without the computation of the features."""

    created: AwareDatetime
    """When the score was taken."""


def pack(replicates: Float32[np.ndarray, " R"]) -> str:
    """Write numbers as base64 of little-endian float32."""
    return base64.b64encode(replicates.astype("<f4").tobytes()).decode()


def unpack(text: str) -> Float32[np.ndarray, " R"]:
    """Read what `pack` wrote."""
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)


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


def differences(one: Mapping[str, object], other: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """Find where two protocols differ, or two other nested mappings that can be JSON.

    Returns:
        Dotted path → both values; `ABSENT` where one of them lacks the key.
    """
    found: dict[str, tuple[object, object]] = {}
    for key in dict.fromkeys([*one, *other]):
        left, right = one.get(key, ABSENT), other.get(key, ABSENT)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found |= {f"{key}.{inner}": values for inner, values in differences(left, right).items()}
        elif json.dumps(left, sort_keys=True) != json.dumps(right, sort_keys=True):  # as a digest sees them
            found[key] = left, right
    return found


def shown(score: Score) -> str:
    """Write value and interval for people: shares in per cent, numbers as they are."""
    if score.unit == "share":
        return f"{100 * score.value:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"
    return f"{score.value:.3g} [{score.low:.3g}, {score.high:.3g}]"


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


def read_results(path: Path | str) -> Results:
    """Read the scores of a file.

    Raises:
        RunFolderError: the file is missing, or a line of it is JSON but no score.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
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
