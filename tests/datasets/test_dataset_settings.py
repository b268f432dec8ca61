from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from crosscontext.datasets import (
    CocoSettings,
    DatasetSettings,
    FolderSettings,
    ListSettings,
    MasksSettings,
    NamedSettings,
    ParquetSettings,
    ShapesSettings,
    TarSettings,
    VocSettings,
)
from crosscontext.errors import DataError
from crosscontext.settings import Settings


class Job(Settings):
    """Stands for any settings that have a data set among them."""

    data: DatasetSettings


def parse(value: Any) -> DatasetSettings:
    return Job(data=value).data


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("shapes", ShapesSettings()),
        ("cifar10", NamedSettings(dataset="cifar10")),
        ("fashion-mnist", NamedSettings(dataset="fashion-mnist")),
        ("./shapes", FolderSettings(path=Path("shapes"))),
        ("some/photos", FolderSettings(path=Path("some/photos"))),
        (Path("photos"), FolderSettings(path=Path("photos"))),
        ("some/train-*.tar", TarSettings(shards=("some/train-*.tar",))),
        ("s3://bucket/a.tar", TarSettings(shards=("s3://bucket/a.tar",))),
        ("hf://datasets/x/a.parquet", ParquetSettings(shards=("hf://datasets/x/a.parquet",))),
        ("some/a.parquet", ParquetSettings(shards=("some/a.parquet",))),
        ("some/photos.txt", ListSettings(path=Path("some/photos.txt"))),
        ({"name": "shapes", "seed": 3}, ShapesSettings(seed=3)),
        (ShapesSettings(seed=4), ShapesSettings(seed=4)),
    ],
)
def test_short_and_full_forms_mean_the_same(short: Any, full: Settings) -> None:
    assert parse(short) == full


@pytest.mark.parametrize("short", ["shapes", "svhn", "some/photos"])
def test_settings_survive_a_dump(short: str) -> None:
    job = Job(data=parse(short))
    assert Job.model_validate_json(job.model_dump_json()) == job


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"empty data set; expected the path.*shapes, cifar10"):
        parse("")


@pytest.mark.parametrize(
    ("typo", "meant"), [("cifar-10", "cifar10"), ("Shapes", "shapes"), ("STL10", "stl10")]
)
def test_a_misspelt_name_gets_the_nearest_one(typo: str, meant: str) -> None:
    with pytest.raises(ValidationError, match=f"'{typo}' exists; did you mean the data set '{meant}'"):
        parse(typo)


@pytest.mark.parametrize("value", ["s3://bucket/photos", "https://example.org/a.zip"])
def test_a_url_of_something_else_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match=r"ends in none of \.tar, \.parquet"):
        parse(value)


def test_nobodys_home_is_refused() -> None:
    with pytest.raises(ValidationError, match="'~nobody-at-all' is nobody's home folder"):
        parse("~nobody-at-all/photos")


@pytest.mark.parametrize("value", ["x" * 300, "x/" * 3000, "a\0b"])
def test_a_path_that_the_system_refuses_is_left_to_opening(value: str) -> None:
    with pytest.raises(DataError):
        parse(value).open()


@pytest.mark.parametrize(("ending", "kind"), [(".tar", TarSettings), (".parquet", ParquetSettings)])
def test_a_folder_of_shards_is_recognised(tmp_path: Path, ending: str, kind: type[Settings]) -> None:
    (tmp_path / f"0{ending}").touch()
    assert parse(tmp_path) == kind.model_validate({"shards": [f"{tmp_path}/*{ending}"]})
    assert parse(tmp_path / f"0{ending}") == kind.model_validate({"shards": [f"{tmp_path}/0{ending}"]})
    (tmp_path / "1.jpg").touch()
    assert parse(tmp_path) == FolderSettings(path=tmp_path)


def test_an_existing_folder_is_no_typo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cifar-10").mkdir()
    assert parse("cifar-10") == FolderSettings(path=Path("cifar-10"))


@pytest.mark.parametrize("part", ["", "train"])
def test_a_folder_with_images_and_masks_is_known_by_them(tmp_path: Path, part: str) -> None:
    for kind in ("images", "masks"):
        assert parse(tmp_path) == FolderSettings(path=tmp_path)
        (tmp_path / part / kind).mkdir(parents=True)
    assert parse(tmp_path) == parse(str(tmp_path)) == MasksSettings(path=tmp_path)
    assert parse({"name": "folder", "path": tmp_path}) == FolderSettings(path=tmp_path)


def test_a_folder_in_the_layout_of_pascal_voc_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "JPEGImages").mkdir()
    assert parse(tmp_path) == FolderSettings(path=tmp_path)
    (tmp_path / "Annotations").mkdir()
    assert parse(tmp_path) == VocSettings(path=tmp_path)
    assert parse({"name": "folder", "path": tmp_path}) == FolderSettings(path=tmp_path)


def test_the_folder_of_coco_is_recognised(tmp_path: Path) -> None:
    for name in ("train2017", "val2017", "annotations"):
        (tmp_path / name).mkdir()
    assert parse(tmp_path) == FolderSettings(path=tmp_path)
    train, val = (tmp_path / "annotations" / f"instances_{part}2017.json" for part in ("train", "val"))
    train.touch()
    assert parse(str(tmp_path)) == CocoSettings(images=tmp_path / "train2017", annotation=train)
    val.touch()
    assert parse(str(tmp_path)) == CocoSettings(
        images=tmp_path / "train2017",
        annotation=train,
        test_images=tmp_path / "val2017",
        test_annotation=val,
    )


def test_unknown_keys_and_kinds_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        parse({"name": "shapes", "colour": 1})
    with pytest.raises(ValidationError, match="'folder', 'torchvision', 'shapes', 'voc', 'coco'"):
        parse({"name": "imagenet"})


def test_every_field_explains_itself() -> None:
    schema = TypeAdapter[Any](DatasetSettings).json_schema()
    missing = [
        f"{kind}.{field}"
        for kind, definition in schema["$defs"].items()
        for field, entry in definition["properties"].items()
        if "description" not in entry
    ]
    assert missing == []
