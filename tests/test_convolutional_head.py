from pathlib import Path

import numpy as np
import pytest
import torch

from crosscontext.backbones import ResNetSettings
from crosscontext.convolutional_head import Crops, FinetuneSettings
from crosscontext.datasets import MaskDataset, MasksSettings
from crosscontext.datasets.contract import IGNORED
from crosscontext.encoders import Encoder, Preprocessing, encoder_of
from crosscontext.errors import NonFiniteError
from drawn_masks import subject, write_pair, write_set

SMALL = ResNetSettings(depth=10, width=0.125, stem="small")
PREPROCESSING = Preprocessing(image_size=32, crop_fraction=1, mean=(0, 0, 0), std=(1, 1, 1))


def encoder(settings: ResNetSettings = SMALL) -> Encoder:
    torch.manual_seed(0)
    return encoder_of(settings.build(), settings, Preprocessing.for_size(32), step=0).eval()


def train_part(root: Path) -> MaskDataset:
    train = MasksSettings(path=root).open().train
    assert isinstance(train, MaskDataset)
    return train


@pytest.fixture
def striped(tmp_path: Path) -> MaskDataset:
    """Images of broad stripes, whose red is 50 times their class."""
    for i in range(5):
        mask = np.tile((np.arange(60) // 20 + i) % 5, (30, 1)).astype(np.uint8)
        pixels = np.stack([50 * mask, np.full_like(mask, 255), np.full_like(mask, 255)], axis=-1)
        write_pair(tmp_path, f"{i}", pixels, mask)
    return train_part(tmp_path)


@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.5, 2.0)])
def test_image_and_mask_of_a_crop_show_the_same_place(
    striped: MaskDataset, scales: tuple[float, float]
) -> None:
    crops = Crops(striped, 24, scales, PREPROCESSING, seed=0)
    agree, flips = [], set()
    for number in range(20):
        image, mask = crops.load(number)
        assert image.shape == (3, 24, 24)
        inside = mask != IGNORED
        red = (image[0] * 255 / 50).round()
        agree.append((red == mask)[inside].float().mean())
        flips.add(bool((mask[12].diff() == -1).any()))
    assert min(agree) > (0.99 if scales == (1.0, 1.0) else 0.85)  # edges are smoothed
    assert flips == {False, True}


def test_what_lies_beside_the_image_is_ignored_and_of_the_mean_colour(striped: MaskDataset) -> None:
    image, mask = Crops(striped, 80, (1.0, 1.0), PREPROCESSING, seed=0).load(0)
    outside = mask == IGNORED
    assert int((~outside).sum()) == 30 * 60
    assert (image[:, outside] == 0).all()
    assert (image[1, ~outside] == 1).all()


def test_each_image_is_shown_once_an_epoch_always_otherwise(striped: MaskDataset) -> None:
    crops = Crops(striped, 60, (1.0, 1.0), PREPROCESSING, seed=0)

    pairs = [crops.load(number) for number in range(10)]
    shown = [frozenset(mask[mask != IGNORED].unique().tolist()) for _, mask in pairs]
    assert len(set(shown[:5])) == len(set(shown[5:])) == 5
    assert not any(torch.equal(a, b) for (a, _) in pairs[:5] for (b, _) in pairs[5:])
    again = Crops(striped, 60, (1.0, 1.0), PREPROCESSING, seed=0).load(7)
    assert torch.equal(again[0], pairs[7][0])
    assert torch.equal(again[1], pairs[7][1])


@pytest.mark.parametrize("head", ["fcn", "deeplabv3"])
def test_either_head_gives_logits_of_the_size_of_the_mask(tmp_path: Path, head: str) -> None:
    write_set(tmp_path, train=3, test=1)
    settings = FinetuneSettings.model_validate({"head": head, "epochs": 1, "batch_size": 2, "crop": 24})
    segmenter, details = settings.learn(subject(tmp_path, encoder()), train_part(tmp_path), 1.0)
    with torch.no_grad():
        logits = segmenter(torch.randn(2, 3, 20, 28), (40, 56))
    assert logits[head].shape == (2, 3, 40, 56)
    assert details == {head: {"steps": 2, "output_stride": 8}}


def test_coarse_stages_of_a_resnet_are_dilated(tmp_path: Path) -> None:
    write_set(tmp_path, train=2, test=1)
    settings = FinetuneSettings(epochs=1, batch_size=2, crop=32, output_stride=16)
    large = encoder(SMALL.model_copy(update={"stem": "large"}))
    _, details = settings.learn(subject(tmp_path, large), train_part(tmp_path), 1.0)
    assert details["fcn"]["output_stride"] == 16
    assert large.backbone.stages[-1].stride == 32


def test_a_loss_that_is_no_number_is_refused_with_the_step(tmp_path: Path) -> None:
    write_set(tmp_path, train=4, test=1)
    settings = FinetuneSettings(epochs=20, batch_size=2, crop=24, learning_rate=1e30)
    with pytest.raises(NonFiniteError, match=r"is nan in step \d+ of 40\. Lower mode.learning_rate"):
        settings.learn(subject(tmp_path, encoder()), train_part(tmp_path), 1.0)
