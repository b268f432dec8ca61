"""A whole recipe, from nothing to scores. The lines of the README and of the pages: `test_docs.py`."""

from pathlib import Path

import pytest

from crosscontext.evaluation import EvaluateSettings, evaluate
from crosscontext.layers import Layer, resolve
from crosscontext.pretraining import PretrainSettings, pretrain
from crosscontext.recipes import find_recipe
from crosscontext.settings import load_yaml


@pytest.mark.slow
def test_cgh_beats_raw_pixels_and_random_features_on_shapes(tmp_path: Path) -> None:
    recipe = find_recipe("pretrain", "demo")
    shorter = {"out": str(tmp_path / "run"), "steps": 300, "threads": 1, "report": False}
    settings = resolve(PretrainSettings, [Layer(str(recipe), load_yaml(recipe)), Layer("this test", shorter)])
    pretrain(settings)
    chosen = {"run": tmp_path / "run", "tasks": ["linear"], "threads": 1}
    scores = {
        score.model: score for score in evaluate(EvaluateSettings.model_validate(chosen), lambda _: None)
    }
    assert scores["encoder"].low > scores["random"].high + 0.02
    assert scores["encoder"].low > scores["pixels"].high + 0.1
