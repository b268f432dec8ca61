"""The lines that the README promises, as a user types them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import paint
from crosscontext.evaluation import EvaluateSettings, evaluate
from crosscontext.layers import Layer, resolve
from crosscontext.pretraining import PretrainSettings, pretrain
from crosscontext.recipes import find_recipe
from crosscontext.settings import load_yaml


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 pictures of two classes in a working directory of its own."""
    place = tmp_path_factory.mktemp("work")
    for number in range(160):
        name, hue = (("red", 0), ("blue", 2))[number % 2]
        paint(place / "pictures" / name / f"{number:03}.jpg", number, hue)
    return place


def run(command: str, place: Path) -> str:
    program = [sys.executable, "-m", *command.split()]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        program, cwd=place, capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_lines_of_the_readme_work_one_after_the_other(folder: Path) -> None:
    assert "A training can begin:" in run("crosscontext doctor --data pictures --no-trial", folder)
    options = "--epochs 2 --batch-size 64 --image-size 32 --seed 0"
    run(f"crosscontext pretrain --data pictures --out run {options}", folder)
    assert (folder / "run" / "encoder.safetensors").is_file()
    run("crosscontext pretrain demo --data pictures --out from-recipe --steps 2", folder)
    run("crosscontext pretrain --out run --resume", folder)  # is finished, and says so by ending well
    assert (folder / "run" / "report.html").is_file()
    printed = run("crosscontext evaluate run --data pictures --tasks knn linear --json", folder)
    scores = json.loads(printed)
    assert {score["task"] for score in scores} == {"knn", "linear"}
    assert {score["model"] for score in scores} == {"encoder", "pixels", "random"}
    code = (
        "import crosscontext; from PIL import Image; pil_image = Image.open('pictures/red/000.jpg'); "
        "m = crosscontext.load('run'); f = m(m.preprocess(pil_image)[None]); print(tuple(f.shape))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "(1, 512)\n"


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
