from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save_file
from torch import nn

from crosscontext.backbones import ResNetSettings
from crosscontext.datasets import FolderSettings, ShapesSettings
from crosscontext.encoders import Encoder, Preprocessing, encoder_of, save_encoder
from crosscontext.errors import CheckpointError, SettingsError
from crosscontext.features import extract
from crosscontext.references import Pixels, Reference, build_reference, name_of, random_twin

NARROW = ResNetSettings(depth=10, width=0.125, stem="small")


def encoder() -> Encoder:
    torch.manual_seed(7)
    return encoder_of(NARROW.build(), NARROW, Preprocessing.for_size(32), step=9).eval()


def test_pixels_are_the_colours_of_the_picture() -> None:
    pixels = Pixels(Preprocessing(image_size=8, crop_fraction=1, mean=(0, 0, 0), std=(1, 1, 1)))
    picture = Image.new("RGB", (8, 8), (255, 0, 51))
    (row,) = pixels(pixels.preprocessing(picture)[None])
    assert row.shape == (pixels.width,) == (192,)
    torch.testing.assert_close(row, torch.tensor([1.0] * 64 + [0.0] * 64 + [0.2] * 64))


def test_large_pictures_become_32_pixels_wide() -> None:
    pixels = Pixels(Preprocessing.for_size(224))
    assert pixels.preprocessing(Image.new("RGB", (300, 200))).shape == (3, 32, 32)
    assert pixels.width == 3 * 32 * 32
    assert pixels.preprocessing.crop_fraction == 0.875  # the same piece of the picture as the encoder sees


def test_pixels_are_extracted_as_an_encoder_is(image_folder: Path) -> None:
    features = extract(
        Pixels(Preprocessing.for_size(16)), FolderSettings(path=image_folder).open().train, 16, 2
    )
    assert features.values.shape == (40, 768)


def test_the_twin_has_the_architecture_of_the_encoder_and_other_weights() -> None:
    dataset = ShapesSettings(num_train=40, num_test=0).open().train
    trained = encoder()
    before = trained.digest
    twin = random_twin(trained, dataset, seed=0, workers=1)
    shapes = {name: value.shape for name, value in trained.state_dict().items()}
    assert {name: value.shape for name, value in twin.state_dict().items()} == shapes
    assert twin.digest != before
    assert trained.digest == before
    assert twin.preprocessing == trained.preprocessing


def test_the_twin_is_a_function_of_the_seed_alone() -> None:
    dataset = ShapesSettings(num_train=40, num_test=0).open().train
    first, model = random_twin(encoder(), dataset, seed=0, workers=1), encoder()
    torch.manual_seed(1234)
    state = torch.get_rng_state()
    second = random_twin(model, dataset, seed=0, workers=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert second.digest == first.digest
    assert random_twin(encoder(), dataset, seed=1, workers=1).digest != first.digest


def test_the_batch_statistics_of_the_twin_are_those_of_the_images() -> None:
    dataset = ShapesSettings(num_train=96, num_test=0).open().train
    twin = random_twin(encoder(), dataset, seed=0, workers=1)
    assert not twin.training
    seen: list[torch.Tensor] = []
    norm = next(module for module in twin.modules() if isinstance(module, nn.BatchNorm2d))
    norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
    with torch.no_grad():
        twin(torch.stack([twin.preprocess(dataset.image(i)) for i in range(96)]))
    torch.testing.assert_close(seen[0].mean(dim=(0, 2, 3)), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[0].std(dim=(0, 2, 3)), torch.ones(8), atol=1e-2, rtol=0)
    assert {module.momentum for module in twin.modules() if isinstance(module, nn.BatchNorm2d)} == {0.1}


def test_the_twin_of_pretrained_weights_does_not_start_from_them(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    torch.save(NARROW.build().model.state_dict(), weights)
    settings = NARROW.model_copy(update={"weights": weights})
    pretrained = encoder_of(settings.build(), settings, Preprocessing.for_size(32), step=0)
    dataset = ShapesSettings(num_train=20, num_test=0).open().train
    twin = random_twin(pretrained, dataset, seed=0, workers=1)
    convolution = "backbone.model.conv1.weight"
    assert not torch.equal(twin.state_dict()[convolution], pretrained.state_dict()[convolution])


def build(reference: str, started_from: Path | None = None) -> Encoder:
    dataset = ShapesSettings(num_train=20, num_test=0).open().train
    checked = TypeAdapter(Reference).validate_python(reference)
    built = build_reference(checked, encoder(), dataset, started_from, seed=0, workers=1)
    assert isinstance(built, Encoder)
    assert not built.training
    return built


def test_the_start_has_the_weights_that_the_run_started_from(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = NARROW.build().model
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    start = build("start", tmp_path / "weights.pt")
    assert torch.equal(start.state_dict()["backbone.model.conv1.weight"], model.state_dict()["conv1.weight"])
    assert start.preprocessing == encoder().preprocessing


def test_a_random_start_is_no_reference() -> None:
    with pytest.raises(SettingsError, match=r"backbone\.weights: it started from random ones.*Take random"):
        build("start")


def test_another_encoder_sees_pictures_of_the_same_size_in_colours_of_its_own(tmp_path: Path) -> None:
    colours = Preprocessing(image_size=64, crop_fraction=0.875, mean=(0.1, 0.2, 0.3), std=(1, 1, 1))
    saved = encoder_of(NARROW.build(), NARROW, colours, step=9)
    save_encoder(tmp_path / "encoder.safetensors", saved)
    for path in (tmp_path, tmp_path / "encoder.safetensors"):
        other = build(str(path))
        assert other.digest == saved.digest
        assert other.preprocessing == colours.model_copy(update={"image_size": 32, "crop_fraction": 1.0})


def test_a_model_of_timm_brings_its_weights_and_its_colours(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=7)  # a classifier is left out
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    other = build(f"timm:test_resnet:{tmp_path / 'weights.safetensors'}")
    assert torch.equal(other.backbone.model.state_dict()["bn1.weight"], model.state_dict()["bn1.weight"])
    assert (other.preprocessing.mean, other.preprocessing.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert other.preprocessing.image_size == 32
    assert other(torch.zeros(2, 3, 32, 32)).shape == (2, other.width)


def test_missing_files_are_named(tmp_path: Path) -> None:
    for reference in (str(tmp_path / "absent"), f"timm:test_resnet:{tmp_path / 'absent'}"):
        with pytest.raises(CheckpointError, match=r"There is no .*absent"):
            build(reference)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("pixel", r"'pixel' is no reference; .*did you mean 'pixels'\?"),
        ("", "'' is no reference; there are pixels, random, start"),
        ("timm:resnet18", "write timm:MODEL:FILE"),
        ("timm::weights.pt", "write timm:MODEL:FILE"),
    ],
)
def test_texts_that_mean_nothing_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        TypeAdapter(Reference).validate_python(text)


def test_paths_become_absolute_and_are_left_out_of_the_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {}
    for text in (
        "runs/moco-0.5",
        "a/b/encoder.safetensors",
        "a/b.safetensors",
        "timm:vit_tiny:w/x.pt",
        "start",
    ):
        reference = TypeAdapter(Reference).validate_python(text)
        names[reference] = name_of(reference)
    assert names == {
        f"{tmp_path}/runs/moco-0.5": "moco-0.5",
        f"{tmp_path}/a/b/encoder.safetensors": "b",
        f"{tmp_path}/a/b.safetensors": "b",
        f"timm:vit_tiny:{tmp_path}/w/x.pt": "timm:vit_tiny:x.pt",
        "start": "start",
    }
