import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from crosscontext.commandline import Verb, parse
from crosscontext.data_options import data_words
from crosscontext.datasets import DatasetSettings, from_text
from crosscontext.datasets.contract import Dataset
from crosscontext.datasets.decoding import EXTENSIONS
from crosscontext.layers import resolve
from crosscontext.planning import PretrainSettings
from crosscontext.scanning import Scan, scan
from drawn import draw_set
from drawn_masks import draw, write_pair
from packed import parquet_bytes, structs, tar_shards
from planted import ALIKE, FINE, IDENTICAL, UNREADABLE, planted, snapshot

ADAPTER: TypeAdapter[DatasetSettings] = TypeAdapter(DatasetSettings)


def opened(value: object) -> tuple[DatasetSettings, Dataset]:
    settings = ADAPTER.validate_python(value)
    return settings, settings.open().train


def looked_at(value: object, limit: int = 1000, processes: int = 1) -> Scan:
    return scan(*opened(value), limit, 32, processes, lambda _: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def found(folder: Path) -> Scan:
    return looked_at(folder)


def test_every_image_is_looked_at(folder: Path, found: Scan) -> None:
    files = [path for path in folder.rglob("*") if path.suffix in EXTENSIONS]
    assert found.images == found.scanned == len(files) == FINE + 15
    assert found.readable == len(files) - len(UNREADABLE)
    assert sum(found.formats.values()) == sum(found.modes.values()) == found.readable
    assert found.formats == {"JPEG": 65, "PNG": 6, "GIF": 1}
    assert found.modes == {"RGB": 67, "I;16": 2, "P": 1, "CMYK": 1, "RGBA": 1}


def test_what_cannot_be_read_is_named_with_its_cause(found: Scan) -> None:
    assert [each.path for each in found.unreadable] == sorted(UNREADABLE)
    for each in found.unreadable:
        assert UNREADABLE[each.path] in each.cause
        assert each.path not in each.cause


def test_copies_are_grouped_exact_and_near_ones_apart(found: Scan) -> None:
    assert found.identical == (IDENTICAL,)
    assert found.alike == (ALIKE,)
    assert found.repeated == 4


def test_odd_images_are_named(found: Scan) -> None:
    assert found.tiny == ("red/tiny.jpg",)
    assert found.blank == ("red/blank.png",)
    assert found.animated == ("red/animated.gif",)
    assert found.deep == ("red/dark.png", "red/deep.png")
    assert found.dark == ("red/dark.png",)
    assert found.elongated == ("red/long.png",)


def test_sizes_and_classes_are_counted(found: Scan) -> None:
    assert found.short_side is not None
    assert found.aspect is not None
    assert (found.short_side.least, found.short_side.median, found.short_side.most) == (16, 96, 96)
    assert (found.aspect.median, found.aspect.most) == (1, 6.25)
    assert found.classes == {"blue": 16, "red": 59}


def test_the_number_of_processes_changes_nothing(folder: Path, found: Scan) -> None:
    assert looked_at(folder, processes=2) == found


def test_looking_changes_neither_files_nor_the_random_state(folder: Path) -> None:
    before, state = snapshot(folder), torch.random.get_rng_state()
    looked_at(folder, processes=2)
    assert snapshot(folder) == before
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("limit", [1, 10, 74, 75])
def test_a_limit_takes_images_at_equal_distances(folder: Path, limit: int) -> None:
    few = looked_at(folder, limit)
    assert (few.images, few.scanned) == (75, limit)
    assert sum(few.classes.values()) == 75  # those of the whole set
    assert len(few.unreadable) + sum(few.modes.values()) == limit


def test_a_set_without_a_readable_image_has_no_sizes(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").touch()
    none = looked_at(tmp_path)
    assert (none.readable, none.short_side, none.formats) == (0, None, {})
    assert {each.cause for each in none.unreadable} == {"the file is empty"}


def tar(place: Path, images: Path) -> object:
    for number, content in enumerate(tar_shards(images)):
        (place / f"{number}.tar").write_bytes(content)
    return str(place)


def tar_files(place: Path, images: Path) -> object:
    tar(place, images)
    return {"name": "tar", "shards": [str(place / "0.tar"), str(place / "[12].tar")]}


def parquet(place: Path, images: Path) -> object:
    (place / "0.parquet").write_bytes(parquet_bytes(structs(images)))
    return str(place / "0.parquet")


def listed(place: Path, images: Path) -> object:
    names = [str(path) for path in sorted(images.glob("*/*.jpg"))]
    (place / "list.txt").write_text("\n".join(names))
    return {"name": "list", "path": str(place / "list.txt"), "root": str(place)}


def voc(place: Path, images: Path) -> object:
    return str(draw_set(place, train=8, test=4))


def coco(place: Path, images: Path) -> object:
    (place / "annotations").mkdir()
    (place / "train2017").symlink_to(images / "red")
    names = sorted(path.name for path in (images / "red").iterdir())
    content = {
        "images": [{"id": i, "file_name": name, "width": 40, "height": 40} for i, name in enumerate(names)],
        "annotations": [],
        "categories": [{"id": 1, "name": "red"}],
    }
    (place / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    return str(place)


def masks(place: Path, images: Path) -> object:
    for number in range(6):
        write_pair(place / "train", f"{number}", *draw(number))
    return str(place)


def shapes(place: Path, images: Path) -> object:
    return {"name": "shapes", "num_train": 30, "num_test": 5}


KINDS: dict[Callable[[Path, Path], object], tuple[int, dict[str, int]]] = {
    tar: (40, {"JPEG": 40}),
    tar_files: (40, {"JPEG": 40}),
    parquet: (40, {"JPEG": 40}),
    listed: (40, {"JPEG": 40}),
    voc: (8, {"PNG": 8}),
    coco: (20, {"JPEG": 20}),
    masks: (6, {"PNG": 6}),
    shapes: (30, {"pixels": 30}),
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_set_is_looked_at_and_written_as_options(
    kind: Callable[[Path, Path], object], image_folder: Path, tmp_path: Path
) -> None:
    number, formats = KINDS[kind]
    value = kind(tmp_path, image_folder)
    found = looked_at(value, processes=2)
    assert (found.images, found.readable, found.formats) == (number, number, formats)
    assert found == looked_at(value)
    words = data_words(ADAPTER.validate_python(value))
    line = parse((*words, "--out", "run"), Verb("", "", PretrainSettings))
    assert resolve(PretrainSettings, line.layers).data == ADAPTER.validate_python(value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("shapes", ["--data", "shapes"]),
        ("cifar10", ["--data", "cifar10"]),
        ("/photos", ["--data", "/photos"]),
        ("/my photos/list.txt", ["--data", "/my photos/list.txt"]),
        ("/a/train-*.tar", ["--data", "/a/train-*.tar"]),
        ({"name": "torchvision", "dataset": "stl10", "unlabelled": True}, None),
        ({"name": "folder", "path": "/shapes"}, ["--data", "/shapes"]),
    ],
    ids=str,
)
def test_options_are_as_short_as_a_user_would_write_them(value: object, words: list[str] | None) -> None:
    settings = ADAPTER.validate_python(from_text(value))
    written = data_words(settings)
    assert words is None or written == words
    line = parse((*written, "--out", "run"), Verb("", "", PretrainSettings))
    assert resolve(PretrainSettings, line.layers).data == settings


def test_pixels_in_memory_are_known_again_too(tmp_path: Path) -> None:
    settings, dataset = opened({"name": "shapes", "num_train": 12, "num_test": 2})
    pixels = np.stack([dataset.pixels(index) for index in (0, 1, 2, 0)])
    from crosscontext.datasets.arrays import ArrayDataset

    repeated = ArrayDataset(pixels, ["a", "b", "c", "d"], None)
    assert scan(settings, repeated, 10, 8, 2, lambda _: None).identical == (("a", "d"),)
