"""Methods: views → loss. A plain name, e.g. ``ressl``, stands for its default settings."""

from typing import Annotated

from pydantic import Field

from crosscontext.methods.barlow_twins import BarlowTwinsSettings
from crosscontext.methods.byol import BYOLSettings
from crosscontext.methods.cgh import CGHSettings
from crosscontext.methods.co2 import CO2Settings
from crosscontext.methods.contract import Method, Outcome, Views
from crosscontext.methods.dino import DINOSettings
from crosscontext.methods.distill import DistillSettings
from crosscontext.methods.moco import MoCoSettings
from crosscontext.methods.ressl import ReSSLSettings
from crosscontext.methods.sce import SCESettings
from crosscontext.methods.simcgh import SimCGHSettings
from crosscontext.methods.simclr import SimCLRSettings
from crosscontext.methods.simsiam import SimSiamSettings
from crosscontext.methods.supervised import SupervisedSettings
from crosscontext.methods.vicreg import VICRegSettings
from crosscontext.settings import BY_NAME

__all__ = [
    "BYOLSettings",
    "BarlowTwinsSettings",
    "CGHSettings",
    "CO2Settings",
    "DINOSettings",
    "DistillSettings",
    "Method",
    "MethodSettings",
    "MoCoSettings",
    "Outcome",
    "ReSSLSettings",
    "SCESettings",
    "SimCGHSettings",
    "SimCLRSettings",
    "SimSiamSettings",
    "SupervisedSettings",
    "VICRegSettings",
    "Views",
]


MethodSettings = Annotated[
    CGHSettings
    | SimCGHSettings
    | MoCoSettings
    | ReSSLSettings
    | SCESettings
    | CO2Settings
    | DistillSettings
    | SimCLRSettings
    | BYOLSettings
    | SimSiamSettings
    | DINOSettings
    | BarlowTwinsSettings
    | VICRegSettings
    | SupervisedSettings,
    Field(discriminator="name"),
    BY_NAME,
]
