"""A graph for onnxruntime and others, with or without the preparation of pictures in it."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pil_to_tensor

from crosscontext.backbones import TimmSettings
from crosscontext.backbones.timm_models import size_options
from crosscontext.contexts import check_stages, hypercolumn, pool
from crosscontext.encoders import Encoder, Preprocessing
from crosscontext.errors import SettingsError
from crosscontext.formats.contract import Format, Loaded, Manual, read_preprocessing

_FILE = "model.onnx"
_OPSET = 18  # the first one whose Resize averages over pixels when it makes pictures smaller, as Pillow does
_IMAGES, _PICTURES, _PREPARED = "images", "pictures", "prepared"
_NAMES_OF_SIDES = {0: "batch", 2: "height", 3: "width"}

Output = Literal["features", "hypercolumn"]


class OnnxFormat(Format):
    """ONNX, any backbone; any number of images, and any size where the network takes it."""

    name: Literal["onnx"] = "onnx"
    """ONNX, any backbone."""

    preprocessing: bool = False
    """Put resizing, cutting and normalising into the graph. Then it takes RGB pictures of any size, uint8
    (batch, 3, height, width), those of a batch of one size; else prepared ones, float32 of the same shape."""

    outputs: tuple[Output, ...] = ("features",)
    """What the graph gives: features (batch, D), and if asked for the hypercolumn (batch, C, h, w)."""

    hyper_stages: tuple[int, ...] = (-2, -1)
    """Stages of the hypercolumn."""

    tolerance: ClassVar[float] = 1e-4

    @property
    def tolerance_of_pictures(self) -> float:
        """With preprocessing, a pixel in some thousands is rounded to the grey value beside."""
        return 5e-3 if self.preprocessing else self.tolerance

    def check(self, encoder: Encoder) -> None:
        """Refuse if the packages are missing, or stages that are not there."""
        _require()
        if "features" not in self.outputs or len(set(self.outputs)) < len(self.outputs):
            raise SettingsError(
                f"format.outputs is {list(self.outputs)}; expected each output once, features among "
                "them, which the proof compares. Name them so."
            )
        check_stages(self.hyper_stages, encoder.backbone.stages, "format.hyper_stages")

    def write(self, encoder: Encoder, folder: Path) -> None:
        """Trace the network, put the preparation before it, and let onnx check the graph."""
        onnx = _require()
        graph = _traced(_Network(encoder, self.outputs, self.hyper_stages), encoder, self.outputs)
        if self.preprocessing:
            before = preparation(encoder.preprocessing, graph.ir_version)
            graph = onnx.compose.merge_models(before, graph, io_map=[(_PREPARED, _IMAGES)])
        onnx.helper.set_model_props(graph, {"crosscontext": encoder.card.model_dump_json()})
        onnx.checker.check_model(graph, full_check=True)
        onnx.save_model(graph, folder / _FILE)

    def read(self, encoder: Encoder, folder: Path) -> Loaded:
        """Run the graph in onnxruntime; to prove the network alone, also the part behind the preparation."""
        onnx = _require()
        graph = onnx.load_model(folder / _FILE)
        if not self.preprocessing:
            network = _session(graph, _IMAGES)
            prepare = read_preprocessing(folder)
            return Loaded(network, lambda picture: network(prepare(picture)[None]))
        behind = onnx.utils.Extractor(graph).extract_model([_PREPARED], ["features"])
        whole = _session(graph, _PICTURES)

        def pictures(picture: Image.Image) -> Tensor:
            features: Tensor = whole(pil_to_tensor(picture)[None])
            return features

        return Loaded(_session(behind, _PREPARED), pictures)

    def manual(self, encoder: Encoder) -> Manual:
        """Say how to run it."""
        code = _code_of_pictures() if self.preprocessing else _code_of_images(encoder.preprocessing)
        code += f"  # (1, {encoder.width})\n"
        sides = "any height and width" if _takes_any_size(encoder) else "one size alone"
        notes = [
            f"Opset {_OPSET}; inputs have any number of images, and the network takes {sides}; outputs are "
            f"{', '.join(self.outputs)}."
        ]
        if self.preprocessing:
            notes.append(
                "The graph resizes as Pillow does, but rounds now and then a pixel to the grey value beside; "
                "the proof below says what that does to the features of whole pictures."
            )
        return Manual("onnx", ("onnx", "onnxruntime", "onnxscript", "torch"), code, tuple(notes))


class _Network(nn.Module):
    """Images → what the graph shall give."""

    def __init__(self, encoder: Encoder, outputs: Sequence[Output], stages: Sequence[int]):
        super().__init__()
        self.backbone, self.outputs, self.stages = encoder.backbone, tuple(outputs), tuple(stages)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Tensor, ...]:
        maps = self.backbone(images)
        return tuple(
            pool(maps[-1]) if name == "features" else hypercolumn([maps[i] for i in self.stages])
            for name in self.outputs
        )


def _traced(network: nn.Module, encoder: Encoder, outputs: Sequence[Output]) -> Any:
    size = encoder.preprocessing.image_size
    free = _NAMES_OF_SIDES if _takes_any_size(encoder) else {0: _NAMES_OF_SIDES[0]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own insides
        program = torch.onnx.export(
            network.eval(),
            (torch.zeros(2, 3, size, size),),
            dynamo=True,
            dynamic_shapes={_IMAGES: free},
            opset_version=_OPSET,
            input_names=[_IMAGES],
            output_names=list(outputs),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _takes_any_size(encoder: Encoder) -> bool:
    settings = encoder.backbone_settings
    return not (isinstance(settings, TimmSettings) and size_options(settings))


def preparation(seen: Preprocessing, ir_version: int) -> Any:
    """Write `Preprocessing` as a graph: bytes of pictures of one size → normalised images.

    Resizing excludes what is outside, as Pillow does: without that, edges are up to 27 grey levels apart.
    """
    onnx = _require()
    size = seen.image_size
    return onnx.parser.parse_model(f"""
<ir_version: {ir_version}, opset_import: ["" : {_OPSET}]>
preparation (uint8[batch, 3, height, width] {_PICTURES}) => (float[batch, 3, {size}, {size}] {_PREPARED}) {{
    pre_sides = Shape <start = 2> ({_PICTURES})
    pre_shortest = ReduceMin <keepdims = 1> (pre_sides)
    pre_short = Constant <value_ints = [{seen.short_side}]> ()
    pre_enlarged = Mul (pre_sides, pre_short)
    pre_scaled = Div (pre_enlarged, pre_shortest)
    pre_front = Shape <start = 0, end = 2> ({_PICTURES})
    pre_target = Concat <axis = 0> (pre_front, pre_scaled)
    pre_resized = Resize <mode = "linear", antialias = 1, exclude_outside = 1> ({_PICTURES}, , , pre_target)

    pre_size = Constant <value_ints = [{size}, {size}]> ()
    pre_spare = Sub (pre_scaled, pre_size)
    pre_spare_float = Cast <to = 1> (pre_spare)
    pre_two = Constant <value_float = 2.0> ()
    pre_half = Div (pre_spare_float, pre_two)
    pre_rounded = Round (pre_half)
    pre_start = Cast <to = 7> (pre_rounded)
    pre_end = Add (pre_start, pre_size)
    pre_axes = Constant <value_ints = [2, 3]> ()
    pre_cropped = Slice (pre_resized, pre_start, pre_end, pre_axes)

    pre_float = Cast <to = 1> (pre_cropped)
    pre_white = Constant <value_float = 255.0> ()
    pre_unit = Div (pre_float, pre_white)
    pre_colours = Constant <value_ints = [3, 1, 1]> ()
    pre_means = Constant <value_floats = {_floats(seen.mean)}> ()
    pre_mean = Reshape (pre_means, pre_colours)
    pre_centred = Sub (pre_unit, pre_mean)
    pre_stds = Constant <value_floats = {_floats(seen.std)}> ()
    pre_std = Reshape (pre_stds, pre_colours)
    {_PREPARED} = Div (pre_centred, pre_std)
}}""")


def _floats(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:.9f}' for value in values)}]"


def _session(graph: Any, input_name: str) -> Any:
    """Make a function of a graph: tensor → features."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def run(given: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["features"], {input_name: given.numpy()})[0])

    return run


def _code_of_pictures() -> str:
    return f'''\
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("{_FILE}")
picture = np.asarray(Image.open("picture.jpg").convert("RGB")).transpose(2, 0, 1)
features = session.run(["features"], {{"{_PICTURES}": picture[None]}})[0]'''


def _code_of_images(seen: Preprocessing) -> str:
    size = seen.image_size
    return f'''\
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("{_FILE}")
picture = Image.open("picture.jpg").convert("RGB")
width, height = (side * {seen.short_side} // min(picture.size) for side in picture.size)
left, top = round((width - {size}) / 2), round((height - {size}) / 2)
picture = picture.resize((width, height), Image.Resampling.BILINEAR)
picture = picture.crop((left, top, left + {size}, top + {size}))
images = np.asarray(picture, np.float32) / 255
images = (images - np.float32({seen.mean})) / np.float32({seen.std})
features = session.run(["features"], {{"{_IMAGES}": images.transpose(2, 0, 1)[None]}})[0]'''


def _require() -> Any:
    """Import what writes, checks and runs graphs, before anything is computed in vain.

    Raises:
        SettingsError: a package is missing.
    """
    try:
        import onnx
        import onnx.compose
        import onnx.parser
        import onnx.utils
        import onnxruntime  # noqa: F401  # its absence shall be told now
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"The format onnx needs {error.name}, which is not installed: "
            'pip install "crosscontext[onnx]", or take another --format.'
        ) from error
    return onnx
