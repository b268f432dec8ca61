"""Weights in files → state dicts → modules, exactly: nothing is unpickled, no key is passed over."""

import argparse
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeGuard

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from crosscontext.errors import CheckpointError

DAMAGES = (Exception,)  # of many kinds: a fuzzer meets a dozen
"""What the readers of PyTorch and of safetensors raise for files that are damaged or something else."""

Shape = tuple[int, ...] | None

_NAMED_AT_MOST = 8


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a ``.safetensors`` file, or from a PyTorch file without running pickled code.

    A PyTorch file may hold the state dict itself or hold it under ``state_dict`` or ``model``.

    Raises:
        CheckpointError: the file is missing, damaged, or needs code to be unpickled.
    """
    loaded = _read(path)
    for key in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    named = loaded.items() if isinstance(loaded, Mapping) else ()
    tensors = {name: value for name, value in named if isinstance(name, str) and _is_plain(value)}
    if not tensors:
        raise CheckpointError(f"{path} holds no named tensors. Give a file with the state dict of a network.")
    return tensors


def read_every_tensor(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a file by the dotted path of keys that leads to them, e.g. ``state_dict.fc.bias``.

    Raises:
        CheckpointError: the file is missing, damaged, needs code to be unpickled, or holds no tensors.
    """
    try:
        tensors = dict(_tensors_below(_read(path), ""))
    except RecursionError as error:
        raise CheckpointError(
            f"{path} is nested too deep. Give a file with the state dict of a network."
        ) from error
    if not tensors:
        raise CheckpointError(f"{path} holds no named tensors. Give a file with the state dict of a network.")
    for name, tensor in tensors.items():
        if tensor.nbytes > tensor.untyped_storage().nbytes():  # as of expand: one number, shown many times
            raise CheckpointError(
                f"{path} holds {tensor.untyped_storage().nbytes()} bytes for {name}, whose shape "
                f"{tuple(tensor.shape)} takes {tensor.nbytes}: in memory it would be larger than its file. "
                "Save contiguous tensors."
            )
    return tensors


def refuse_bombs(path: Path) -> None:
    """Refuse a PyTorch file that would become much larger in memory: PyTorch itself compresses nothing.

    Raises:
        ValueError: the entries of the file are larger than itself.
    """
    if not zipfile.is_zipfile(path):
        return  # written before PyTorch 1.6, without compression
    with zipfile.ZipFile(path) as archive:
        unpacked, packed = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
    if unpacked > packed:
        raise ValueError(f"its {packed} bytes would become {unpacked}; files of PyTorch are not compressed.")


def _is_plain(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta


def cause_of(error: Exception) -> str:
    """Say in one line what a reader complains about; an empty file leaves it speechless."""
    return (str(error) or "it ends too early").splitlines()[0]


def load_exactly(module: nn.Module, weights: Mapping[str, Any], source: str) -> None:
    """Load a state dict of which every key and every shape must match.

    Args:
        module: takes the weights.
        weights: its whole state dict.
        source: where the weights come from, for the message.

    Raises:
        CheckpointError: keys are missing or left over, or shapes differ; the message lists them.
    """
    refuse_misfit(module, shapes_of(weights), source)
    module.load_state_dict(dict(weights))


def shapes_of(state: Mapping[str, Any]) -> dict[str, Shape]:
    """Tell the shape of each tensor of a state dict; None of what is no tensor."""
    return {key: tuple(value.shape) if isinstance(value, Tensor) else None for key, value in state.items()}


def read_shapes(path: Path) -> dict[str, Shape]:
    """Read the shapes of the tensors in a ``.safetensors`` file; of the tensors themselves, nothing is read.

    Raises:
        CheckpointError: the file is damaged. A whole one is as large as its shapes say.
    """
    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except DAMAGES as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {cause_of(error)}") from error


def refuse_misfit(module: nn.Module, shapes: Mapping[str, Shape], source: str) -> None:
    """Make sure that weights of some shapes fit into a module, which may be on the device meta.

    Args:
        module: of which each key must be among them, with its shape.
        shapes: by key; None fits everywhere.
        source: where the weights come from, for the message.

    Raises:
        CheckpointError: keys are missing or left over, or shapes differ; the message lists them.
    """
    own = shapes_of(module.state_dict())
    differing = [
        f"{key} {shapes[key]} instead of {own[key]}"
        for key in own.keys() & shapes.keys()
        if own[key] is not None and shapes[key] is not None and own[key] != shapes[key]
    ]
    problems = [
        f"{what}: {', '.join(sorted(found)[:_NAMED_AT_MOST])}"
        + (f" and {len(found) - _NAMED_AT_MOST} more" if len(found) > _NAMED_AT_MOST else "")
        for what, found in (
            ("missing", own.keys() - shapes.keys()),
            ("left over", shapes.keys() - own.keys()),
            ("other shape", differing),
        )
        if found
    ]
    if problems:
        raise CheckpointError(
            f"The weights of {source} are those of another architecture; {'; '.join(problems)}. "
            "Choose the backbone and method settings that they were made with."
        )


def _read(path: Path) -> object:
    if not path.is_file():
        raise CheckpointError(f"There is no weights file {path}. Check the path.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        refuse_bombs(path)
        # a Namespace, as many trainings save their options, is a bag of attributes: making one runs no code
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} cannot be read as weights: {_unpickled_by(path) or cause_of(error)} "
            "Give a .safetensors file, or a PyTorch file that holds tensors alone. If you trust the file, "
            "make one where its software is installed: torch.save(torch.load(FILE, weights_only=False)"
            "['state_dict'], OTHER)."
        ) from error
    except DAMAGES as error:
        raise CheckpointError(
            f"{path} cannot be read as weights: {cause_of(error)} "
            "Give a .safetensors file, or a PyTorch file that holds tensors alone."
        ) from error


def _unpickled_by(path: Path) -> str:
    """Name the code that a file asks for; empty where it is no archive of PyTorch."""
    try:
        asked = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except DAMAGES:
        return ""
    return f"it would run {', '.join(sorted(asked)[:_NAMED_AT_MOST])}." if asked else ""


def _tensors_below(value: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if _is_plain(value) and prefix:
        yield prefix, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors_below(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _tensors_below(inner, f"{prefix}.{number}")
