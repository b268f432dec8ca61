from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from crosscontext.backbones import ResNetSettings
from crosscontext.datasets.contract import IGNORED, MaskDataset
from crosscontext.encoders import Encoder, Preprocessing, encoder_of
from crosscontext.errors import DataError, NonFiniteError, SettingsError
from crosscontext.hypercolumn_head import FrozenSettings, LinearHead
from crosscontext.probe import Chosen, LinearClassifier, Standard
from drawn_masks import subject, write_set

SMALL = ResNetSettings(depth=10, width=0.125, stem="small")
FEW = FrozenSettings(pixels=200, penalties=(1e-2,))


def encoder() -> Encoder:
    torch.manual_seed(0)
    return encoder_of(SMALL.build(), SMALL, Preprocessing.for_size(32), step=0).eval()


def train_of(root: Path) -> MaskDataset:
    train = subject(root, encoder()).parts.train
    assert isinstance(train, MaskDataset)
    return train


def test_a_head_is_the_linear_map_of_standardised_stacked_maps() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3 + i, 24 // 2**i, 32 // 2**i, generator=generator) for i in range(3)]
    width, num_classes = 3 + 5, 4
    fit = Chosen(
        LinearClassifier(
            torch.randn(num_classes, width, generator=generator),
            torch.randn(num_classes, generator=generator),
        ),
        Standard(torch.randn(width, generator=generator), torch.rand(width, generator=generator) + 0.5),
        penalty=1.0,
        score=0.0,
    )
    size = (24, 32)
    stacked = torch.cat(
        [F.interpolate(maps[i], size, mode="bilinear", align_corners=False) for i in (0, 2)], dim=1
    )
    pixels = fit.standard.apply(stacked.permute(0, 2, 3, 1).flatten(0, 2))
    expected = F.linear(pixels, *fit.logistic).view(2, *size, num_classes).permute(0, 3, 1, 2)
    x, y = ((torch.arange(length) + 0.5) * 2 / length - 1 for length in (32, 24))
    where = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
    logits = LinearHead.of(fit, {0: 3, 2: 5})(maps, where)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_what_is_learned_from_is_what_is_judged(tmp_path: Path) -> None:
    """The features of the drawn pixels are those that the whole image has at their places."""
    write_set(tmp_path, train=3, test=1)
    pupil, train = subject(tmp_path, encoder()), train_of(tmp_path)
    everything = FrozenSettings(pixels=10**6).sample(encoder().backbone, [1, 3], pupil, train, 1.0)
    few = FEW.sample(encoder().backbone, [1, 3], pupil, train, 1.0)
    whole = {tuple(row.tolist()) for row in torch.cat([everything.columns[1], everything.columns[3]], dim=1)}
    drawn = torch.cat([few.columns[1], few.columns[3]], dim=1)
    assert len(drawn) == 3 * 67
    assert {tuple(row.tolist()) for row in drawn} <= whole


def test_drawn_pixels_count_and_each_is_drawn_once(tmp_path: Path) -> None:
    train = train_of(write_set(tmp_path, train=3, test=1))
    sample = FrozenSettings(pixels=10**6).sample(
        encoder().backbone, [0], subject(tmp_path, encoder()), train, 1.0
    )
    for index in range(3):
        mask = train.mask(index)
        there = np.bincount(mask[mask != IGNORED], minlength=3)
        drawn = torch.bincount(sample.classes[sample.images == index], minlength=3)
        assert drawn.tolist() == there.tolist()


def test_each_hypercolumn_has_a_head_named_by_its_stages(tmp_path: Path) -> None:
    pupil, train = subject(write_set(tmp_path, train=4, test=1), encoder()), train_of(tmp_path)
    settings = FEW.model_copy(update={"hypercolumns": ((-1, 0), (2,), (-4, 3))})
    segmenter, details = settings.learn(pupil, train, 1.0)
    logits = segmenter(torch.randn(2, 3, 20, 28), (20, 28))
    assert list(details) == list(logits) == ["stages_14", "stages_3"]
    assert {tuple(found.shape) for found in logits.values()} == {(2, 3, 20, 28)}
    assert details["stages_14"]["penalty"] == 1e-2


def test_a_stage_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    pupil, train = subject(write_set(tmp_path, train=4, test=1), encoder()), train_of(tmp_path)
    with pytest.raises(
        SettingsError, match=r"name the stage 4, but the backbone has these: -4: layer1, .*-1: "
    ):
        FrozenSettings(hypercolumns=((-1, 4),)).learn(pupil, train, 1.0)


def test_one_image_is_too_few(tmp_path: Path) -> None:
    pupil, train = subject(write_set(tmp_path, train=1, test=1), encoder()), train_of(tmp_path)
    with pytest.raises(DataError, match="Only one training image"):
        FEW.learn(pupil, train, 1.0)


def test_maps_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    broken = encoder()
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    pupil, train = subject(write_set(tmp_path, train=4, test=1), broken), train_of(tmp_path)
    with pytest.raises(NonFiniteError, match="maps of layer1 are not finite"):
        FEW.learn(pupil, train, 1.0)
