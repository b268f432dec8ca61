"""Backbones: images → stage maps. A name such as ``resnet18`` or ``convnext_tiny`` stands for settings."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

from crosscontext.backbones.contract import Backbone, Stage
from crosscontext.backbones.resnet import ResNetSettings
from crosscontext.backbones.timm_models import TimmSettings

__all__ = ["Backbone", "BackboneSettings", "ResNetSettings", "Stage", "TimmSettings", "described"]


def _from_text(value: object) -> object:
    if not isinstance(value, str):
        return value
    if resnet := re.fullmatch(r"resnet(10|18|34|50|101)?", value):
        return {"name": "resnet", "depth": int(resnet[1] or 18)}
    return {"name": "timm", "model": value}


BackboneSettings = Annotated[
    ResNetSettings | TimmSettings, Field(discriminator="name"), BeforeValidator(_from_text)
]


def described(backbone: ResNetSettings | TimmSettings) -> str:
    """Say in a few words what network it is, e.g. ``resnet18, width 0.25, small stem``."""
    if isinstance(backbone, TimmSettings):
        return backbone.model
    return f"resnet{backbone.depth}, width {backbone.width:g}, {backbone.stem} stem"
