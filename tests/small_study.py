"""A study that takes seconds, with whatever a test wants to be different."""

from pathlib import Path
from typing import Any

from crosscontext.layers import Layer, resolve
from crosscontext.study_plan import StudySettings

SMALL: dict[str, Any] = {
    "base": {
        "data": {"name": "shapes", "num_train": 96, "num_test": 48},
        "image_size": 16,
        "batch_size": 16,
        "backbone": {"name": "resnet", "depth": 10, "width": 0.125},
        "method": {"name": "cgh", "memory": {"slots": 32}},
        "workers": 1,
        "monitor": {"every": "50%", "images": 40},
        "log_every": "1 steps",
    },
    "cells": {"cgh": {}, "moco": {"method": {"name": "moco", "memory": {"slots": 32}}}},
    "seeds": [0],
    "budget": {"steps": 4},
    "evaluate": [{"tasks": [{"name": "knn", "k": [5]}], "references": ["random"]}],
    "jobs": 1,
}


def small_study(folder: Path, **changes: Any) -> StudySettings:
    """Two methods, four steps each; results and runs lie in the folder."""
    places = {"out": folder / "results", "runs": folder / "runs"}
    return resolve(StudySettings, [Layer("this test", {**SMALL, **places, **changes})])


def base(**changes: Any) -> dict[str, Any]:
    """The base of the small study, with changes."""
    return {**SMALL["base"], **changes}
