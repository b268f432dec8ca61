from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from crosscontext.datasets.decoding import decode
from crosscontext.perceptual_hash import MOST_BITS, Sketch, near_groups, sketch
from planted import compressed

PHOTOS = Path("/tmp/data/photos")
GREY = np.arange(256, dtype=np.uint8).tobytes()

COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half as large": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "compressed": lambda picture: compressed(picture, 40),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.1),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.85),
    "with more contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(1.2),
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(1)),
    "grey": lambda picture: picture.convert("L").convert("RGB"),
}


def scene(seed: int) -> Image.Image:
    """A picture with large and small things in it, and noise."""
    generator = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(generator.integers(0, 255, (side, side, 3), dtype=np.uint8)).resize(
                (160, 120), Image.Resampling.BICUBIC
            ),
            np.float64,
        )
        for side in (3, 6, 12)
    ]
    noise = generator.normal(0, 6, (120, 160, 3))
    return Image.fromarray(
        (0.45 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2] + noise).clip(0, 220).astype(np.uint8)
    )


@pytest.fixture(scope="module", params=[False, True], ids=["scenes", "photos"])
def originals(request: pytest.FixtureRequest) -> list[Image.Image]:
    if not request.param:
        return [scene(seed) for seed in range(60)]
    files = sorted(PHOTOS.glob("*.JPEG"))[:60]
    if not files:
        pytest.skip("there are no photos here")
    return [decode(file, file.name) for file in files]


def sketched(pictures: list[Image.Image]) -> list[Sketch]:
    return [sketch(np.asarray(picture)) for picture in pictures]


def test_different_pictures_are_not_grouped(originals: list[Image.Image]) -> None:
    assert near_groups(sketched(originals)) == []


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_grouped_with_their_originals(originals: list[Image.Image], kind: str) -> None:
    copies = [COPIES[kind](picture) for picture in originals]
    groups = near_groups(sketched([*originals, *copies]))
    assert groups == [[place, place + len(originals)] for place in range(len(originals))]


def test_mirrored_pictures_are_others(originals: list[Image.Image]) -> None:
    mirrored = [picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for picture in originals]
    assert near_groups(sketched([*originals, *mirrored])) == []


@pytest.mark.parametrize("number_of_groups", [10, 400], ids=["compared with all", "looked up"])
def test_pairs_are_those_that_a_comparison_of_all_finds(number_of_groups: int) -> None:
    generator = np.random.default_rng(0)
    centres = generator.integers(0, 2**64, number_of_groups, dtype=np.uint64)
    bits = [int(centre) for centre in centres]
    for centre in centres:
        for number in (1, MOST_BITS, MOST_BITS + 1):
            flipped = generator.choice(64, number, replace=False)
            bits.append(int(centre) ^ sum(1 << int(bit) for bit in flipped))
    found = near_groups([Sketch(each, GREY, False) for each in bits])
    taken: set[int] = set()
    expected = []
    for first in range(len(bits)):
        near = [
            other
            for other in range(len(bits))
            if other not in taken | {first} and (bits[first] ^ bits[other]).bit_count() <= MOST_BITS
        ]
        if first not in taken and near:
            expected.append([first, *near])
            taken |= {first, *near}
    assert found == expected
    assert len(found) == number_of_groups
    assert {len(group) for group in found} == {3}  # without the copies of one bit too many


def test_the_small_pictures_decide_where_hashes_agree() -> None:
    one, other = Sketch(7, GREY, False), Sketch(7, GREY[::-1], False)
    assert near_groups([one, other, one]) == [[0, 2]]


def test_many_of_one_hash_are_grouped() -> None:
    assert near_groups([Sketch(5, GREY, False)] * 3000) == [list(range(3000))]
    assert near_groups([]) == []


@pytest.mark.parametrize(("deviation", "blank"), [(0, True), (40, False)])
def test_a_picture_of_one_colour_is_blank(deviation: int, blank: bool) -> None:
    levels = np.linspace(128 - deviation, 128 + deviation, 40).astype(np.uint8)
    assert sketch(np.broadcast_to(levels[:, None, None], (40, 50, 3)).copy()).blank is blank


def test_a_picture_of_one_pixel_has_a_sketch() -> None:
    assert sketch(np.zeros((1, 1, 3), np.uint8)).blank
