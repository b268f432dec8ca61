import numpy as np
import pytest
from scipy.stats import kstest

from crosscontext.randomness import permutation, philox, uniforms

IMAGES = np.arange(4000)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_published_known_answers(counter: str, key: str, words: str) -> None:
    rows = np.array([[int(word, 16) for word in counter.split()]] * 2, dtype=np.uint32)
    first, second = (int(word, 16) for word in key.split())
    expected = [int(word, 16) for word in words.split()]
    assert philox(rows, (first, second)).tolist() == [expected, expected]


def test_uniforms_fill_the_unit_interval_evenly_in_every_column() -> None:
    draws = uniforms(0, 0, IMAGES, 0, count=6)
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws.T:
        assert kstest(column, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    "other",
    [
        uniforms(1, 0, IMAGES, 0, count=1),
        uniforms(0, 1, IMAGES, 0, count=1),
        uniforms(0, -1, IMAGES, 0, count=1),
        uniforms(0, 0, IMAGES + 1, 0, count=1),
        uniforms(0, 0, IMAGES, 1, count=1),
        uniforms(0, 0, IMAGES, 0, count=1, stream=1),
        uniforms(0, 0, IMAGES, 0, count=2)[:, 1:],
    ],
    ids=["seed", "epoch", "negative epoch", "image", "view", "stream", "column"],
)
def test_draws_that_differ_in_one_key_are_independent(other: np.ndarray) -> None:
    draws = uniforms(0, 0, IMAGES, 0, count=1)
    assert abs(np.corrcoef(draws[:, 0], other[:, 0])[0, 1]) < 4 / np.sqrt(len(IMAGES))
    assert not np.any(draws == other)


def test_a_row_depends_on_its_image_alone() -> None:
    together = uniforms(3, 2, np.array([7, 1, 9, 1]), 4, count=5)
    alone = uniforms(3, 2, np.array([9]), 4, count=5)
    assert np.array_equal(together[2:3], alone)
    assert np.array_equal(together[1], together[3])


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_asking_for_more_draws_leaves_the_first_ones_as_they_were(count: int) -> None:
    images = np.arange(5)
    fewer, more = (uniforms(0, 0, images, 0, count=number) for number in (count, 12))
    assert np.array_equal(fewer, more[:, :count])


@pytest.mark.parametrize("epoch", [-2, -1, 0, 1])
def test_an_epoch_shows_every_image_once(epoch: int) -> None:
    assert sorted(permutation(0, epoch, 101).tolist()) == list(range(101))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    orders = {tuple(permutation(seed, epoch, 50).tolist()) for seed in range(3) for epoch in range(-2, 3)}
    assert len(orders) == 15
    assert np.array_equal(permutation(2, -1, 50), permutation(2, -1, 50))


def test_every_place_in_the_order_is_equally_likely() -> None:
    places = np.array([permutation(0, epoch, 10) for epoch in range(3000)])
    shares = np.array([(places == image).mean(axis=0) for image in range(10)])
    assert np.abs(shares - 0.1).max() < 5 * np.sqrt(0.1 * 0.9 / 3000)
