import os
from pathlib import Path

import numpy as np
import pytest

from crosscontext.datasets import BoxDataset, VocSettings
from crosscontext.datasets.folder import FolderSettings
from crosscontext.datasets.subset import part_of
from crosscontext.errors import DataError
from drawn import Thing, annotate, draw_set, things


def train_of(folder: Path, **settings: object) -> BoxDataset:
    train = VocSettings.model_validate({"path": folder, **settings}).open().train
    assert isinstance(train, BoxDataset)
    return train


def rewrite(folder: Path, name: str, drawn: list[Thing]) -> None:
    annotate(folder / "Annotations" / f"{name}.xml", drawn, 64, 64)


def test_boxes_are_around_what_is_drawn(tmp_path: Path) -> None:
    dataset = train_of(draw_set(tmp_path, train=6))
    assert dataset.annotation == "boxes"
    assert dataset.class_names == ("blue", "red")
    for index in range(6):
        corners, classes, difficult = dataset.boxes(index)
        assert corners.dtype == np.float32
        assert classes.dtype == np.int64
        assert not difficult.any()
        drawn = things(index, 64, 64)
        assert corners.tolist() == [[t.left, t.top, t.right, t.bottom] for t in drawn]
        assert [dataset.class_names[c] for c in classes] == [t.colour for t in drawn]
        pixels = dataset.pixels(index).astype(int)
        left, top, right, bottom = corners[0].astype(int)
        coloured = np.abs(pixels - pixels[..., :1]).sum(axis=2) > 0
        assert coloured[top:bottom, left:right].all()
        assert not coloured[:, right].any()


def test_as_plain_images_the_set_has_no_labels(tmp_path: Path) -> None:
    dataset = train_of(draw_set(tmp_path, train=2))
    assert dataset.labels is None
    assert list(dataset.names) == ["train_00.png", "train_01.png"]
    assert dataset.image(1).size == (64, 64)


@pytest.mark.parametrize(
    ("lists", "train", "test"),
    [
        ({"train": 3, "val": 2, "test": 4}, "train", "test"),
        ({"train": 3, "val": 2}, "train", "val"),
        ({"trainval": 3, "test": 4}, "trainval", "test"),
        ({"trainval": 3, "train": 2, "test": 4}, "trainval", "test"),
        ({"train": 3}, "train", None),
    ],
)
def test_the_parts_are_found_by_the_names_of_their_lists(
    tmp_path: Path, lists: dict[str, int], train: str, test: str | None
) -> None:
    parts = VocSettings(path=draw_set(tmp_path, **lists)).open()
    assert {name.split("_")[0] for name in parts.train.names} == {train}
    assert (parts.test and {name.split("_")[0] for name in parts.test.names}) == (test and {test})


def test_the_parts_can_be_named(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=3, val=2, test=4)
    parts = VocSettings(path=folder, train="val", test="train").open()
    assert parts.test is not None
    assert (len(parts.train.names), len(parts.test.names)) == (2, 3)


def test_without_lists_all_images_are_learned_from(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=3)
    (folder / "ImageSets" / "Main" / "train.txt").unlink()
    parts = VocSettings(path=folder).open()
    assert len(parts.train.names) == 3
    assert parts.test is None


def test_difficult_boxes_are_marked(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=1)
    rewrite(folder, "train_00", [Thing("red", 0, 0, 9, 9), Thing("red", 20, 20, 30, 30, difficult=True)])
    assert train_of(folder).boxes(0).difficult.tolist() == [False, True]


def test_boxes_without_area_are_left_out_and_named(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=2)
    nothing, turned = Thing("red", 10, 10, 11, 40), Thing("red", 40, 10, 20, 40)
    rewrite(folder, "train_00", [nothing, Thing("blue", 5, 5, 9, 9), turned])
    dataset = train_of(folder)
    assert dataset.boxes(0).corners.tolist() == [[5, 5, 9, 9]]
    assert dataset.left_out == {
        "train_00.png": [
            "box [11.0, 11.0, 11.0, 40.0] has no area",
            "box [41.0, 11.0, 20.0, 40.0] has no area",
        ]
    }


def test_boxes_over_the_edge_are_clipped_and_those_outside_left_out(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=1)
    over, outside = Thing("red", 50, -3, 68, 20), Thing("red", 60, 60, 90, 90)
    rewrite(folder, "train_00", [over, outside])
    dataset = train_of(folder)
    assert dataset.boxes(0).corners.tolist() == [[50, 0, 64, 20]]
    (causes,) = dataset.left_out.values()
    assert causes == ["box [61.0, 61.0, 90.0, 90.0] lies outside of 64 × 64 pixels"]


def test_a_part_keeps_its_boxes_and_its_faults(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=5)
    rewrite(folder, "train_03", [Thing("red", 5, 5, 5, 5), Thing("red", 0, 0, 9, 9)])
    whole = train_of(folder)
    part = part_of(whole, [3, 0])
    assert isinstance(part, BoxDataset)
    assert (part.annotation, part.class_names) == ("boxes", whole.class_names)
    assert part.boxes(1).corners.tolist() == whole.boxes(0).corners.tolist()
    assert list(part.left_out) == ["train_03.png"]
    assert part_of(whole, [0]).annotation_digest() != part.annotation_digest()


def test_the_digest_changes_with_any_box_and_with_nothing_else(tmp_path: Path) -> None:
    def digest(folder: Path) -> str:
        return train_of(folder, class_names=("blue", "red")).annotation_digest()

    first, second = draw_set(tmp_path / "a", train=3), draw_set(tmp_path / "b", train=3)
    before = digest(first)
    assert digest(second) == before
    one, *others = things(1, 64, 64)
    changed = [
        one._replace(left=one.left + 1),
        one._replace(difficult=True),
        one._replace(colour={"red": "blue", "blue": "red"}[one.colour]),
    ]
    digests = set()
    for change in changed:
        rewrite(second, "train_01", [change, *others])
        digests.add(digest(second))
    assert len(digests | {before}) == 4


def test_an_image_in_both_parts_is_refused(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=2, test=2)
    (folder / "ImageSets" / "Main" / "test.txt").write_text("train_01\n")
    with pytest.raises(DataError, match=r"1 images of .* are in both lists, train and test: train_01"):
        VocSettings(path=folder).open()


def test_an_annotation_without_its_image_is_refused(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=3)
    (folder / "JPEGImages" / "train_01.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 annotated images are not in .*JPEGImages: train_01"):
        VocSettings(path=folder).open()


def test_an_image_without_its_annotation_is_refused(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=3)
    (folder / "Annotations" / "train_01.xml").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images have no annotation file in .*: train_01\. Add"):
        VocSettings(path=folder).open()


def test_a_class_that_is_not_among_the_given_ones_is_refused(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=6)
    with pytest.raises(DataError, match=r"\.xml shows red, which is not among the classes blue, green\."):
        VocSettings(path=folder, class_names=("blue", "green")).open()


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("<annotation><object>", "no element found"),
        ("<annotation/>", r"<annotation> has no <size/width>"),
        (
            "<annotation><size><width>9</width><height>9</height></size><object/></annotation>",
            "has no <bndbox",
        ),
        (
            "<annotation><size><width>0</width><height>9</height></size></annotation>",
            "a size of 0 × 9 pixels",
        ),
        ("<annotation><size><width>nan</width><height>9</height></size></annotation>", "<size/width> is nan"),
        ("<annotation><size><width>wide</width><height>9</height></size></annotation>", "'wide'"),
    ],
)
def test_a_malformed_annotation_is_refused_with_the_cause(tmp_path: Path, content: str, cause: str) -> None:
    folder = draw_set(tmp_path, train=2)
    (folder / "Annotations" / "train_01.xml").write_text(content)
    with pytest.raises(DataError, match=rf"train_01\.xml .*{cause}"):
        VocSettings(path=folder).open()


def test_entities_neither_read_files_nor_explode(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=1)
    path = folder / "Annotations" / "train_00.xml"
    secret = tmp_path / "secret"
    secret.write_text("red")
    whole, colour = path.read_text(), things(0, 64, 64)[0].colour
    path.write_text(f'<!DOCTYPE a [<!ENTITY e SYSTEM "file://{secret}">]>' + whole.replace(colour, "&e;"))
    with pytest.raises(DataError, match="declares a document type"):
        VocSettings(path=folder).open()
    levels = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 20}">' for i in range(8))
    path.write_text(f'<!DOCTYPE a [<!ENTITY e0 "red">{levels}]>' + whole.replace(colour, "&e8;"))
    with pytest.raises(DataError, match="declares a document type"):
        VocSettings(path=folder).open()


def test_lists_that_are_missing_empty_or_say_things_twice_are_refused(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=2, test=2)
    with pytest.raises(DataError, match=r"no list train2 in .*; there are test, train\."):
        VocSettings(path=folder, train="train2").open()
    listing = folder / "ImageSets" / "Main" / "train.txt"
    listing.write_text("train_00\ntrain_00\n")
    with pytest.raises(DataError, match=r"names train_00 more than once"):
        VocSettings(path=folder).open()
    listing.write_text("\n")
    with pytest.raises(DataError, match=r"The list .*train\.txt is empty"):
        VocSettings(path=folder).open()
    listing.rename(listing.with_name("aeroplane_train.txt"))
    with pytest.raises(DataError, match=r"None of the lists aeroplane_train, test in .* training part"):
        VocSettings(path=folder).open()


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no folder JPEGImages"):
        VocSettings(path=tmp_path).open()
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(DataError, match=r"lists no image"):
        VocSettings(path=tmp_path).open()


def test_other_readers_see_the_same_images(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=3)
    plain = FolderSettings(path=folder / "JPEGImages").open().train
    assert list(plain.names) == list(train_of(folder).names)
    assert np.array_equal(plain.pixels(2), train_of(folder).pixels(2))


def test_an_unknown_encoding_is_refused(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=2)
    file = folder / "Annotations" / "train_01.xml"
    file.write_text('<?xml version="1.0" encoding="no-such-code"?>' + file.read_text())
    with pytest.raises(DataError, match=r"train_01\.xml is no annotation of Pascal VOC: .*no-such-code"):
        VocSettings(path=folder).open()


def test_an_annotation_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    folder = draw_set(tmp_path, train=2)
    os.truncate(folder / "Annotations" / "train_01.xml", 2**31)
    with pytest.raises(DataError, match=r"train_01\.xml .*it has more than 16777216 bytes"):
        VocSettings(path=folder).open()


@pytest.mark.parametrize("stem", ["../../outside", "/etc/passwd"])
def test_a_list_does_not_lead_out_of_the_folder(tmp_path: Path, stem: str) -> None:
    folder = draw_set(tmp_path / "set", train=2)
    annotate(tmp_path / "outside.xml", [], 64, 64)
    (folder / "ImageSets" / "Main" / "train.txt").write_text(f"train_00\n{stem}\n")
    with pytest.raises(DataError, match=f"names '{stem}', which leads out of it"):
        VocSettings(path=folder).open()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 300])
def test_a_list_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = draw_set(tmp_path, train=2)
    (folder / "ImageSets" / "Main" / "train.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"train\.txt cannot be read|1 of 1 images have no annotation"):
        VocSettings(path=folder).open()
