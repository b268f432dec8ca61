"""Where the libraries of the field keep the backbone within a checkpoint, and what else lies there.

names of tensors → **layouts** → names of one network. The names within the network are `namings`' matter.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

Unseen = Literal["stem padding", "attention heads"]
"""What shapes do not show, and what some libraries do otherwise than timm."""


class Layout(NamedTuple):
    """How one library names the tensors of a checkpoint. All patterns match from the start of a name."""

    name: str

    marks: tuple[str, ...]
    """Patterns by which it is recognised: each one matches some name."""

    twins: Mapping[str, str]
    """Word for each copy of the backbone → pattern of its prefix. The first one is taken by default."""

    head: str = r"(fc|head|heads|classifier)\."
    """What sits on a twin and is left out; matched after the prefix."""

    parts: Mapping[str, str] = {}
    """What else is left out: word → pattern."""

    unseen: frozenset[Unseen] = frozenset()


class Split(NamedTuple):
    """The names of a checkpoint, sorted."""

    taken: dict[str, str]
    """Name in the file → name within the network."""

    dropped: dict[str, int]
    """What was left out → number of tensors."""

    unknown: list[str]


_TRAINING = {
    "optimiser and schedule": r"(optimizers?|optimizer_states|lr_schedulers?|scheduler|(fp16_)?scaler|amp"
    r"|grad_scaler|callbacks|loops|hyper_parameters|message_hub|meta|args|loss_scaler|random_state)(\.|$)"
}
_QUEUE = {"queue": r"queue\w*$"}
_WRAPPERS = re.compile(
    r"^((state_dict|model_state_dict|model|network|net|module|_orig_mod)\.)+|(?<=\.)(module|_orig_mod)\."
)

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "CGH",
        (r"hypercols_proj_q\.", r"encoder_q\."),
        {"query": r"encoder_q\.", "key": r"encoder_k\."},
        parts={**_QUEUE, "hypercolumn heads": r"hypercols_proj_[qk]\.", "centres": r"center(_hyper)?$"},
    ),
    Layout(
        "ReSSL",
        (r"encoder_q\.net\.",),
        {"query": r"encoder_q\.net\.", "key": r"encoder_k\.net\."},
        parts={**_QUEUE, "projection head": r"encoder_[qk]\.head\."},
    ),
    Layout(
        "MoCo v1/v2",
        (r"encoder_q\.(conv1|patch_embed)\.",),
        {"query": r"encoder_q\.", "key": r"encoder_k\."},
        parts=_QUEUE,
    ),
    Layout(
        "MoCo v3",
        (r"base_encoder\.",),
        {"base": r"base_encoder\.", "momentum": r"momentum_encoder\."},
        parts={"predictor": r"predictor\."},
        unseen=frozenset({"attention heads"}),
    ),
    Layout(
        "VISSL",
        (r"(\w+\.)*_feature_blocks\.",),
        {"trunk": r"(\w+\.)*?_feature_blocks\."},
        parts={
            "heads": r"(classy_state_dict\.base_model\.)?(model\.)?heads\.",
            "state of training": r"classy_state_dict\.(?!base_model\.model\.)",
        },
    ),
    Layout(
        "eztorch (SCE)",
        (r"trunk\.",),
        {"online": r"trunk\.", "momentum": r"momentum_trunk\."},
        parts={**_QUEUE, "heads": r"(momentum_)?(projector|predictor|classifier)\."},
    ),
    Layout(
        "DINO",
        (r"teacher\.backbone\.",),
        {"teacher": r"teacher\.backbone\.", "student": r"student\.backbone\."},
        parts={
            "projection heads": r"(teacher|student)\.(head|dino_head|ibot_head)\.",
            "centres": r"(dino_loss|ibot_patch_loss|dino_clstoken_loss|ibot_loss)\.",
        },
    ),
    Layout(
        "lightly",
        (
            r"(student_|teacher_)?(projection|prediction)_head\w*\.|(student|teacher)_head\.|backbone_momentum\.",
            r"(student_)?backbone\.",
        ),
        {
            "online": r"(student_)?backbone\.(vit\.)?",
            "momentum": r"(backbone_momentum|teacher_backbone)\.(vit\.)?",
        },
        parts={
            "heads": r"(student_|teacher_)?(projection|prediction)_head\w*\."
            r"|(student|teacher)_head\.|prototypes\.",
            "state of the loss": r"(memory_bank|queues?|criterion|online_classifier)\.",
        },
        unseen=frozenset({"attention heads"}),
    ),
    Layout(
        "Barlow Twins",
        (r"bn\.running_mean", r"backbone\.", r"projector\."),
        {"network": r"backbone\."},
        parts={"projection head": r"(projector|bn)\."},
    ),
    Layout(
        "solo-learn",
        (r"(classifier|projector|momentum_projector)\.", r"backbone\."),
        {"online": r"backbone\.", "momentum": r"momentum_backbone\."},
        parts={
            **_QUEUE,
            "heads": r"(momentum_)?(projector|predictor|classifier|head)\.|prototypes\.",
            "state of the loss": r"dino_loss_func\.",
        },
        unseen=frozenset({"stem padding", "attention heads"}),
    ),
    Layout(
        "MMSelfSup/mmpretrain",
        (r"backbone\.",),
        {
            "backbone": r"backbone\.",
            "query": r"(encoder_q|online_net)\.0\.",
            "momentum": r"((encoder_k|target_net)\.0|encoder_k\.backbone)\.",
        },
        parts={
            **_QUEUE,
            "heads": r"(neck|head|predictor|(encoder_[qk]|(target|online)_net)\.(1|neck))\.",
            "preprocessing": r"data_preprocessor\.",
            "counters": r"(encoder_k|target_net)\.steps$",
        },
        unseen=frozenset({"attention heads"}),
    ),
    Layout(
        "Hugging Face",
        (r"(\w+\.)?(embedder\.embedder|embeddings\.patch_embeddings)\.",),
        {
            "network": r"((resnet|vit|dinov2|dinov2_with_registers|dinov3_vit)\.)?"
            r"(?=(embedder|embeddings|rope_embeddings|encoder|layer|layers|layernorm|norm)\.)"
        },
        parts={"head": r"(\w+\.)?(classifier|pooler)\."},
    ),
    Layout(
        "SwAV",
        (r"prototypes\.", r"conv1\."),
        {"network": r""},
        parts={"heads": r"(projection_head|prototypes)\."},
    ),
    Layout(
        "timm/torchvision",
        (r"",),
        {"network": r"", "average": r"(state_dict_ema|model_ema)\."},
        head=r"(fc|heads|classifier)\.|head\.(?!norm\.)",
    ),
)
"""In the order in which they are tried."""


def plain_name(name: str) -> str:
    """Take the containers of a checkpoint and the wrappers of parallel and compiled modules off a name."""
    return _WRAPPERS.sub("", name)


def recognise(names: Iterable[str]) -> Layout:
    """Find the layout all of whose marks some name bears."""
    listed = list(names)
    return next(
        layout
        for layout in LAYOUTS
        if all(any(re.match(mark, name) for name in listed) for mark in layout.marks)
    )


def split(names: Mapping[str, str], layout: Layout, twin: str) -> Split:
    """Sort names into those of the wanted twin, what is known to be left out, and the rest.

    Args:
        names: name in the file → plain name.
        layout: of the file.
        twin: one of the layout's.
    """
    found = Split({}, {}, [])
    prefixes = sorted(layout.twins.items(), key=lambda item: item[1] == "")  # the empty prefix fits all
    left_out = {**_TRAINING, **layout.parts}
    for original, name in names.items():
        word = next((word for word, pattern in left_out.items() if re.match(pattern, name)), None)
        if word is None:
            owner = next((one for one, prefix in prefixes if re.match(prefix, name)), None)
            if owner is None:
                found.unknown.append(original)
                continue
            rest = re.sub(rf"^(?:{layout.twins[owner]})", "", name, count=1)
            if re.match(layout.head, rest):
                word = "head"
            elif owner == twin:
                found.taken[original] = rest
                continue
            else:
                word = f"{owner} twin"
        found.dropped[word] = found.dropped.get(word, 0) + 1
    return found
