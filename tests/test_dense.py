from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from crosscontext.backbones import ResNetSettings, TimmSettings
from crosscontext.datasets import MaskDataset, MasksSettings
from crosscontext.datasets.contract import IGNORED
from crosscontext.dense import (
    Pairs,
    all_places,
    at_places,
    load_pairs,
    normalised,
    places,
    stage_maps,
    usable,
)
from crosscontext.encoders import Preprocessing
from crosscontext.errors import DataError
from drawn_masks import HEIGHT, IGNORE, WIDTH, draw, masks_of, write_pair, write_set

SMALL = ResNetSettings(depth=10, width=0.125, stem="small")
PREPROCESSING = Preprocessing.for_size(32)


def train_part(root: Path) -> MaskDataset:
    train = MasksSettings(path=root).open().train
    assert isinstance(train, MaskDataset)
    return train


def loaded(root: Path, scale: float = 1.0, workers: int = 2) -> tuple[list[Pairs], dict[str, str]]:
    skipped: dict[str, str] = {}
    return list(load_pairs(train_part(root), PREPROCESSING, scale, workers, skipped)), skipped


def test_a_map_is_read_between_its_cells_as_interpolate_does() -> None:
    stage_map = torch.randn(2, 5, 6, 8, dtype=torch.float64)
    where = all_places((48, 64), (48, 64), SMALL.build())
    expected = F.interpolate(stage_map, (48, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(at_places(stage_map, where.double()), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0.5, 1, 2])
def test_a_cell_covers_the_same_pixels_in_images_of_any_size(scale: float) -> None:
    """A map whose cells know which pixels of the image they cover tells each pixel of the mask its place."""
    backbone = SMALL.build()
    height, width = round(HEIGHT * scale), round(WIDTH * scale)
    maps = stage_maps(backbone, torch.zeros(1, 3, height, width))
    rows, columns = torch.tensor([8, 17, 27]), torch.tensor([10, 21, 33])
    where = places(rows, columns, (HEIGHT, WIDTH), (height, width), backbone)[None]
    for stage, stage_map in zip(backbone.stages, maps, strict=True):
        centres = [(torch.arange(length) + 0.5) * stage.stride for length in stage_map.shape[-2:]]
        known = torch.stack(torch.meshgrid(*centres, indexing="ij"))[None]
        expected = torch.stack([rows + 0.5, columns + 0.5]) * scale
        torch.testing.assert_close(at_places(known, where)[0, :, 0], expected, atol=1e-4, rtol=0)


def test_networks_that_need_whole_patches_take_any_image() -> None:
    backbone = TimmSettings(model="vit_tiny_patch16_224", image_size=32).build()
    assert {tuple(stage_map.shape[2:]) for stage_map in stage_maps(backbone, torch.zeros(1, 3, 36, 52))} == {
        (3, 4)
    }


def test_each_readable_pair_comes_once_in_order(tmp_path: Path) -> None:
    write_set(tmp_path, train=21)
    masks_of(tmp_path, "train")[4].write_bytes(b"")
    (tmp_path / "train" / "images" / "09.png").write_bytes(b"")
    pairs, skipped = loaded(tmp_path)
    assert [i for batch in pairs for i in batch.indices] == [i for i in range(21) if i not in (4, 9)]
    assert set(skipped) == {"train/images/04.png", "train/images/09.png"}
    assert "cannot decode 'train/masks/04.png'" in skipped["train/images/04.png"]
    for batch in pairs:
        for row, i in enumerate(batch.indices):
            pixels, mask = draw(i)
            assert np.array_equal(batch.masks[row], np.where(mask == IGNORE, IGNORED, mask))
            expected = normalised(torch.from_numpy(pixels).permute(2, 0, 1)[None], PREPROCESSING)[0]
            assert torch.equal(batch.images[row], expected)


def test_what_goes_together_does_not_depend_on_workers_or_other_sizes(tmp_path: Path) -> None:
    write_set(tmp_path, train=10)
    write_pair(tmp_path / "train", "03", *draw(3, height=20, width=30))
    (one, _), (many, _) = (loaded(tmp_path, workers=workers) for workers in (0, 3))
    assert [batch.indices for batch in one] == [batch.indices for batch in many]
    assert [batch.indices for batch in one] == [[0, 1, 2], [3], [4, 5, 6, 7], [8, 9]]
    assert one[1].images.shape == (1, 3, 20, 30)


def test_images_are_scaled_and_masks_are_not(tmp_path: Path) -> None:
    write_set(tmp_path, train=2)
    ((batch,), _) = loaded(tmp_path, scale=0.5)
    assert batch.images.shape == (2, 3, HEIGHT // 2, WIDTH // 2)
    assert batch.masks.shape == (2, HEIGHT, WIDTH)


def test_pictures_are_normalised_as_an_encoder_does_it() -> None:
    pixels = draw(0, 32, 32)[0]
    whole = normalised(torch.from_numpy(pixels).permute(2, 0, 1)[None], PREPROCESSING)[0]
    torch.testing.assert_close(whole, PREPROCESSING(Image.fromarray(pixels)))


def test_image_and_mask_of_different_sizes_are_refused_with_both(tmp_path: Path) -> None:
    write_set(tmp_path, train=3)
    write_pair(tmp_path / "train", "01", draw(1)[0], draw(1, height=20)[1])
    with pytest.raises(
        DataError, match=r"'train/images/01.png' has 44 × 36 pixels \(upright\), its mask 44 × 20\. Give"
    ):
        loaded(tmp_path)


def test_usable_images_can_be_read_and_have_pixels_that_count(tmp_path: Path) -> None:
    write_set(tmp_path, train=5)
    write_pair(tmp_path / "train", "02", draw(2)[0], np.full((HEIGHT, WIDTH), IGNORE, np.uint8))
    masks_of(tmp_path, "train")[4].write_bytes(b"")
    skipped: dict[str, str] = {}
    images, pixels = usable(train_part(tmp_path), 2, skipped)
    assert images.names == [f"train/images/0{i}.png" for i in (0, 1, 3)]
    assert list(skipped) == ["train/images/04.png"]
    expected = sum(np.bincount(draw(i)[1].flatten(), minlength=3)[:3] for i in (0, 1, 3))
    assert pixels.tolist() == np.asarray(expected).tolist()


def test_a_set_in_which_nothing_counts_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, train=2)
    for name in ("00", "01"):
        write_pair(tmp_path / "train", name, draw(0)[0], np.full((HEIGHT, WIDTH), IGNORE, np.uint8))
    with pytest.raises(
        DataError, match=r"None of 2 training images has a pixel that counts \(all of them are"
    ):
        usable(train_part(tmp_path), 2, {})
    masks_of(tmp_path, "train")[1].write_bytes(b"")
    with pytest.raises(DataError, match=r"pixel that counts \(cannot decode 'train/masks/01.png'"):
        usable(train_part(tmp_path), 2, {})
