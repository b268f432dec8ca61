"""Any timm model: pyramids (ConvNeXt, EfficientNet, …) and plain transformers (ViT)."""

from typing import Any, Literal, cast

from jaxtyping import Float
from torch import Tensor

from crosscontext.backbones.contract import Backbone, Stage
from crosscontext.errors import SettingsError
from crosscontext.settings import AbsolutePath, Settings
from crosscontext.weights import load_exactly, read_weights

_NUM_STAGES = 4
_NEAREST = 3


class TimmSettings(Settings):
    """A model of timm, by its name there."""

    name: Literal["timm"] = "timm"
    model: str
    """Name in timm, e.g. convnext_tiny, efficientnet_b0, vit_small_patch16_224."""

    image_size: int | Literal["auto"] = "auto"
    """Side of the images in pixels, for models whose weights depend on it (ViT); auto: that of the run."""

    weights: AbsolutePath | None = None
    """Start from this file (.safetensors, or a PyTorch state dict) instead of random weights."""

    def resolve(self, image_size: int) -> "TimmSettings":
        """Settle the image size that position embeddings are made for."""
        return self.model_copy(update={"image_size": image_size}) if self.image_size == "auto" else self

    def build(self) -> "TimmBackbone":
        """Build the network, on the CPU, with random or given weights."""
        return TimmBackbone(self)


class TimmBackbone(Backbone):
    """Images → four stage maps; of a transformer, the maps after each quarter of its blocks.

    Attributes:
        indices: of the maps among all that timm offers.
    """

    def __init__(self, settings: TimmSettings):
        import timm

        super().__init__()
        if not timm.is_model(settings.model):
            import difflib

            near = difflib.get_close_matches(settings.model, timm.list_models(), _NEAREST)
            raise SettingsError(
                f"backbone: timm has no model {settings.model!r}. "
                + (f"Did you mean {', '.join(near)}?" if near else "timm.list_models() lists the names.")
            )
        options = size_options(settings)
        model: Any = timm.create_model(settings.model, num_classes=0, global_pool="", **options)
        if not hasattr(model, "forward_intermediates"):
            raise SettingsError(
                f"backbone: {settings.model} does not offer its intermediate maps (forward_intermediates), "
                "which hypercolumns are made of. Choose a ResNet, ConvNeXt, EfficientNet or ViT."
            )
        levels = list(model.feature_info)
        self.model = model
        self.indices = _evenly_spread(levels)
        self.stages = tuple(
            Stage(levels[i]["module"], levels[i]["num_chs"], levels[i]["reduction"]) for i in self.indices
        )
        if settings.weights is not None:
            known = self.model.state_dict().keys()
            classifier = tuple(f"{name}." for name in ("fc", "head", "classifier", "head.fc"))
            weights = {
                key: value
                for key, value in read_weights(settings.weights).items()
                if key in known or not key.startswith(classifier)
            }
            load_exactly(self.model, weights, str(settings.weights))

    def forward(self, images: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """Compute four stage maps; the last one has passed the model's final normalisation, if it has one."""
        maps: list[Tensor] = cast(Any, self.model).forward_intermediates(
            images, indices=self.indices, norm=True, intermediates_only=True
        )
        return maps


def size_options(settings: TimmSettings) -> dict[str, Any]:
    """Find what timm's `create_model` must be told of the image size; nothing where weights fit any size."""
    import timm

    about = timm.get_pretrained_cfg(settings.model)
    if settings.image_size == "auto" or about is None or not about.fixed_input_size:
        return {}
    takes_others_too = settings.model.startswith(_TAKE_OTHER_SIZES_TOO)  # for local views
    return {"img_size": settings.image_size} | ({"dynamic_img_size": True} if takes_others_too else {})


def fixed_size(settings: TimmSettings) -> int | None:
    """Tell the side of pictures, in pixels, beside which a model may take no other; None where it does."""
    options = size_options(settings)
    size: int | None = None if "dynamic_img_size" in options else options.get("img_size")
    return size


_TAKE_OTHER_SIZES_TOO = ("vit_", "deit", "eva")


def _evenly_spread(levels: list[dict[str, object]]) -> list[int]:
    """Indices of the last four levels of a pyramid, or of every fourth part of equal levels."""
    if len({level["reduction"] for level in levels}) > 1:
        return list(range(len(levels)))[-_NUM_STAGES:]
    return [len(levels) * (part + 1) // _NUM_STAGES - 1 for part in range(_NUM_STAGES)]
