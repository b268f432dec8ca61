import resource
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms import v2 as transforms

from crosscontext.backbones import BackboneSettings, ResNetSettings, TimmSettings
from crosscontext.encoders import (
    Encoder,
    EncoderCard,
    Preprocessing,
    encoder_of,
    load_encoder,
    save_encoder,
)
from crosscontext.errors import CheckpointError
from crosscontext.views import IMAGENET_MEAN, IMAGENET_STD

NARROW = ResNetSettings(depth=10, width=0.125, stem="small")
SIZE = 32


def encoder_with(backbone: BackboneSettings = NARROW, seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    encoder = encoder_of(backbone.build(), backbone, Preprocessing.for_size(SIZE), step=7)
    encoder(torch.randn(8, 3, SIZE, SIZE))  # running statistics of its own
    return encoder.eval()


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("run") / "encoder.safetensors"
    save_encoder(file, encoder_with())
    return file


@pytest.mark.parametrize(
    "backbone",
    [
        NARROW,
        TimmSettings(model="convnext_atto"),
        TimmSettings(model="vit_tiny_patch16_224", image_size=SIZE),
    ],
    ids=["resnet", "convnext", "vit"],
)
def test_an_encoder_survives_its_file_bitwise(tmp_path: Path, backbone: BackboneSettings) -> None:
    encoder = encoder_with(backbone)
    save_encoder(tmp_path / "encoder.safetensors", encoder)
    loaded = load_encoder(tmp_path / "encoder.safetensors")
    images = torch.randn(2, 3, SIZE, SIZE)
    assert torch.equal(loaded(images), encoder(images))
    assert loaded.digest == encoder.digest
    assert loaded.card == encoder.card
    assert loaded.card.step == 7
    assert not loaded.training


def test_an_encoder_is_found_in_its_run_folder(file: Path) -> None:
    assert load_encoder(file.parent).digest == load_encoder(str(file)).digest


def test_a_backbone_in_channels_last_is_written_like_any_other(tmp_path: Path, file: Path) -> None:
    encoder = encoder_with()
    encoder.backbone.to(memory_format=torch.channels_last)
    save_encoder(tmp_path / "encoder.safetensors", encoder)
    assert (tmp_path / "encoder.safetensors").read_bytes() == file.read_bytes()
    assert load_encoder(tmp_path / "encoder.safetensors").digest == encoder.digest


def test_starting_weights_are_not_needed_to_load_what_came_of_them(tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    save_file(NARROW.build().model.state_dict(), start)
    save_encoder(tmp_path / "e.safetensors", encoder_with(NARROW.model_copy(update={"weights": start})))
    start.unlink()
    assert load_encoder(tmp_path / "e.safetensors").width == 64


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvision_loads_the_file_strictly_and_computes_the_same_features(
    tmp_path: Path, depth: int
) -> None:
    encoder = encoder_with(ResNetSettings(depth=depth, stem="large"))
    save_encoder(tmp_path / "encoder.safetensors", encoder)
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=5).eval()
    classifier = {f"fc.{name}": value for name, value in theirs.fc.state_dict().items()}
    theirs.load_state_dict(load_file(tmp_path / "encoder.safetensors") | classifier, strict=True)
    theirs.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), theirs(images))


def test_features_are_the_mean_of_the_last_stage_map(file: Path) -> None:
    encoder, images = load_encoder(file), torch.randn(3, 3, SIZE, SIZE)
    features = encoder(images)
    assert features.shape == (3, encoder.width) == (3, 64)
    torch.testing.assert_close(features, encoder.backbone(images)[-1].flatten(2).mean(2))


def test_the_digest_changes_with_any_weight_and_only_then() -> None:
    encoder = encoder_with()
    digest = encoder.digest
    assert encoder_with().digest == digest
    assert len(digest) == 16
    state = encoder.backbone.model.state_dict()
    for value in state.values():
        value.view(-1)[-1:].add_(1)
        assert encoder.digest != digest
        digest = encoder.digest


def test_an_encoder_shares_the_weights_of_the_backbone_that_is_trained() -> None:
    backbone = NARROW.build()
    encoder = encoder_of(backbone, NARROW, Preprocessing.for_size(SIZE), step=0)
    digest = encoder.digest
    with torch.no_grad():
        next(backbone.parameters()).add_(1)
    assert encoder.digest != digest


@pytest.mark.parametrize("size", [(300, 280), (73, 400), (50, 40), (256, 256), (81, 64)], ids=str)
@pytest.mark.parametrize("image_size", [32, 64, 224])
def test_preprocessing_is_that_of_torchvision(size: tuple[int, int], image_size: int) -> None:
    short = image_size if image_size < 64 else round(image_size / 0.875)
    theirs = transforms.Compose(
        [
            transforms.Resize(short, antialias=True),
            transforms.CenterCrop(image_size),
            transforms.PILToTensor(),
            transforms.ToDtype(torch.float32, scale=True),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    ours = Preprocessing.for_size(image_size)
    torch.testing.assert_close(ours(picture(*size)), theirs(picture(*size)))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_pictures_of_any_mode_become_three_channels(mode: str) -> None:
    given = picture(40, 36, mode)
    preprocessing = Preprocessing.for_size(SIZE)
    pixels = preprocessing(given)
    assert pixels.shape == (3, SIZE, SIZE)
    assert torch.equal(pixels, preprocessing(given.convert("RGB")))
    assert given.mode == mode


def test_small_images_are_taken_whole_and_large_ones_cropped() -> None:
    assert Preprocessing.for_size(63).crop_fraction == 1
    assert Preprocessing.for_size(64).crop_fraction == 0.875


def test_an_encoder_preprocesses_with_what_its_file_says(tmp_path: Path) -> None:
    preprocessing = Preprocessing(image_size=24, crop_fraction=0.5, mean=(0.1, 0.2, 0.3), std=(1, 1, 1))
    save_encoder(tmp_path / "e.safetensors", encoder_of(NARROW.build(), NARROW, preprocessing, step=0))
    loaded = load_encoder(tmp_path / "e.safetensors")
    assert loaded.preprocessing == preprocessing
    black = loaded.preprocess(Image.new("RGB", (48, 60)))
    torch.testing.assert_close(black[:, 0, 0], torch.tensor([-0.1, -0.2, -0.3]))


def test_a_folder_or_path_without_an_encoder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.safetensors"):
        with pytest.raises(CheckpointError, match=r"no encoder .*safetensors\. Give a run folder"):
            load_encoder(path)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, file: Path, kept: int) -> None:
    (tmp_path / "encoder.safetensors").write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_encoder(tmp_path)


def test_weights_of_something_else_are_refused_with_the_way_to_start_from_them(tmp_path: Path) -> None:
    save_file(NARROW.build().model.state_dict(), tmp_path / "encoder.safetensors")
    with pytest.raises(CheckpointError, match=r"not the card of an encoder.*set backbone\.weights"):
        load_encoder(tmp_path)


def save_with_card(path: Path, card: str) -> None:
    save_file(NARROW.build().model.state_dict(), path, metadata={"crosscontext": card})


def test_a_card_that_does_not_fit_the_weights_is_refused_with_their_names(tmp_path: Path) -> None:
    card = encoder_with().card
    other = card.model_copy(update={"backbone": ResNetSettings(depth=18, width=0.125)})
    save_with_card(tmp_path / "encoder.safetensors", other.model_dump_json())
    with pytest.raises(CheckpointError, match=r"missing: layer1\.1\.bn1\.bias"):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    "asked",
    [
        ResNetSettings(depth=10, width=1e4, stem="small"),
        ResNetSettings(depth=10, width=1e300, stem="small"),
        TimmSettings(model="vit_tiny_patch16_224", image_size=160_000),
        TimmSettings(model="vit_7b_patch16_dinov3", image_size=224),
    ],
    ids=["wide", "beyond numbers", "large pictures", "large"],
)
def test_a_card_that_asks_for_a_huge_network_is_refused_before_it_is_built(
    tmp_path: Path, asked: BackboneSettings
) -> None:
    card = encoder_with().card.model_copy(update={"backbone": asked})
    save_with_card(tmp_path / "encoder.safetensors", card.model_dump_json())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"those of another architecture|there can be no such network"):
        load_encoder(tmp_path)
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    )  # kB; it would be 28 GB and more


def test_a_card_of_another_format_is_refused(tmp_path: Path) -> None:
    card = encoder_with().card
    assert isinstance(card, EncoderCard)
    text = card.model_dump_json().replace('"format_version":1', '"format_version":2')
    save_with_card(tmp_path / "encoder.safetensors", text)
    with pytest.raises(CheckpointError, match="not the card of an encoder of format 1"):
        load_encoder(tmp_path)
