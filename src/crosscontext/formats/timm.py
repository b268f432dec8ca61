"""Weights for `timm.create_model(NAME, checkpoint_path=FILE)`."""

from pathlib import Path
from typing import Any, Literal, cast

from jaxtyping import Float
from torch import Tensor

from crosscontext.encoders import Encoder
from crosscontext.formats.contract import WEIGHTS, Format, Loaded, Manual, read_preprocessing, write_weights
from crosscontext.formats.timm_twins import crop_share, timm_manual, timm_twin


class TimmFormat(Format):
    """timm, from a file of weights: `timm.create_model(NAME, checkpoint_path=FILE)`."""

    name: Literal["timm"] = "timm"
    """timm, from a file of weights."""

    def check(self, encoder: Encoder) -> None:
        """Refuse networks that timm has no arguments for."""
        timm_twin(encoder)

    def write(self, encoder: Encoder, folder: Path) -> None:
        """Write the weights alone: names are timm's already."""
        write_weights(folder, encoder.backbone.model.state_dict())

    def read(self, encoder: Encoder, folder: Path) -> Loaded:
        """Load them by timm's own way."""
        import timm

        twin, data = timm_twin(encoder), cast(Any, timm.data)
        model = timm.create_model(
            twin.name, num_classes=0, checkpoint_path=str(folder / WEIGHTS), **twin.arguments
        ).eval()
        seen = read_preprocessing(folder)
        transform = data.create_transform(
            input_size=(3, seen.image_size, seen.image_size),
            interpolation="bilinear",
            crop_pct=crop_share(seen),
            mean=seen.mean,
            std=seen.std,
        )

        def network(images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
            return twin.features(model, images)

        return Loaded(network, lambda picture: network(transform(picture)[None]))

    def manual(self, encoder: Encoder) -> Manual:
        """Say how to load them."""
        twin, seen = timm_twin(encoder), encoder.preprocessing
        arguments = "".join(f"{key}={value!r}, " for key, value in twin.arguments.items())
        create = (
            f'timm.create_model(\n    "{twin.name}", num_classes=0, {arguments}checkpoint_path="{WEIGHTS}"\n)'
        )
        transform = (
            f"timm.data.create_transform(\n    input_size=(3, {seen.image_size}, {seen.image_size}),\n"
            f'    interpolation="bilinear",\n    crop_pct={crop_share(seen)!r},\n'
            f"    mean={seen.mean},\n    std={seen.std},\n)"
        )
        return timm_manual(twin, encoder.width, create, transform)
