from typing import Any

import pytest
import torch
from torch import nn

from crosscontext.backbones import ResNetSettings, TimmSettings
from crosscontext.detectors import Detector, DetectorSettings, build_detector
from crosscontext.encoders import Encoder, Preprocessing, encoder_of
from crosscontext.errors import SettingsError

LARGE = ResNetSettings(depth=10, width=0.125, stem="large")
SMALL = ResNetSettings(depth=10, width=0.125, stem="small")


def encoder(settings: ResNetSettings | TimmSettings = LARGE) -> Encoder:
    torch.manual_seed(0)
    return encoder_of(settings.build(), settings, Preprocessing.for_size(64), step=1).eval()


def build(backbone: ResNetSettings | TimmSettings = LARGE, **settings: object) -> Detector:
    network = encoder(backbone)
    return build_detector(network, 3, DetectorSettings.model_validate(settings), short_side=64)


def seen(detector: Detector, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    with torch.no_grad():
        found = detector.eval()(images)
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("backbone", [LARGE, SMALL])
@pytest.mark.parametrize("head", ["c4", "fpn"])
def test_detections_have_boxes_inside_the_image_classes_and_scores(
    backbone: ResNetSettings, head: str
) -> None:
    detector = build(backbone, head=head, score_threshold=0.0, max_detections=20)
    image = torch.rand(3, 50, 70)
    (found,) = seen(detector, [image])
    assert found["boxes"].shape == (20, 4)
    assert (found["boxes"] >= 0).all()
    assert (found["boxes"] <= torch.tensor([70, 50, 70, 50])).all()
    assert set(found["labels"].tolist()) <= {1, 2, 3}
    assert (found["scores"].diff() <= 0).all()


@pytest.mark.parametrize("head", ["c4", "fpn"])
def test_every_new_and_every_old_weight_is_trained(head: str) -> None:
    detector = build(head=head).train()
    targets = [{"boxes": torch.tensor([[10.0, 10, 40, 40]]), "labels": torch.tensor([2])}] * 2
    losses = detector([torch.rand(3, 64, 64), torch.rand(3, 64, 64)], targets)
    assert isinstance(losses, dict)
    assert len(losses) == 4
    torch.stack(list(losses.values())).sum().backward()
    without = {name for name, weight in detector.named_parameters() if weight.grad is None}
    assert without == set()


def test_c4_takes_a_resnet_apart_without_changing_it() -> None:
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = encoder()(images)
        network: nn.Module = build(head="c4", batch_norm="frozen").eval().network
        stage_maps = network.get_submodule("backbone")(images)
        assert list(stage_maps) == ["2"]
        vectors = network.get_submodule("roi_heads.box_head")(stage_maps["2"])
    torch.testing.assert_close(vectors, expected)


def test_a_trained_batch_norm_follows_the_last_stage_only_if_it_is_trained() -> None:
    def norms(head: str, batch_norm: str) -> int:
        return sum(
            isinstance(module, nn.BatchNorm2d) for module in build(head=head, batch_norm=batch_norm).modules()
        )

    there = sum(isinstance(module, nn.BatchNorm2d) for module in encoder().modules())
    assert norms(head="c4", batch_norm="frozen") == there
    assert norms(head="c4", batch_norm="train") == there + 1
    assert norms(head="fpn", batch_norm="frozen") == there


def test_frozen_layers_stay_frozen_in_training_mode() -> None:
    detector = build(head="fpn", batch_norm="frozen").train()
    norms = [module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)
    assert detector.network.training


def test_a_pyramid_begins_at_stride_4() -> None:
    images = torch.zeros(1, 3, 64, 64)
    large = build(LARGE, head="fpn").eval().network.get_submodule("backbone")(images)
    assert [tuple(stage_map.shape[2:]) for stage_map in large.values()] == [
        (16, 16),
        (8, 8),
        (4, 4),
        (2, 2),
        (1, 1),
    ]
    small = build(SMALL, head="fpn").eval().network.get_submodule("backbone")(images)
    assert [stage_map.shape[2] for stage_map in small.values()] == [16, 8, 4]


@pytest.mark.parametrize(
    ("backbone", "head", "expected"),
    [
        (LARGE, "c4", [[0.1, 0.2, 0.3, 0.4, 0.5]]),
        (LARGE, "fpn", [[0.1], [0.2], [0.3], [0.4], [0.5]]),
        (SMALL, "fpn", [[0.1, 0.2, 0.3], [0.2, 0.3, 0.4], [0.3, 0.4, 0.5]]),
    ],
)
def test_levels_share_the_anchors_out(
    backbone: ResNetSettings, head: str, expected: list[list[float]]
) -> None:
    sides = (0.1, 0.2, 0.3, 0.4, 0.5)
    network = build(backbone, head=head, anchor_sides=sides).network
    anchors: Any = network.get_submodule("rpn.anchor_generator")
    assert [list(level) for level in anchors.sizes] == [[64 * share for share in level] for level in expected]


def test_fewer_anchors_than_levels_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"The pyramid has 5 levels, and there are 2 anchor sides"):
        build(head="fpn", anchor_sides=(0.1, 0.2))


def test_c4_is_for_resnets() -> None:
    with pytest.raises(
        SettingsError, match=r"last stage of this backbone is stages\.3\. Set detector\.head to fpn"
    ):
        build(TimmSettings(model="convnext_atto"), head="c4")
    build(TimmSettings(model="convnext_atto"), head="fpn")


def test_a_transformer_has_no_pyramid() -> None:
    with pytest.raises(
        SettingsError, match=r"strides double from 4 on, and those of this backbone are \[16, 16"
    ):
        build(TimmSettings(model="vit_tiny_patch16_224", image_size=64), head="fpn")


def test_images_are_normalised_once_as_the_encoder_does_it() -> None:
    network = build().network
    picture = torch.rand(3, 40, 60)
    listed, _ = network.get_submodule("transform")([picture])
    preprocessing = Preprocessing.for_size(64)
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    torch.testing.assert_close(listed.tensors[0, :, :40, :60], (picture - mean) / std)
    assert (listed.tensors[0, :, 40:] == 0).all()
    assert listed.image_sizes == [(40, 60)]


def test_small_new_weights_leave_the_first_guesses_open() -> None:
    (found,) = seen(build(score_threshold=0.0), [torch.rand(3, 64, 64)])
    torch.testing.assert_close(found["scores"], torch.full_like(found["scores"], 0.25), atol=0.05, rtol=0)


def test_new_weights_come_from_the_global_generator() -> None:
    def built(seed: int) -> dict[str, torch.Tensor]:
        network = encoder()
        torch.manual_seed(seed)
        return build_detector(network, 3, DetectorSettings(), 64).state_dict()

    first, again, other = built(5), built(5), built(6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
