import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import crosscontext
from crosscontext.cli import main
from crosscontext.datasets import ShapesSettings
from crosscontext.encoders import Encoder
from crosscontext.errors import CheckpointError, DataError, ParityError, RunFolderError, SettingsError
from crosscontext.exporting import ExportSettings, export
from crosscontext.fields import group
from crosscontext.formats import FormatSettings, SafetensorsFormat
from crosscontext.layers import Layer, resolve
from handed_over import NARROW, PLAIN, encoder, exported, saved
from shown_run import trained

FORMATS = ("timm", "torchvision", "hf", "onnx", "detectron2", "safetensors")


def test_every_format_is_tested() -> None:
    choices = group(FormatSettings)
    assert choices is not None
    assert tuple(choices.members) == FORMATS


@pytest.mark.parametrize(
    "form", [pytest.param("onnx", marks=pytest.mark.slow), *(f for f in FORMATS if f != "onnx")]
)
def test_every_format_leaves_weights_card_proof_and_preprocessing(form: str, tmp_path: Path) -> None:
    done = exported(tmp_path, encoder(PLAIN, 32), form)
    assert {"README.md", "parity.json", "preprocessing.json"} < set(done.files)
    assert sorted(entry.name for entry in done.out.iterdir()) == list(done.files)
    assert set(done.parity.files) == set(done.files) - {"README.md", "parity.json"}
    assert json.loads((done.out / "parity.json").read_text()) == done.parity.model_dump(mode="json")
    assert max(done.parity.network.relative, done.parity.pictures.relative) <= 1e-5
    assert done.parity.encoder_digest == encoder(PLAIN, 32).digest
    assert done.parity.source == "procedural images"


def test_a_run_is_proven_on_its_own_images_or_on_those_given(
    tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(image_folder, tmp_path / "run")
    arguments = ["export", str(run.path), "--format", "safetensors", "--images", "5", "--threads", "1"]
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    printed = capsys.readouterr()
    assert f"parity: 5 images (training images, folder {image_folder.name}); largest" in printed.out
    assert f"export: {tmp_path / 'one'}" in printed.out
    assert printed.err == "comparing features of 5 images\n"
    others = ["--data", "shapes", "--data.num-train", "9", "--out", str(tmp_path / "two"), "--json"]
    assert main([*arguments, *others]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["parity"]["source"], found["parity"]["images"]) == ("shapes", 5)
    assert found["files"] == ["README.md", "model.safetensors", "parity.json", "preprocessing.json"]


def test_it_is_a_function_too(tmp_path: Path) -> None:
    run = saved(tmp_path, encoder(NARROW, 16))
    done = crosscontext.export(
        crosscontext.ExportSettings(run=run, format=SafetensorsFormat(), out=tmp_path / "out", images=2)
    )
    assert crosscontext.load(done.out / "model.safetensors").card.step == 7


class Tampered(SafetensorsFormat):
    """Something has touched the file between writing and reading."""

    def write(self, encoder: Encoder, folder: Path) -> None:
        super().write(encoder, folder)
        weights = load_file(folder / "model.safetensors")
        weights["layer4.0.bn2.bias"] += 0.1
        save_file(weights, folder / "model.safetensors")


def test_tampered_weights_leave_no_export(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="do not compute what the encoder computes"):
        exported(tmp_path, encoder(NARROW, 16), Tampered())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["mine.encoder.safetensors"]


def test_an_earlier_export_is_replaced_only_if_asked_and_nothing_else_ever(tmp_path: Path) -> None:
    which = encoder(NARROW, 16)
    done = exported(tmp_path, which, "safetensors")
    with pytest.raises(RunFolderError, match=r"is not empty: it holds README\.md"):
        exported(tmp_path, which, "safetensors")
    again = exported(tmp_path, which, "safetensors", overwrite=True, licence="mit")
    assert again.files == done.files
    assert "license: mit" in (done.out / "README.md").read_text()
    (done.out / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"holds notes\.txt, which was not written by such a command"):
        exported(tmp_path, which, "safetensors", overwrite=True)
    (done.out / "parity.json").unlink()
    with pytest.raises(RunFolderError, match=r"holds README\.md, model"):
        exported(tmp_path, which, "safetensors", overwrite=True)


def test_bad_requests_are_told_before_anything_is_written(tmp_path: Path) -> None:
    run = saved(tmp_path, encoder(NARROW, 16))
    out = tmp_path / "out"
    values = {"run": run, "out": out, "format": "tflite"}
    with pytest.raises(
        SettingsError, match=r"Unknown format 'tflite'.*there are timm, torchvision, hf, onnx"
    ):
        resolve(ExportSettings, [Layer("here", values)])
    with pytest.raises(CheckpointError, match="There is no encoder"):
        export(ExportSettings(run=tmp_path / "nothing", out=out, format=SafetensorsFormat()))
    with pytest.raises(DataError, match="does not exist"):
        exported(tmp_path, encoder(NARROW, 16), "safetensors", data=str(tmp_path / "no images"))
    with pytest.raises(RunFolderError, match=r"is a file\. Name a folder with --out"):
        exported(tmp_path, encoder(NARROW, 16), "safetensors", out=run / "below")
    assert not out.exists()


def test_procedural_images_are_announced(tmp_path: Path) -> None:
    said: list[str] = []
    settings = ExportSettings(
        run=saved(tmp_path, encoder(NARROW, 16)), out=tmp_path / "out", format=SafetensorsFormat(), images=2
    )
    assert export(settings, said.append).parity.images == 2
    assert said[0] == "the proof takes procedural images; --data DIR takes yours"


def test_the_data_of_the_proof_may_be_any_set(tmp_path: Path) -> None:
    done = exported(tmp_path, encoder(NARROW, 16), "safetensors", data=ShapesSettings(num_train=2))
    assert done.parity.images == 2
