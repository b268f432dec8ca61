"""A checkpoint of another library → an encoder of ours, or a refusal that names what does not fit.

weights → layouts → namings → architectures → **conversion** → encoders
"""

from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field
from torch import Tensor

from crosscontext.architectures import infer_backbone
from crosscontext.backbones import BackboneSettings, ResNetSettings, TimmSettings, described
from crosscontext.encoders import Encoder, Preprocessing, build_to_fit, encoder_of, save_encoder
from crosscontext.errors import CheckpointError, RunFolderError, SettingsError
from crosscontext.layouts import Layout, Split, plain_name, recognise, split
from crosscontext.namings import as_in_timm
from crosscontext.settings import AbsolutePath, Settings
from crosscontext.weights import load_exactly, read_every_tensor, shapes_of

_LARGE, _SMALL = 224, 32
_LISTED = 40
_WIDTH_OF_SMALL_TRANSFORMERS = 384
_HALF = (0.5, 0.5, 0.5)


class ConvertSettings(Settings):
    """What to read, and what the file does not say."""

    file: AbsolutePath
    """Checkpoint to read: .safetensors, or a PyTorch file, which is read without running any code."""

    out: Path | None = None
    """Encoder to write; by default in this folder, named after the file: NAME.encoder.safetensors."""

    overwrite: bool = False
    """Replace a file that is there already."""

    twin: str = "auto"
    """Which copy of the network to take where there are two, e.g. query or key (MoCo), teacher or student
    (DINO). auto: the one that its authors evaluate. The output line says which."""

    backbone: BackboneSettings | None = None
    """What the weights are of, e.g. resnet50 or vit_small_patch16_224. By default it is told from names and
    shapes. Loading proves it in both cases, apart from strides, padding and attention heads."""

    image_size: int | Literal["auto"] = "auto"
    """Side of the pictures in pixels. auto: 224, or 32 for a ResNet with a small stem; what a transformer's
    position embeddings are made for, unless they take other sizes too."""

    crop_fraction: float | None = Field(None, gt=0, le=1)
    """Side of the centre crop over the short side of the resized picture; by default 0.875,
    for small pictures 1."""

    mean: tuple[float, float, float] | None = None
    """Of the colours, in [0, 1]; by default ImageNet's; 0.5 for transformers of Hugging Face other
    than DINO."""

    std: tuple[float, float, float] | None = None
    """Of the colours, in [0, 1]; by default as for the mean."""


class Converted(Settings):
    """What was done."""

    encoder: Path
    """File that was written; `crosscontext.load` reads it."""

    layout: str
    """Library or method whose layout it was."""

    twin: str
    """Copy of the network that was taken."""

    dropped: dict[str, int]
    """What was left out → number of tensors."""

    backbone: BackboneSettings
    """What the weights are of."""

    preprocessing: Preprocessing
    """Of the pictures."""

    def __str__(self) -> str:
        """Say it in a few lines."""
        dropped = ", ".join(f"{word} ({number})" for word, number in self.dropped.items()) or "nothing"
        seen = self.preprocessing
        return (
            f"layout: {self.layout}, {self.twin}\n"
            f"backbone: {described(self.backbone)}\n"
            f"left out: {dropped}\n"
            f"pictures: {seen.image_size} px, crop {seen.crop_fraction:g}, mean {seen.mean}, std {seen.std}\n"
            f"encoder: {self.encoder}"
        )


class Conversion(NamedTuple):
    """An encoder, and where it came from."""

    encoder: Encoder
    record: Converted


def convert(settings: ConvertSettings) -> Conversion:
    """Read a checkpoint of a known layout and write its backbone as an encoder.

    Every tensor of the file must be the backbone's, or be known to be something else: a head, a queue, the
    other twin, the state of an optimiser.

    Raises:
        CheckpointError: the file is missing, damaged, needs code to be unpickled, or has tensors that nobody
            knows; the message lists them.
        SettingsError: the file has no such twin.
        RunFolderError: the output is there already, or cannot be written.
    """
    out = settings.out or Path(f"{settings.file.name.split('.')[0]}.encoder.safetensors")
    _check_output(out, overwrite=settings.overwrite)
    tensors = read_every_tensor(settings.file)
    names = {name: plain_name(name) for name in tensors}
    layout = recognise(names.values())
    twin = _twin(layout, settings.twin)
    found = split(names, layout, twin)
    weights = as_in_timm(_network(found, tensors, layout, twin, settings.file))
    backbone = settings.backbone or infer_backbone(weights)
    if settings.backbone is None:
        _check_unseen(backbone, layout, weights)
    size = _image_size(settings, backbone)
    backbone = backbone.resolve(size).model_copy(update={"weights": None})
    source = f"{settings.file} ({layout.name}, {twin})"
    built = build_to_fit(backbone, shapes_of(weights), source)
    load_exactly(built.model, weights, source)
    encoder = encoder_of(built, backbone, _preprocessing(settings, layout, backbone, size), step=0).eval()
    encoder.card = encoder.card.model_copy(
        update={"made_by": f"{encoder.card.made_by} from {settings.file.name} ({layout.name}, {twin})"}
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"{out.parent} cannot be made: {error.strerror}. Choose another --out."
        ) from error
    save_encoder(out, encoder)
    record = Converted(
        encoder=out,
        layout=layout.name,
        twin=twin,
        dropped=found.dropped,
        backbone=backbone,
        preprocessing=encoder.preprocessing,
    )
    return Conversion(encoder, record)


def _check_output(out: Path, *, overwrite: bool) -> None:
    if out.is_dir():
        raise RunFolderError(
            f"{out} is a folder. Name a file with --out, e.g. {out / 'encoder.safetensors'}."
        )
    if out.exists() and not overwrite:
        raise RunFolderError(f"{out} is there already. Replace it with --overwrite, or choose another --out.")


def _twin(layout: Layout, wanted: str) -> str:
    if wanted == "auto":
        return next(iter(layout.twins))
    if wanted not in layout.twins:
        raise SettingsError(
            f"A checkpoint of {layout.name} has no twin {wanted!r}; it has {', '.join(layout.twins)}."
        )
    return wanted


def _network(
    found: Split, tensors: dict[str, Tensor], layout: Layout, twin: str, file: Path
) -> dict[str, Tensor]:
    if found.unknown:
        more = len(found.unknown) - _LISTED
        raise CheckpointError(
            f"{file} looks like a checkpoint of {layout.name}, but nothing is known of "
            f"{', '.join(found.unknown[:_LISTED])}{f' and {more} more' if more > 0 else ''}. "
            "Save the state dict of the backbone alone, and convert that."
        )
    if not found.taken:
        others = ", ".join(f"{number} of {word}" for word, number in found.dropped.items())
        raise CheckpointError(
            f"{file} ({layout.name}) has no tensors of its {twin}, only {others}. "
            f"Choose another with --twin: {', '.join(layout.twins)}."
        )
    weights: dict[str, Tensor] = {}
    for original, name in found.taken.items():
        if name in weights:
            raise CheckpointError(f"{file} has two tensors for {name}. Give a file with one network.")
        weights[name] = tensors[original]
    return weights


def _check_unseen(backbone: BackboneSettings, layout: Layout, weights: dict[str, Tensor]) -> None:
    """Refuse what would load and yet compute something else."""
    remedy = f"If yours does not, say so with --backbone {_spelled(backbone)}."
    if isinstance(backbone, ResNetSettings):
        if "stem padding" in layout.unseen and backbone.stem == "small":
            raise CheckpointError(
                f"The 3×3 stem of {layout.name} pads pictures by 2 pixels and the small stem here by 1: "
                f"features would differ. {remedy}"
            )
    elif "attention heads" in layout.unseen and "patch_embed.proj.weight" in weights:
        width = weights["patch_embed.proj.weight"].shape[0]
        if width == _WIDTH_OF_SMALL_TRANSFORMERS:
            raise CheckpointError(
                f"A small transformer of {layout.name} may have 12 attention heads, as MoCo v3's, where "
                f"timm's has 6; shapes do not show it, and features would differ. {remedy}"
            )


def _spelled(backbone: BackboneSettings) -> str:
    if isinstance(backbone, TimmSettings):
        return backbone.model
    return f"resnet{backbone.depth} --backbone.stem {backbone.stem} --backbone.width {backbone.width:g}"


def _image_size(settings: ConvertSettings, backbone: BackboneSettings) -> int:
    if settings.image_size != "auto":
        return settings.image_size
    if isinstance(backbone, ResNetSettings):
        return _SMALL if backbone.stem in ("small", "medium") else _LARGE
    fixed = backbone.image_size
    return _LARGE if fixed == "auto" or "dinov2" in backbone.model else fixed


def _preprocessing(
    settings: ConvertSettings, layout: Layout, backbone: BackboneSettings, image_size: int
) -> Preprocessing:
    usual = Preprocessing.for_size(image_size)
    is_google = (
        layout.name == "Hugging Face" and isinstance(backbone, TimmSettings) and "_224" in backbone.model
    )
    return Preprocessing(
        image_size=image_size,
        crop_fraction=settings.crop_fraction or usual.crop_fraction,
        mean=settings.mean or (_HALF if is_google else usual.mean),
        std=settings.std or (_HALF if is_google else usual.std),
    )
