import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from crosscontext.backbones import ResNetSettings, TimmSettings
from crosscontext.contexts import hypercolumn
from crosscontext.encoders import Preprocessing
from crosscontext.errors import SettingsError
from crosscontext.exporting import Exported
from crosscontext.formats.onnx import preparation
from handed_over import NARROW, assert_close, encoder, expected, exported, photo, run_card


def session(out: Path) -> Any:
    return onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """An export that takes prepared images, and gives both outputs."""
    form = {"name": "onnx", "outputs": ["features", "hypercolumn"], "hyper_stages": [-3, -1]}
    return exported(tmp_path_factory.mktemp("onnx"), encoder(NARROW, 32), form)


def test_onnxruntime_computes_features_and_hypercolumns_of_any_number_and_size(plain: Exported) -> None:
    which = encoder(NARROW, 32)
    runs = session(plain.out)
    for shape in ((1, 3, 32, 32), (5, 3, 40, 72)):
        images = torch.randn(shape)
        with torch.no_grad():
            maps = which.backbone(images)
        features, column = runs.run(None, {"images": images.numpy()})
        assert_close(features, maps[-1].mean((2, 3)), 1e-4)
        assert_close(column, hypercolumn([maps[-3], maps[-1]]), 1e-4)


def test_the_card_runs(plain: Exported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes((plain.out / "model.onnx").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert_close(run_card(plain.out)["features"], expected(encoder(NARROW, 32)), 1e-4)
    assert 0 < plain.parity.network.relative <= 1e-4


def test_the_graph_passes_the_checker_and_says_its_opset_and_shapes(plain: Exported) -> None:
    graph = onnx.load_model(plain.out / "model.onnx")
    onnx.checker.check_model(graph, full_check=True)
    assert graph.opset_import[0].version == 18
    sides = [side.dim_param or side.dim_value for side in graph.graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["batch", 3, "height", "width"]
    assert {entry.key for entry in graph.metadata_props} >= {"crosscontext"}
    assert "Opset 18; inputs have any number of images" in (plain.out / "README.md").read_text()


@pytest.fixture(scope="module")
def with_preprocessing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export that takes pictures."""
    folder = tmp_path_factory.mktemp("onnx")
    form = {"name": "onnx", "preprocessing": True}
    return exported(folder, encoder(NARROW.model_copy(update={"stem": "large"})), form).out


@pytest.mark.parametrize("image_size", [32, 64])  # whole pictures, and the centres of pictures
@pytest.mark.parametrize(
    ("width", "height"), [(91, 75), (400, 311), (73, 73), (40, 31), (500, 74), (76, 74), (33, 32)]
)
def test_pictures_are_prepared_within_one_grey_level(width: int, height: int, image_size: int) -> None:
    seen = Preprocessing.for_size(image_size)
    graph = preparation(seen, ir_version=10)
    onnx.checker.check_model(graph, full_check=True)
    picture = photo(width, height)
    runs = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    found = runs.run(None, {"pictures": pil_to_tensor(picture)[None].numpy()})[0][0]
    levels = (torch.from_numpy(found) - seen(picture)).abs() * 255 * torch.tensor(seen.std)[:, None, None]
    assert levels.max() < 1.01
    assert (levels > 0.01).float().mean() < 0.05


def test_the_card_runs_with_the_preprocessing_in_the_graph(
    with_preprocessing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx").write_bytes((with_preprocessing / "model.onnx").read_bytes())
    monkeypatch.chdir(tmp_path)
    found = run_card(with_preprocessing)
    assert_close(found["features"], expected(encoder(NARROW.model_copy(update={"stem": "large"}))), 5e-3)
    assert "The graph resizes as Pillow does" in (with_preprocessing / "README.md").read_text()


def test_pictures_of_one_size_go_through_together(with_preprocessing: Path) -> None:
    which = encoder(NARROW.model_copy(update={"stem": "large"}))
    pictures = [photo(), photo().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    given = np.stack([pil_to_tensor(picture).numpy() for picture in pictures])
    features = session(with_preprocessing).run(["features"], {"pictures": given})[0]
    with torch.no_grad():
        assert_close(features, which(torch.stack([which.preprocess(p) for p in pictures])), 5e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "takes"),
    [
        (ResNetSettings(depth=50, stem="large"), "any height and width"),
        (TimmSettings(model="convnext_atto"), "any height and width"),
        (TimmSettings(model="vit_tiny_patch16_224"), "one size alone"),
    ],
    ids=["resnet50", "convnext", "vit"],
)
def test_other_backbones_go_to_onnx_too(
    backbone: ResNetSettings | TimmSettings, takes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = encoder(backbone)
    out = exported(tmp_path, which, "onnx").out
    monkeypatch.chdir(out)
    assert_close(run_card(out)["features"], expected(which), 1e-4)
    assert f"the network takes {takes}" in (out / "README.md").read_text()


def test_wrong_options_and_a_missing_package_are_told_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = encoder(NARROW, 16)
    for outputs in (["hypercolumn"], ["features", "features"]):
        with pytest.raises(SettingsError, match=r"outputs is \[.*\]; expected each output once, features"):
            exported(tmp_path, which, {"name": "onnx", "outputs": outputs})
    with pytest.raises(SettingsError, match=r"format\.hyper_stages is \(-9,\)"):
        exported(tmp_path, which, {"name": "onnx", "hyper_stages": [-9]})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SettingsError, match=r'onnxruntime, .* pip install "crosscontext\[onnx\]"'):
        exported(tmp_path, which, "onnx")
    assert not (tmp_path / "out").exists()
