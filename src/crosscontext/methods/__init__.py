"""Methods: views → loss. A plain name, e.g. ``ressl``, stands for its default settings."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from crosscontext.methods.cgh import CGHSettings
from crosscontext.methods.contract import Method, Outcome, Views
from crosscontext.methods.moco import MoCoSettings
from crosscontext.methods.ressl import ReSSLSettings

__all__ = ["CGHSettings", "Method", "MethodSettings", "MoCoSettings", "Outcome", "ReSSLSettings", "Views"]


def _from_text(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


MethodSettings = Annotated[
    CGHSettings | MoCoSettings | ReSSLSettings, Field(discriminator="name"), BeforeValidator(_from_text)
]
