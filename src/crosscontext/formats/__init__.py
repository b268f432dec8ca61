"""Formats: an encoder → files of another library. A plain name, e.g. ``onnx``, stands for the defaults.

To add one: a file with a `Format` that has a `name` of its own, and its name in `FormatSettings`.
"""

from typing import Annotated

from pydantic import Field

from crosscontext.formats.contract import PREPROCESSING, Format, Loaded, Manual
from crosscontext.formats.detectron2 import Detectron2Format
from crosscontext.formats.hf import HuggingFaceFormat
from crosscontext.formats.onnx import OnnxFormat
from crosscontext.formats.safetensors import SafetensorsFormat
from crosscontext.formats.timm import TimmFormat
from crosscontext.formats.torchvision import TorchvisionFormat
from crosscontext.settings import BY_NAME

__all__ = [
    "PREPROCESSING",
    "Detectron2Format",
    "Format",
    "FormatSettings",
    "HuggingFaceFormat",
    "Loaded",
    "Manual",
    "OnnxFormat",
    "SafetensorsFormat",
    "TimmFormat",
    "TorchvisionFormat",
]


FormatSettings = Annotated[
    TimmFormat | TorchvisionFormat | HuggingFaceFormat | OnnxFormat | Detectron2Format | SafetensorsFormat,
    Field(discriminator="name"),
    BY_NAME,
]
"""Settings of any format, which write it too."""
