"""One folder of pictures, stored in every way: the same images in the same order, for all threads."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from crosscontext.datasets import (
    Dataset,
    DatasetSettings,
    FolderSettings,
    ListSettings,
    ParquetSettings,
    TarSettings,
)
from crosscontext.loading import Loader
from crosscontext.views import ViewsSettings, resolve
from packed import parquet_bytes, pictures, structs, tar_shards


def write_list(folder: Path, place: Path) -> DatasetSettings:
    lines = [f"{path}\t{path.parent.name}" for path in sorted(folder.glob("*/*.jpg"))]
    (place / "all.txt").write_text("\n".join(lines))
    return ListSettings(path=place / "all.txt")


def write_tar(folder: Path, place: Path) -> DatasetSettings:
    for number, shard in enumerate(tar_shards(folder)):
        (place / f"train-{number}.tar").write_bytes(shard)
    return TarSettings(shards=(str(place / "train-*.tar"),))


def write_indexed_tar(folder: Path, place: Path) -> DatasetSettings:
    settings = write_tar(folder, place)
    assert isinstance(settings, TarSettings)
    return settings.model_copy(update={"index": place / "index"})


def write_remote_tar(folder: Path, place: Path) -> DatasetSettings:
    import fsspec

    memory = fsspec.filesystem("memory")
    for number, shard in enumerate(tar_shards(folder)):
        memory.pipe_file(f"/{place.name}/{number}.tar", shard)
    return TarSettings(shards=(f"memory://{place.name}/*.tar",))


def write_parquet(folder: Path, place: Path) -> DatasetSettings:
    names = ["blue", "red"]
    described = json.dumps({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}})
    rows, classes = structs(folder), [names.index(class_name) for _, class_name in pictures(folder)]
    for number, half in enumerate((slice(0, 21), slice(21, None))):
        content = parquet_bytes(rows[half], classes[half], described=described.encode())
        (place / f"train-{number}.parquet").write_bytes(content)
    return ParquetSettings(shards=(str(place / "train-0.parquet"), str(place / "train-1.parquet")))


def write_remote_parquet(folder: Path, place: Path) -> DatasetSettings:
    found = pictures(folder)
    content = parquet_bytes([image for image, _ in found], [class_name for _, class_name in found])
    (place / "all.parquet").write_bytes(content)
    return ParquetSettings(shards=(f"file://{place}/all.parquet",))


WAYS = [write_list, write_tar, write_indexed_tar, write_remote_tar, write_parquet, write_remote_parquet]


@pytest.fixture
def files(image_folder: Path) -> Dataset:
    return FolderSettings(path=image_folder).open().train


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__.removeprefix("write_"))
def reopen(request: pytest.FixtureRequest, image_folder: Path, tmp_path: Path) -> Callable[[], Dataset]:
    settings = request.param(image_folder, tmp_path)
    return lambda: settings.open().train


def test_images_and_labels_are_those_of_the_folder(files: Dataset, reopen: Callable[[], Dataset]) -> None:
    stored = reopen()
    assert len(stored.names) == len(set(stored.names)) == len(files.names)
    assert files.labels is not None
    assert stored.labels is not None
    assert stored.class_names == files.class_names
    assert np.array_equal(stored.labels.classes, files.labels.classes)
    for index in (0, 39, 7, 21, 20):
        assert np.array_equal(stored.pixels(index), files.pixels(index))
        assert stored.image(index).tobytes() == files.image(index).tobytes()


def test_threads_read_the_same_as_one(files: Dataset, reopen: Callable[[], Dataset]) -> None:
    stored = reopen()
    order = np.random.default_rng(0).permutation(np.arange(160) % 40).tolist()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(stored.pixels, order))
    assert all(
        np.array_equal(pixels, files.pixels(index)) for pixels, index in zip(found, order, strict=True)
    )


def test_opened_again_the_set_is_recognised(reopen: Callable[[], Dataset]) -> None:
    first, again = reopen(), reopen()
    assert first.fingerprint() is not None
    assert (first.fingerprint(), list(first.names)) == (again.fingerprint(), list(again.names))
    assert first.annotation_digest() == again.annotation_digest()


def test_batches_in_the_middle_are_those_of_the_folder(files: Dataset, reopen: Callable[[], Dataset]) -> None:
    def crops(dataset: Dataset, start: int, workers: int) -> list[torch.Tensor]:
        settings = resolve(ViewsSettings(), 16)
        loader = Loader(dataset, settings, {"weak": 1, "strong": 1}, 16, 8, seed=3, workers=workers)
        batches = loader.batches(start, 8)
        return [copy for batch in batches for copies in batch.crops.values() for copy in copies]

    whole, rest = crops(files, 0, 0), crops(reopen(), 5, 2)
    assert len(rest) == 6
    assert all(torch.equal(one, other) for one, other in zip(whole[-6:], rest, strict=True))
