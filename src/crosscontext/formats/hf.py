"""A folder as the Hugging Face Hub has models of timm: `timm.create_model("hf-hub:OWNER/NAME")`."""

import json
from pathlib import Path
from typing import Any, Literal, cast

from jaxtyping import Float
from torch import Tensor

from crosscontext.encoders import Encoder
from crosscontext.formats.contract import Format, Loaded, Manual, write_weights
from crosscontext.formats.timm_twins import crop_share, timm_manual, timm_twin


class HuggingFaceFormat(Format):
    """Hugging Face Hub, a folder to upload: `timm.create_model("hf-hub:OWNER/NAME", pretrained=True)`."""

    name: Literal["hf"] = "hf"
    """Hugging Face Hub, a folder to upload."""

    def check(self, encoder: Encoder) -> None:
        """Refuse networks that timm has no arguments for."""
        timm_twin(encoder)

    def write(self, encoder: Encoder, folder: Path) -> None:
        """Write weights, and a config.json from which timm and transformers build the network.

        transformers itself asks for ``num_classes=0``; among the arguments it would stand twice.
        """
        import timm

        twin, seen = timm_twin(encoder), encoder.preprocessing
        about = timm.get_pretrained_cfg(twin.name)
        config = {
            "architecture": twin.name,
            "num_classes": 0,
            "num_features": encoder.width,
            "model_args": twin.arguments,
            "pretrained_cfg": {
                "custom_load": False,
                "num_classes": 0,
                "input_size": [3, seen.image_size, seen.image_size],
                "fixed_input_size": "img_size" in twin.arguments,
                "interpolation": "bilinear",
                "crop_pct": crop_share(seen),
                "crop_mode": "center",
                "mean": seen.mean,
                "std": seen.std,
                "first_conv": None if about is None else about.first_conv,
                "classifier": None if about is None else about.classifier,
            },
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        write_weights(folder, encoder.backbone.model.state_dict())

    def read(self, encoder: Encoder, folder: Path) -> Loaded:
        """Load the folder as timm loads one from the hub."""
        import timm

        twin, data = timm_twin(encoder), cast(Any, timm.data)
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        transform = data.create_transform(**data.resolve_model_data_config(model))

        def network(images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
            return twin.features(model, images)

        return Loaded(network, lambda picture: network(transform(picture)[None]))

    def manual(self, encoder: Encoder) -> Manual:
        """Say how to load it, before and after it was uploaded."""
        create = 'timm.create_model("local-dir:.", pretrained=True)'
        transform = "timm.data.create_transform(**timm.data.resolve_model_data_config(model))"
        twin = timm_twin(encoder)
        manual = timm_manual(twin, encoder.width, create, transform)
        notes = ['Once the folder is uploaded, write `"hf-hub:OWNER/NAME"` for `"local-dir:."`.']
        if twin.indices is None:
            notes.append(
                'transformers loads it, too: `AutoImageProcessor.from_pretrained(".")` prepares pictures, '
                'and the `pooler_output` of `AutoModel.from_pretrained(".")` are the features; '
                '`AutoModelForImageClassification.from_pretrained(".", num_labels=10)` adds a classifier.'
            )
        return manual._replace(notes=(*notes, *manual.notes))
