"""State dicts in the layouts that other libraries document, made of a network whose answer is known."""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]


def under(prefix: str, weights: Weights) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in weights.items()}


def twin(weights: Weights) -> dict[str, Tensor]:
    return {name: value + 1 for name, value in weights.items()}


def linear(*names: str) -> dict[str, Tensor]:
    return {f"{name}.{part}": torch.zeros(2) for name in names for part in ("weight", "bias")}


OPTIMIZER = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
QUEUE = {"queue": torch.zeros(2, 4), "queue_ptr": torch.zeros(1, dtype=torch.long)}


def moco(w: Weights, head: tuple[str, ...] = ("fc",)) -> object:
    q, k = {**w, **linear(*head)}, {**twin(w), **linear(*head)}
    state = {**under("encoder_q.", q), **under("encoder_k.", k), **QUEUE}
    return {"epoch": 1, "arch": "resnet50", "state_dict": under("module.", state), "optimizer": OPTIMIZER}


def moco_v2(w: Weights) -> object:
    return moco(w, ("fc.0", "fc.2"))


def moco_v3(w: Weights) -> object:
    heads = linear("fc.0", "fc.1")
    state = {
        **under("base_encoder.", {**w, **heads}),
        **under("momentum_encoder.", {**twin(w), **heads}),
        **linear("predictor.0"),
    }
    return {"state_dict": under("module.", state), "optimizer": OPTIMIZER, "scaler": {"scale": 1.0}}


def cgh(w: Weights) -> object:
    fc, hyper = linear("fc.0", "fc.2"), linear("reg_conv.1", "projector.0", "projector.2")
    return {
        "net": {
            **under("encoder_q.", {**w, **fc}),
            **under("encoder_k.", {**twin(w), **fc}),
            **under("hypercols_proj_q.", hyper),
            **under("hypercols_proj_k.", hyper),
            **QUEUE,
            "queue_targets": torch.zeros(4),
            "queue_hyper": torch.zeros(2, 4),
            "queue_hyper_ptr": torch.zeros(1),
            "center": torch.zeros(1, 4),
            "center_hyper": torch.zeros(1, 4),
        },
        "optimizer": OPTIMIZER,
    }


def ressl(w: Weights) -> object:
    heads = linear("head.linear1", "head.linear2")
    state = {
        **under("encoder_q.", {**under("net.", w), **heads}),
        **under("encoder_k.", {**under("net.", twin(w)), **heads}),
        **QUEUE,
    }
    return {"model": under("module.", state), "optimizer": OPTIMIZER, "epoch": 3}


def eztorch(w: Weights) -> object:
    state = {
        **under("trunk.", w),
        **under("momentum_trunk.", twin(w)),
        **linear("projector.layers.0", "momentum_projector.layers.0"),
        **QUEUE,
    }
    return {"state_dict": state, "optimizer_states": [OPTIMIZER], "pytorch-lightning_version": "1.6"}


def solo_learn(w: Weights) -> object:
    state = {
        **under("backbone.", w),
        **under("momentum_backbone.", twin(w)),
        **linear("classifier", "projector.0", "momentum_projector.0", "predictor.0"),
        **QUEUE,
    }
    return {"state_dict": state, "optimizer_states": [OPTIMIZER], "lr_schedulers": []}


def children(w: Weights) -> dict[str, Tensor]:
    """Names in a Sequential of the children of a ResNet."""
    places = {"conv1": "0", "bn1": "1", **{f"layer{i}": str(i + 3) for i in (1, 2, 3, 4)}}
    return {re.sub(r"^\w+", lambda found: places[found[0]], name): value for name, value in w.items()}


def own_children(w: Weights) -> dict[str, Tensor]:
    """The same for lightly's own ResNet, whose activation is no child."""
    places = {"conv1": "0", "bn1": "1", **{f"layer{i}": str(i + 1) for i in (1, 2, 3, 4)}}
    named = {re.sub(r"^\w+", lambda found: places[found[0]], name): value for name, value in w.items()}
    return {name.replace("downsample", "shortcut"): value for name, value in named.items()}


def lightly(w: Weights, named: Callable[[Weights], dict[str, Tensor]] = children) -> object:
    return {
        "state_dict": {
            **under("backbone.", named(w)),
            **under("backbone_momentum.", named(twin(w))),
            **linear(
                "projection_head.layers.0", "projection_head_momentum.layers.0", "prediction_head.layers.0"
            ),
            "criterion.memory_bank.bank": torch.zeros(2, 4),
        }
    }


def lightly_own(w: Weights) -> object:
    return lightly(w, own_children)


def lightly_dino(w: Weights) -> object:
    return {
        **under("student_backbone.", children(twin(w))),
        **under("backbone_momentum.", children(twin(w))),
        **under("backbone.", children(w)),
        **linear("student_head.layers.0", "teacher_head.layers.0"),
    }


def vissl(w: Weights) -> object:
    model = {"trunk": under("_feature_blocks.", w), "heads": linear("0.clf.0")}
    training = {"optimizer": OPTIMIZER, "loss": {"center": torch.zeros(2)}}
    return {"classy_state_dict": {"base_model": {"model": model, "meters": {}}, **training}}


def vissl_evaluated(w: Weights) -> object:
    return under("trunk.base_model._feature_blocks.", w)


def openselfsup(w: Weights) -> object:
    state = {
        **under("encoder_q.0.", w),
        **under("backbone.", w),
        **under("encoder_k.0.", twin(w)),
        **linear("encoder_q.1.mlp.0", "encoder_k.1.mlp.0"),
        **QUEUE,
    }
    return {"meta": {"epoch": 1}, "state_dict": state, "optimizer": OPTIMIZER}


def mmpretrain(w: Weights) -> object:
    state = {
        **under("backbone.", w),
        **under("encoder_k.module.0.", twin(w)),
        **linear("neck.mlp.0", "encoder_k.module.1.mlp.0", "head.fc"),
        "encoder_k.steps": torch.tensor(3),
        "data_preprocessor.mean": torch.zeros(3, 1, 1),
        **QUEUE,
    }
    return {"meta": {"epoch": 1}, "state_dict": state, "optimizer": OPTIMIZER, "message_hub": {"x": 1}}


def barlow_twins(w: Weights) -> object:
    state = {
        **under("backbone.", w),
        **linear("projector.0", "projector.1"),
        "bn.running_mean": torch.zeros(2),
        "bn.running_var": torch.zeros(2),
        "bn.num_batches_tracked": torch.tensor(0),
    }
    return {"epoch": 2, "model": under("module.", state), "optimizer": OPTIMIZER}


def swav(w: Weights) -> object:
    heads = {**linear("projection_head.0", "projection_head.3"), "prototypes.weight": torch.zeros(3, 2)}
    return under("module.", {**w, **heads})


def torchvision(w: Weights) -> object:
    return {**w, **linear("fc")}


def hugging_face_resnet(w: Weights) -> object:
    def name(old: str) -> str:
        old = re.sub(r"^conv1\.", "embedder.embedder.convolution.", old)
        old = re.sub(r"^bn1\.", "embedder.embedder.normalization.", old)
        old = re.sub(r"^layer(\d)\.(\d+)\.", lambda f: f"encoder.stages.{int(f[1]) - 1}.layers.{f[2]}.", old)
        old = re.sub(r"\.conv(\d)\.", lambda f: f".layer.{int(f[1]) - 1}.convolution.", old)
        old = re.sub(r"\.bn(\d)\.", lambda f: f".layer.{int(f[1]) - 1}.normalization.", old)
        old = old.replace("downsample.0", "shortcut.convolution")
        return old.replace("downsample.1", "shortcut.normalization")

    return {**{f"resnet.{name(old)}": value for old, value in w.items()}, **linear("classifier.1")}


def dino(w: Weights) -> object:
    from argparse import Namespace

    heads = linear("head.mlp.0", "head.last_layer")
    return {
        "student": under("module.", {**under("backbone.", twin(w)), **heads}),
        "teacher": {**under("backbone.", w), **heads},
        "optimizer": OPTIMIZER,
        "epoch": 3,
        "args": Namespace(arch="vit_tiny", lr=0.1),
        "dino_loss": {"center": torch.zeros(1, 4)},
    }


def dinov2(w: Weights) -> object:
    """Blocks in chunks, and a mask token."""
    chunked = {re.sub(r"^blocks\.(\d+)\.", r"blocks.0.\1.", name): value for name, value in w.items()}
    return {
        "teacher": {
            **under("backbone.", {**chunked, "mask_token": torch.zeros(1, 2)}),
            **linear("dino_head.mlp.0", "ibot_head.mlp.0"),
        }
    }


def hugging_face_vit(w: Weights) -> object:
    renamed = (
        (r"^(cls_token)$", r"embeddings.\1"),
        (r"^pos_embed$", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
        (r"^norm\.", "layernorm."),
        (r"^blocks\.", "encoder.layer."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
    )
    state: dict[str, Tensor] = linear("pooler.dense")
    for name, value in w.items():
        new = name
        for pattern, replacement in renamed:
            new = re.sub(pattern, replacement, new)
        if ".attn.qkv." in new:
            for part, chunk in zip(("query", "key", "value"), value.chunk(3), strict=True):
                state["vit." + new.replace("attn.qkv", f"attention.attention.{part}")] = chunk
        else:
            state[f"vit.{new}"] = value
    return state


def mmpretrain_vit(w: Weights) -> object:
    def name(old: str) -> str:
        old = old.replace("patch_embed.proj", "patch_embed.projection").replace("blocks.", "layers.")
        old = re.sub(r"^norm\.", "ln1.", old)
        old = re.sub(r"\.norm(\d)\.", r".ln\1.", old)
        return old.replace("mlp.fc1", "ffn.layers.0.0").replace("mlp.fc2", "ffn.layers.1")

    state = {f"backbone.{name(old)}": value for old, value in w.items()}
    return {"state_dict": {**state, **linear("head.layers.head")}}


def timm_training(w: Weights) -> object:
    from argparse import Namespace

    state = {**w, **linear("head")}
    return {"state_dict": state, "state_dict_ema": {**twin(w), **linear("head")}, "args": Namespace(lr=1)}
