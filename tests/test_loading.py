import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crosscontext.datasets.contract import Dataset, Labels, Reduction
from crosscontext.datasets.decoding import decode_pixels
from crosscontext.errors import DataError, ImageError
from crosscontext.loading import Batch, Loader
from crosscontext.views import (
    ViewsSettings,
    crop_boxes,
    cut,
    draw_view,
    finish_views,
    geometry_draws,
    resolve,
)

NUM_IMAGES, BATCH, SIZE = 43, 8, 16
COUNTS = {"weak": 1, "strong": 1, "local": 2}
SETTINGS = resolve(ViewsSettings(), SIZE)


class Files(Dataset):
    """PNG files of a folder; a file that is not an image is unreadable, a missing one an accident."""

    labels: Labels | None = None

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(folder.iterdir())
        self.names = [path.name for path in self._paths]

    def image(self, index: int) -> Image.Image:
        path = self._paths[index]
        encoded = path.open("rb")
        try:
            with encoded:
                return Image.open(encoded).convert("RGB")
        except OSError as error:
            raise ImageError(f"{path.name} cannot be decoded: {error}") from error


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for index in range(NUM_IMAGES):
        size = tuple(generator.integers(10, 40, 2))
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(
            folder / f"{index:03}.png"
        )
    return folder


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Path:
    """Images 7 and 8 of 43 are unreadable: less than 5 %."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "007.png").write_bytes(b"")
    (tmp_path / "008.png").write_bytes((tmp_path / "008.png").read_bytes()[:100])
    return tmp_path


def loader_over(folder: Path, workers: int = 0, batch_size: int = BATCH, seed: int = 0) -> Loader:
    return Loader(Files(folder), SETTINGS, COUNTS, SIZE, batch_size, seed, workers)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def finishing_loader(folder: Path, workers: int, size: int, device: str = "cpu") -> Loader:
    settings = resolve(ViewsSettings(), size)
    counts = {"weak": 1, "strong": 2}
    return Loader(Files(folder), settings, counts, size, BATCH, 0, workers, torch.device(device))


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert [batch.step for batch in ours] == [batch.step for batch in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.epoch == other.epoch
        assert np.array_equal(mine.indices, other.indices)
        for copies, others in ((mine.crops, other.crops), (mine.views, other.views)):
            assert copies.keys() == others.keys()
            for name in copies:
                assert all(torch.equal(*pair) for pair in zip(copies[name], others[name], strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_shares_of_a_batch_are_its_rows_also_where_images_are_unreadable(damaged: Path, workers: int) -> None:
    whole = list(loader_over(damaged, workers).batches(0, 6))
    half = BATCH // 2
    for share in (slice(0, half), slice(half, BATCH)):
        loader = Loader(Files(damaged), SETTINGS, COUNTS, SIZE, BATCH, 0, workers, share=share)
        for ours, theirs in zip(loader.batches(0, 6), whole, strict=True):
            rows = {name: [copy[share] for copy in copies] for name, copies in theirs.crops.items()}
            assert_same([ours], [theirs._replace(indices=theirs.indices[share], crops=rows)])


@pytest.mark.parametrize("workers", [1, 3, 11])
def test_the_number_of_workers_changes_nothing(folder: Path, workers: int) -> None:
    assert_same(list(loader_over(folder, workers).batches(-3, 8)), list(loader_over(folder).batches(-3, 8)))


@pytest.mark.parametrize("workers", [0, 2])
def test_starting_in_the_middle_gives_the_tail_of_the_whole(folder: Path, workers: int) -> None:
    whole = list(loader_over(folder).batches(-6, 9))
    assert_same(list(loader_over(folder, workers).batches(3, 9)), whole[9:])


def test_every_epoch_shows_distinct_images_in_an_order_of_its_own(folder: Path) -> None:
    loader = loader_over(folder)
    assert loader.steps_per_epoch == NUM_IMAGES // BATCH
    orders = []
    for epoch in (-2, -1, 0, 1):
        start = epoch * loader.steps_per_epoch
        batches = list(loader.batches(start, start + loader.steps_per_epoch))
        assert {batch.epoch for batch in batches} == {epoch}
        orders.append(tuple(np.concatenate([batch.indices for batch in batches]).tolist()))
        assert len(set(orders[-1])) == NUM_IMAGES // BATCH * BATCH
    assert len(set(orders)) == 4


def test_another_seed_gives_other_batches(folder: Path) -> None:
    (ours,), (theirs,) = (list(loader_over(folder, seed=seed).batches(0, 1)) for seed in (0, 1))
    assert not np.array_equal(ours.indices, theirs.indices)


def test_a_batch_has_the_copies_and_sizes_that_were_asked_for(folder: Path) -> None:
    (batch,) = loader_over(folder).batches(0, 1)
    shapes = {name: [tuple(crops.shape) for crops in copies] for name, copies in batch.crops.items()}
    small = (BATCH, 3, 8, 8)
    assert shapes == {"weak": [(BATCH, 3, 16, 16)], "strong": [(BATCH, 3, 16, 16)], "local": [small, small]}
    assert batch.crops["weak"][0].is_contiguous()


@pytest.mark.parametrize("workers", [0, 2])
def test_views_may_grow_with_the_step(folder: Path, workers: int) -> None:
    growing = Loader(Files(folder), SETTINGS, COUNTS, lambda step: 8 + 4 * step, BATCH, 0, workers)
    batches = list(growing.batches(0, 4))
    assert [batch.crops["strong"][0].shape[-1] for batch in batches] == [8, 12, 16, 20]
    assert {batch.crops["local"][1].shape[-1] for batch in batches} == {8}
    (usual,) = loader_over(folder).batches(2, 3)
    assert_same(batches[2:3], [usual])


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("workers", [1, 3])
def test_neither_workers_nor_threads_change_the_views(folder: Path, workers: int) -> None:
    size = 225  # odd, and so large that a batch has several parts
    assert_same(
        list(finishing_loader(folder, workers, size).batches(0, 2)),
        list(finishing_loader(folder, 0, size).batches(0, 2)),
    )


@pytest.mark.parametrize("size", [16, 225])
def test_views_made_in_parts_are_those_made_all_at_once_and_one_by_one(folder: Path, size: int) -> None:
    (batch,) = finishing_loader(folder, 2, size).batches(3, 4)
    settings = resolve(ViewsSettings(), size)
    together = finish_views(batch.crops, batch.indices, settings, 0, batch.epoch)
    for name, copies in batch.views.items():
        assert all(torch.equal(*pair) for pair in zip(copies, together[name], strict=True))
        assert all(copy.is_contiguous(memory_format=torch.channels_last) for copy in copies)
    for row in range(BATCH):
        crops = {name: [copy[row : row + 1] for copy in copies] for name, copies in batch.crops.items()}
        alone = finish_views(crops, batch.indices[row : row + 1], settings, 0, batch.epoch)
        for name, copies in batch.views.items():
            assert all(torch.equal(view[row], one[0]) for view, one in zip(copies, alone[name], strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_on_another_device_the_views_are_made_there(folder: Path, workers: int) -> None:
    (batch,) = finishing_loader(folder, workers, 64, device="meta").batches(0, 1)
    assert {copy.device.type for copies in batch.crops.values() for copy in copies} == {"cpu"}
    assert {(copy.device.type, copy.shape) for copies in batch.views.values() for copy in copies} == {
        ("meta", (BATCH, 3, 64, 64))
    }


def test_without_a_device_there_are_crops_only(folder: Path) -> None:
    (batch,) = loader_over(folder).batches(0, 1)
    assert batch.crops
    assert not batch.views


@pytest.mark.parametrize("step", [-1, 7])
def test_a_view_of_a_batch_can_be_drawn_again_alone(folder: Path, step: int) -> None:
    (batch,) = loader_over(folder, seed=4).batches(step, step + 1)
    views = finish_views(batch.crops, batch.indices, SETTINGS, 4, batch.epoch)
    for name, copy in (("weak", 0), ("strong", 0), ("local", 1)):
        alone = draw_view(
            Files(folder), int(batch.indices[5]), SETTINGS, SIZE, (name, copy), (4, batch.epoch)
        )
        torch.testing.assert_close(views[name][copy][5], alone, atol=1e-5, rtol=0)


def test_a_large_jpeg_is_decoded_no_larger_than_its_crops_need(tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((800, 600), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=95)
    decoded: list[tuple[int, ...]] = []

    class Recorded(Files):
        def pixels(self, index: int, reduction: Reduction | None = None) -> np.ndarray:
            decoded.append((pixels := decode_pixels(self._paths[index], "a.jpg", reduction)).shape)
            return pixels

    settings = resolve(ViewsSettings(), 64)
    draws = [geometry_draws(0, epoch, np.array([0]), "strong", 0) for epoch in range(40)]
    sides = [crop_boxes(row, np.array([[800, 600]]), settings.strong)[0, 2:].min() for row in draws]
    batches = list(
        Loader(Recorded(tmp_path), settings, {"strong": 1}, 64, 1, seed=0, workers=0).batches(0, 40)
    )
    factors = [600 // shape[0] for shape in decoded]
    assert factors == [max(f for f in (1, 2, 4, 8) if side / f >= 64) for side in sides]
    assert set(factors) >= {4, 8}
    whole = cut([decode_pixels(tmp_path / "a.jpg", "a.jpg")], draws[-1], settings.strong, 64)
    difference = np.abs(whole[0].astype(int) - batches[-1].crops["strong"][0][0].numpy())
    assert difference.mean() < 6


@pytest.mark.parametrize("workers", [0, 3])
def test_an_unreadable_image_is_replaced_by_the_next_readable_one_and_named(
    damaged: Path, workers: int
) -> None:
    whole, loader = loader_over(damaged, workers, batch_size=NUM_IMAGES), loader_over(damaged)
    (batch,) = whole.batches(0, 1)
    assert sorted(batch.indices.tolist()) == sorted([*range(7), 9, 9, *range(9, NUM_IMAGES)])
    assert whole.skipped.keys() == {"007.png", "008.png"}
    assert "cannot be decoded" in whole.skipped["007.png"]
    first, second = np.flatnonzero(batch.indices == 9)[:2]
    assert torch.equal(batch.crops["strong"][0][first], batch.crops["strong"][0][second])
    assert_same(list(loader_over(damaged, workers).batches(0, 5)), list(loader.batches(0, 5)))


@pytest.mark.parametrize("workers", [0, 3])
def test_labels_are_those_of_the_images_shown_where_they_are_asked_for(damaged: Path, workers: int) -> None:
    files = Files(damaged)
    files.labels = Labels(tuple("abcdefg"), np.arange(NUM_IMAGES) % 7)
    shown = set()
    cpu = torch.device("cpu")
    loader = Loader(files, SETTINGS, COUNTS, SIZE, BATCH, 0, workers, cpu, with_labels=True)
    for batch in loader.batches(0, loader.steps_per_epoch):
        (classes,) = batch.views["labels"]
        assert classes.tolist() == [index % 7 for index in batch.indices]
        shown |= {*batch.indices.tolist()}
    assert not shown & {7, 8}
    (unasked,) = Loader(files, SETTINGS, COUNTS, SIZE, BATCH, 0, workers, cpu).batches(0, 1)
    assert unasked.views.keys() == COUNTS.keys()


@pytest.mark.parametrize("workers", [0, 3])
def test_more_than_a_twentieth_unreadable_stops_with_the_list(damaged: Path, workers: int) -> None:
    (damaged / "020.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="3 of 43 images cannot be read") as caught:
        list(loader_over(damaged, workers).batches(0, 10))
    assert all(f"{name}.png: " in str(caught.value) for name in ("007", "008", "020"))


def test_a_set_without_any_readable_image_ends_with_an_error(tmp_path: Path) -> None:
    for index in range(60):
        (tmp_path / f"{index}.png").write_bytes(b"")
    with pytest.raises(DataError, match="of 60 images cannot be read"):
        list(loader_over(tmp_path, 2).batches(0, 1))


def test_a_batch_larger_than_the_set_is_refused_with_both_numbers(folder: Path) -> None:
    with pytest.raises(DataError, match=r"batch of 44 images .* data set of 43; set the batch size"):
        loader_over(folder, batch_size=44)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unforeseen_failure_reaches_the_consumer_with_the_name_of_the_image(
    damaged: Path, workers: int
) -> None:
    loader = loader_over(damaged, workers)
    (damaged / "030.png").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        list(loader.batches(0, 2 * loader.steps_per_epoch))
    assert "030.png" in caught.value.__notes__[0]
    assert not loading_threads()


def test_leaving_early_leaves_no_thread_behind(folder: Path) -> None:
    batches = loader_over(folder, 3).batches(0, 1000)
    next(batches)
    assert loading_threads()
    batches.close()
    assert not loading_threads()


def loading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("crosscontext-loader")]
