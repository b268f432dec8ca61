"""An encoder made fast for computing features: the same vectors from fewer operations.

encoders → **inference** → features
"""

import copy
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode

from crosscontext.backbones import Backbone
from crosscontext.batch_norms import SharedBatchNorm2d
from crosscontext.contexts import pool
from crosscontext.encoders import Encoder
from crosscontext.winograd import WinogradConv2d, pays

_TOLERANCE = 1e-4
_CHECKED_IMAGES = 8  # so many that every WinogradConv2d takes its fast way
_CHUNK_PIXELS = 32 * 224**2
_LARGEST_CHUNK = 128
_LEAST_OF_A_THREAD = 4


class InferenceEncoder(nn.Module):
    """What `for_inference` makes of an encoder: it gives features, and can be neither trained nor saved.

    Attributes:
        width: length D of a feature vector.
        digest: identifies the weights of the encoder that it was made from.
        preprocessing: of that encoder.
    """

    def __init__(self, encoder: Encoder, backbone: Backbone):
        super().__init__()
        self.width = encoder.width
        self.digest = encoder.digest
        self.preprocessing = encoder.preprocessing
        self.backbone = backbone
        self.eval()

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Compute one feature vector an image; on a CPU by chunks whose maps take little memory."""
        if images.device.type != "cpu":
            return _features(self.backbone, images)
        chunks = images.split(chunk_size(images.shape[-1], torch.get_num_threads()))
        return torch.cat([_features(self.backbone, chunk) for chunk in chunks])


def for_inference(encoder: Encoder) -> InferenceEncoder:
    """Copy an encoder into a form that computes the same features faster.

    BatchNorm is folded into the convolution before it, weights are laid out in channels_last, and on a CPU
    wide 3×3 convolutions become matrix products (see `winograd`). The vectors differ by rounding, at most by
    1e-4 of the largest value. This is checked on eight images of noise; a network that fails is copied as it
    is, which the log says at level DEBUG.

    Args:
        encoder: is left untouched, in whichever mode it is.

    Returns:
        A copy in evaluation mode on the same device, without gradients. Make another one when the encoder has
        learned more.
    """
    backbone = _copy(encoder.backbone)
    weight = next(backbone.parameters())
    size = encoder.preprocessing.image_size
    generator = torch.Generator().manual_seed(0)
    colours, noise = (
        torch.randn((_CHECKED_IMAGES, 3, side, side), generator=generator) for side in (1, size)
    )
    images = (colours + noise).to(weight)
    # on a GPU, TF32 would round more coarsely than the check
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        with _Watch(backbone) as watch:
            expected = _features(backbone, images)
        try:
            _simplify(backbone, watch.pairs())
            difference = (_features(backbone, images) - expected).abs().max()
        except Exception as error:  # a network may do anything with its layers
            cause = f"it fails: {error!r}"
        else:
            if difference <= _TOLERANCE * expected.abs().max():
                return InferenceEncoder(encoder, backbone)
            cause = f"its vectors differ by {difference:.1e}"
    logging.getLogger(__name__).debug("The network is used as it is; simplified, %s", cause)
    return InferenceEncoder(encoder, _copy(encoder.backbone))


def chunk_size(image_size: int, threads: int) -> int:
    """Choose how many images of S × S pixels go through the network at once on a CPU.

    Fewer make the matrices too small, more only take memory: 32 at 224 px and 128 at 32 to 96 px were the
    fastest, or within noise of it. Each thread gets at least four.
    """
    enough = min(max(_CHUNK_PIXELS // image_size**2, 1), _LARGEST_CHUNK)
    return max(enough, _LEAST_OF_A_THREAD * threads)


def _copy(backbone: Backbone) -> Backbone:
    copied = copy.deepcopy(backbone).eval().requires_grad_(False)
    return copied.to(memory_format=torch.channels_last)


def _features(backbone: Backbone, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
    return pool(backbone(images)[-1])


class _Watch(TorchFunctionMode):
    """Sees which BatchNorm reads which convolution, whatever the code of the network looks like."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self._convolutions = {id(m.weight): m for m in network.modules() if isinstance(m, nn.Conv2d)}
        self._norms = {id(m.running_mean): m for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
        self._uses: Counter[int] = Counter()
        self._outputs: dict[int, tuple[Tensor, nn.Conv2d]] = {}  # an id is unique while its tensor is kept
        self._pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d, Tensor]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Do what is asked, and note which tensors it took."""
        result = func(*args, **(kwargs or {}))
        if not _tensors([result]):
            return result  # a question such as x.shape
        taken = [id(tensor) for tensor in _tensors([*args, *(kwargs or {}).values()])]
        self._uses.update(taken)
        if func is F.conv2d and taken[1] in self._convolutions:
            self._outputs[id(result)] = result, self._convolutions[taken[1]]
            self._uses[id(result)] = 0
        if func is F.batch_norm and taken[0] in self._outputs:
            output, convolution = self._outputs[taken[0]]
            self._pairs += [(convolution, self._norms[i], output) for i in taken if i in self._norms]
        return result

    def pairs(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Name the convolutions that one BatchNorm alone reads, each with that one."""
        return [
            (convolution, norm)
            for convolution, norm, output in self._pairs
            if all(self._uses[id(x)] == 1 for x in (convolution.weight, norm.running_mean, output))
        ]


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """Pick the tensors among values, and within lists and tuples of them."""
    nested = (value if isinstance(value, list | tuple) else [value] for value in values)
    return [tensor for group in nested for tensor in group if isinstance(tensor, Tensor)]


def _simplify(network: nn.Module, pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]]) -> None:
    """Fold each BatchNorm into its convolution, then replace the convolutions that have a faster form."""
    from timm.layers.norm_act import BatchNormAct2d

    faster: dict[nn.Module, nn.Module] = {}
    for convolution, norm in pairs:
        if isinstance(norm, BatchNormAct2d):
            faster[norm] = nn.Sequential(norm.drop, norm.act)
        elif type(norm) in (nn.BatchNorm2d, SharedBatchNorm2d):
            faster[norm] = nn.Identity()
        else:
            continue  # it may do more than its name says
        assert norm.running_mean is not None
        assert norm.running_var is not None
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
    faster |= {m: WinogradConv2d(m) for m in network.modules() if isinstance(m, nn.Conv2d) and pays(m)}
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if child in faster:
                setattr(parent, name, faster[child])
