import logging

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from crosscontext.backbones import Backbone, BackboneSettings, ResNetSettings, Stage, TimmSettings
from crosscontext.encoders import Encoder, Preprocessing, encoder_of
from crosscontext.features import FeatureModel
from crosscontext.inference import InferenceEncoder, chunk_size, for_inference
from crosscontext.winograd import WinogradConv2d

SIZE = 32
NARROW = ResNetSettings(depth=10, width=0.125, stem="small")
CHANNELS = 6


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def encoder_with(backbone: Backbone, settings: BackboneSettings = NARROW, size: int = SIZE) -> Encoder:
    """Every BatchNorm scales, shifts, and has statistics of images: forgetting one of them shows."""
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.3)
    encoder = encoder_of(backbone, settings, Preprocessing.for_size(size), step=0).train()
    with torch.no_grad():
        encoder(images(size=size))
    for norm in norms:
        if norm.running_var is not None:  # channels that hardly vary would blow up all rounding
            norm.running_var.clamp_(min=norm.running_var.median().item())
    return encoder.eval()


def images(number: int = 16, size: int = SIZE) -> Tensor:
    """Noise on a colour of its own."""
    generator = torch.Generator().manual_seed(1)
    colours = torch.randn((number, 3, 1, 1), generator=generator)
    return colours + torch.randn((number, 3, size, size), generator=generator)


def assert_same_vectors(fast: InferenceEncoder, encoder: Encoder, batch: Tensor) -> None:
    with torch.no_grad():
        expected = encoder(batch)
    largest = expected.abs().max()
    assert expected.std(dim=0).max() > 0.01 * largest  # they tell the images apart
    assert (fast(batch) - expected).abs().max() <= 1e-4 * largest


def count(kind: type[nn.Module], model: nn.Module) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


@pytest.mark.parametrize(
    ("settings", "size", "norms_left", "products"),
    [
        (NARROW, 32, 0, 0),
        (ResNetSettings(depth=18, width=0.5, stem="small"), 32, 0, 6),
        (ResNetSettings(depth=50, width=0.5, stem="small"), 32, 0, 7),
        (TimmSettings(model="resnet18"), 64, 0, 9),
        (TimmSettings(model="convnext_atto"), 32, 0, 0),
        (TimmSettings(model="efficientnet_b0"), 64, 1, 0),  # the norm of the classifier, which is not used
        (TimmSettings(model="tf_efficientnet_b0"), 64, 1, 0),  # pads in a way of its own
        (TimmSettings(model="vit_tiny_patch16_224", image_size=32), 32, 0, 0),
    ],
    ids=lambda value: str(getattr(value, "model", getattr(value, "depth", value))),
)
def test_vectors_are_those_of_the_encoder(
    settings: BackboneSettings, size: int, norms_left: int, products: int
) -> None:
    encoder = encoder_with(settings.build(), settings, size)
    fast = for_inference(encoder)
    assert_same_vectors(fast, encoder, images(size=size))
    assert count(nn.BatchNorm2d, fast) == norms_left
    assert count(WinogradConv2d, fast) == products


class OneLayer(Backbone):
    """A convolution and a BatchNorm, for networks that do something special with them."""

    stages = (Stage("layer", CHANNELS, 1),)

    def __init__(self, norm: nn.BatchNorm2d | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.norm = norm or nn.BatchNorm2d(CHANNELS)
        self.model = nn.ModuleList([self.conv, self.norm])

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.norm(self.conv(images))]


class ShortcutAroundNorm(OneLayer):
    def forward(self, images: Tensor) -> list[Tensor]:
        before = self.conv(images)
        return [self.norm(before) + before]


class ConvolutionUsedTwice(OneLayer):
    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.norm(self.conv(images)) + self.conv(images.flip(3)).relu()]


class NormUsedTwice(OneLayer):
    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.norm(self.norm(self.conv(images)))]


class ScaledWeight(OneLayer):
    def forward(self, images: Tensor) -> list[Tensor]:
        weight = self.conv.weight * 3
        return [self.norm(nn.functional.conv2d(images, weight))]


class NormWithMore(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


def test_one_layer_is_folded() -> None:
    """Else the tests below would prove nothing."""
    encoder = encoder_with(OneLayer())
    fast = for_inference(encoder)
    assert_same_vectors(fast, encoder, images())
    assert count(nn.BatchNorm2d, fast) == 0


@pytest.mark.parametrize(
    "network",
    [
        ShortcutAroundNorm(),
        ConvolutionUsedTwice(),
        NormUsedTwice(),
        ScaledWeight(),
        OneLayer(NormWithMore(CHANNELS)),
        OneLayer(nn.BatchNorm2d(CHANNELS, affine=False, track_running_stats=False)),
    ],
    ids=lambda network: f"{type(network).__name__}({type(network.norm).__name__})",
)
def test_where_folding_would_change_the_vectors_the_norm_stays(
    network: OneLayer, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = encoder_with(network)
    with caplog.at_level(logging.DEBUG):
        fast = for_inference(encoder)
    assert_same_vectors(fast, encoder, images())
    assert count(nn.BatchNorm2d, fast) == 1
    assert not caplog.messages  # this was seen beforehand, not by its results


class AsksItsNorm(OneLayer):
    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.norm(self.conv(images)) * (1 + self.norm.eps)]


class AsksItsConvolution(OneLayer):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 3, bias=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.norm(self.conv(images)) * (1 if self.conv.bias is None else -1)]


@pytest.mark.parametrize(
    ("network", "cause"), [(AsksItsNorm, "it fails: AttributeError"), (AsksItsConvolution, "differ by")]
)
def test_a_network_that_cannot_be_simplified_is_used_as_it_is(
    network: type[OneLayer], cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = encoder_with(network())
    with caplog.at_level(logging.DEBUG):
        fast = for_inference(encoder)
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert cause in caplog.messages[0]
    with torch.no_grad():
        torch.testing.assert_close(fast(images()), encoder(images()))


def test_weights_that_are_no_numbers_stay_visible() -> None:
    encoder = encoder_with(OneLayer())
    nn.init.constant_(next(encoder.parameters()), float("nan"))
    assert for_inference(encoder)(images()).isnan().any()


def test_the_encoder_is_left_untouched() -> None:
    encoder = encoder_with(NARROW.build()).train()
    encoder.backbone.model.get_submodule("layer1").eval()
    encoder.backbone.model.get_submodule("layer2").requires_grad_(False)
    weights = {name: value.clone() for name, value in encoder.state_dict().items()}
    modes = [module.training for module in encoder.modules()]
    learns = [parameter.requires_grad for parameter in encoder.parameters()]
    for_inference(encoder)(images())
    assert encoder.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in encoder.state_dict().items())
    assert [module.training for module in encoder.modules()] == modes
    assert [parameter.requires_grad for parameter in encoder.parameters()] == learns


def test_what_the_encoder_learns_later_does_not_reach_the_copy() -> None:
    encoder = encoder_with(ResNetSettings(depth=10, width=0.25, stem="small").build())  # one product
    fast = for_inference(encoder)
    before, digest = fast(images()), encoder.digest
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1)
    assert torch.equal(fast(images()), before)
    assert fast.digest == digest != encoder.digest


def test_it_stands_for_the_encoder() -> None:
    encoder = encoder_with(NARROW.build())
    fast = for_inference(encoder)
    picture = Image.new("RGB", (50, 40), (200, 100, 0))
    assert isinstance(fast, FeatureModel)
    assert (fast.digest, fast.width, fast.training) == (encoder.digest, encoder.width, False)
    assert torch.equal(fast.preprocessing(picture), encoder.preprocess(picture))


def test_vectors_have_no_gradient_but_can_be_learned_from() -> None:
    vectors = for_inference(encoder_with(NARROW.build()))(images())
    assert not vectors.requires_grad
    assert torch.is_grad_enabled()
    probe = nn.Linear(vectors.shape[1], 2)
    probe(vectors).sum().backward()
    assert probe.weight.grad is not None


def test_the_global_generator_is_left_as_it_was() -> None:
    encoder = encoder_with(NARROW.build())
    state = torch.get_rng_state()
    for_inference(encoder)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_of_many_chunks_comes_back_in_order() -> None:
    many = images(2 * chunk_size(SIZE, torch.get_num_threads()) + 3)
    encoder = encoder_with(NARROW.build())
    assert_same_vectors(for_inference(encoder), encoder, many)


@pytest.mark.parametrize(
    ("image_size", "threads", "images"),
    [(32, 1, 128), (96, 2, 128), (224, 1, 32), (224, 2, 32), (224, 16, 64), (1024, 1, 4), (2048, 1, 4)],
)
def test_large_images_go_through_the_network_few_at_a_time(
    image_size: int, threads: int, images: int
) -> None:
    assert chunk_size(image_size, threads) == images
