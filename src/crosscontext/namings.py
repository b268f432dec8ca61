"""The names that libraries give to the tensors of one network → the names of timm.

layouts → **namings** → architectures. Values change where timm joins tensors that others keep apart.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from crosscontext.errors import CheckpointError

Weights = dict[str, Tensor]
Rule = tuple[str, str | Callable[[re.Match[str]], str]]


class Naming(NamedTuple):
    """How one library names the tensors of a network."""

    name: str

    marks: tuple[str, ...]
    """Patterns by which it is recognised: each one matches some name from its start."""

    rules: tuple[Rule, ...] = ()
    """Pattern and replacement, applied to each name one after the other."""

    dropped: str = r"$."
    """Pattern of tensors that pretraining alone uses, or that follow from the architecture."""


def _counted(pattern: str) -> Callable[[re.Match[str]], str]:
    """A replacement whose {0}, {1}, … are the numbers found; {0+1} counts from one."""

    def replace(found: re.Match[str]) -> str:
        numbers = [int(number) for number in found.groups()]
        return re.sub(r"\{(\d)(\+1)?\}", lambda place: str(numbers[int(place[1])] + bool(place[2])), pattern)

    return replace


NAMINGS: tuple[Naming, ...] = (
    Naming("ResNet of torchvision and timm", (r"conv1\.weight$", r"layer4\.")),
    Naming(
        "children of a ResNet of torchvision",
        (r"0\.weight$", r"7\.0\.conv1\."),
        (
            (r"^0\.", "conv1."),
            (r"^1\.", "bn1."),
            (r"^([4-7])\.", lambda found: f"layer{int(found[1]) - 3}."),
        ),
    ),
    Naming(
        "children of a ResNet of lightly",
        (r"0\.weight$", r"2\.0\.conv1\."),
        (
            (r"^0\.", "conv1."),
            (r"^1\.", "bn1."),
            (r"^([2-5])\.", lambda found: f"layer{int(found[1]) - 1}."),
            (r"\.shortcut\.", ".downsample."),
        ),
    ),
    Naming(
        "ResNet of Hugging Face",
        (r"embedder\.embedder\.convolution\.",),
        (
            (r"^embedder\.embedder\.convolution\.", "conv1."),
            (r"^embedder\.embedder\.normalization\.", "bn1."),
            (r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.", _counted("layer{0+1}.{1}.")),
            (r"shortcut\.convolution\.", "downsample.0."),
            (r"shortcut\.normalization\.", "downsample.1."),
            (r"\blayer\.(\d+)\.convolution\.", _counted("conv{0+1}.")),
            (r"\blayer\.(\d+)\.normalization\.", _counted("bn{0+1}.")),
        ),
    ),
    Naming(
        "DINOv3",
        (r"storage_tokens$", r"blocks\."),
        (
            (r"^storage_tokens$", "reg_token"),
            (r"\.ls([12])\.gamma$", r".gamma_\1"),
            (r"\.mlp\.w1\.", ".mlp.fc1_g."),
            (r"\.mlp\.w2\.", ".mlp.fc1_x."),
            (r"\.mlp\.w3\.", ".mlp.fc2."),
        ),
        r"mask_token$|rope_embed\.|local_cls_norm\.|.*\.bias_mask$",
    ),
    Naming(
        "DINOv3 of Hugging Face",
        (r"embeddings\.patch_embeddings\.weight$",),
        (
            (r"^embeddings\.cls_token$", "cls_token"),
            (r"^embeddings\.register_tokens$", "reg_token"),
            (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
            (r"^layer\.(\d+)\.", r"blocks.\1."),
            (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
            (r"\.attention\.o_proj\.", ".attn.proj."),
            (r"\.layer_scale([12])\.lambda1$", r".gamma_\1"),
            (r"\.mlp\.gate_proj\.", ".mlp.fc1_g."),
            (r"\.mlp\.down_proj\.", ".mlp.fc2."),
        ),
        r"embeddings\.mask_token$|rope_embeddings\.",
    ),
    Naming(
        "transformer of timm, DINO and DINOv2",
        (r"patch_embed\.proj\.", r"blocks\."),
        (
            (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # DINOv2 shards its blocks into chunks
            (r"\.mlp\.w12\.", ".mlp.fc1."),
            (r"\.mlp\.w3\.", ".mlp.fc2."),
        ),
        r"mask_token$",
    ),
    Naming(
        "transformer of torchvision",
        (r"class_token$", r"conv_proj\."),
        (
            (r"^class_token$", "cls_token"),
            (r"^encoder\.pos_embedding$", "pos_embed"),
            (r"^conv_proj\.", "patch_embed.proj."),
            (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
            (r"\.ln_([12])\.", r".norm\1."),
            (r"\.self_attention\.in_proj_", ".attn.qkv."),
            (r"\.self_attention\.out_proj\.", ".attn.proj."),
            (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
            (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
            (r"^encoder\.ln\.", "norm."),
        ),
    ),
    Naming(
        "transformer of mmpretrain",
        (r"patch_embed\.projection\.", r"layers\."),
        (
            (r"^patch_embed\.projection\.", "patch_embed.proj."),
            (r"^layers\.(\d+)\.", r"blocks.\1."),
            (r"^ln1\.", "norm."),
            (r"\.ln([12])\.", r".norm\1."),
            (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
            (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
        ),
        r"mask_token$",
    ),
    Naming(
        "transformer of Hugging Face",
        (r"embeddings\.patch_embeddings\.projection\.", r"encoder\.layer\."),
        (
            (r"^embeddings\.(cls_token|register_tokens)$", r"\1"),
            (r"^embeddings\.position_embeddings$", "pos_embed"),
            (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
            (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
            (r"\.attention\.attention\.(query|key|value)\.", lambda found: f".attn.{found[1][0]}."),
            (r"\.attention\.output\.dense\.", ".attn.proj."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"\.output\.dense\.", ".mlp.fc2."),
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
            (r"\.mlp\.weights_in\.", ".mlp.fc1."),
            (r"\.mlp\.weights_out\.", ".mlp.fc2."),
            (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
            (r"^layernorm\.", "norm."),
        ),
        r"embeddings\.mask_token$",
    ),
    Naming(
        "ConvNeXt of its authors and DINOv3",
        (r"downsample_layers\.0\.0\.",),
        (
            (r"^downsample_layers\.0\.", "stem."),
            (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
            (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
            (r"\.dwconv\.", ".conv_dw."),
            (r"\.pwconv([12])\.", r".mlp.fc\1."),
            (r"^norm\.", "head.norm."),
        ),
        r"norms\.",
    ),
    Naming("names of timm", (r"",)),
)
"""In the order in which they are tried."""


def as_in_timm(weights: Mapping[str, Tensor]) -> Weights:
    """Rename the tensors of one network, and join what timm keeps in one tensor.

    Args:
        weights: with the names that any of the known libraries gives.

    Returns:
        The same values by their names in timm. What pretraining alone uses, such as a mask token, is absent.

    Raises:
        CheckpointError: two tensors get the same name.
    """
    naming = next(
        naming for naming in NAMINGS if all(any(re.match(m, name) for name in weights) for m in naming.marks)
    )
    renamed: Weights = {}
    for name, value in weights.items():
        if re.match(naming.dropped, name):
            continue
        new = name
        for pattern, replacement in naming.rules:
            new = re.sub(pattern, replacement, new)
        if new in renamed:
            raise CheckpointError(
                f"Two tensors of the file stand for {new} ({naming.name}). Give a file with one network."
            )
        renamed[new] = value
    return _joined(renamed)


def _joined(weights: Weights) -> Weights:
    """Bring weights that bear timm's names into timm's form: queries, keys and values in one tensor, etc."""
    for name in [name for name in weights if name.endswith(".attn.q.weight")]:
        block = name.removesuffix("q.weight")
        weights[f"{block}qkv.weight"] = torch.cat([weights.pop(f"{block}{part}.weight") for part in "qkv"])
        if f"{block}k.bias" in weights:
            weights[f"{block}qkv.bias"] = torch.cat([weights.pop(f"{block}{part}.bias") for part in "qkv"])
        elif f"{block}q.bias" in weights:  # DINOv3 has no bias of keys
            weights[f"{block}q_bias"] = weights.pop(f"{block}q.bias")
            weights[f"{block}v_bias"] = weights.pop(f"{block}v.bias")
    if "reg_token" in weights and "pos_embed" not in weights:
        _split_bias(weights)
        gated = any(".mlp.fc1_g." in name for name in weights)
        for name in [name for name in weights if ".mlp.up_proj." in name]:
            weights[name.replace("up_proj", "fc1_x" if gated else "fc1")] = weights.pop(name)
    if "register_tokens" in weights:  # timm adds the position of the class token to the token itself
        positions = weights.pop("pos_embed")
        weights["reg_token"] = weights.pop("register_tokens")
        weights["cls_token"] = weights["cls_token"] + positions[:, :1]
        weights["pos_embed"] = positions[:, 1:]
    for name in [name for name in weights if name.endswith(".running_var")]:  # files of PyTorch 0.3 lack it
        weights.setdefault(name.replace("running_var", "num_batches_tracked"), torch.tensor(0))
    return weights


def _split_bias(weights: Weights) -> None:
    """Keep the biases of queries and values; DINOv3 masks that of keys."""
    for name in [name for name in weights if name.endswith(".attn.qkv.bias")]:
        queries, _, values = weights.pop(name).chunk(3)
        block = name.removesuffix("qkv.bias")
        weights[f"{block}q_bias"], weights[f"{block}v_bias"] = queries, values
