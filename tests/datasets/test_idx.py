import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from crosscontext.cli import main
from crosscontext.datasets import IdxSettings, from_text
from crosscontext.datasets.idx import read
from crosscontext.errors import EXIT_OK, DataError
from idx_files import lay_out_idx, write_idx

IMAGES = np.zeros((4, 28, 28))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_folder_of_idx_files_is_a_set_with_both_parts(tmp_path: Path, compressed: bool) -> None:
    lay_out_idx(tmp_path, compressed=compressed)
    assert from_text(str(tmp_path)) == {"name": "idx", "path": str(tmp_path)}
    train, test = IdxSettings(path=tmp_path).open()
    assert list(train.names) == ["train/000000", "train/000001", "train/000002", "train/000003"]
    assert train.image(3).getpixel((5, 5)) == (3, 3, 3)
    assert train.labels is not None
    assert [train.labels.class_names[number] for number in train.labels.classes] == ["9", "8", "7", "6"]
    assert test is not None
    assert list(test.names) == ["test/000000", "test/000001"]


def test_images_alone_are_enough(tmp_path: Path) -> None:
    write_idx(tmp_path / "train-images.idx3-ubyte", IMAGES)  # with a dot, as some mirrors have it
    train, test = IdxSettings(path=tmp_path).open()
    assert (len(train.names), train.labels, test) == (4, None, None)


def test_a_plain_file_goes_before_a_compressed_one(tmp_path: Path) -> None:
    write_idx(tmp_path / "train-images-idx3-ubyte", IMAGES)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"half a download")
    assert len(IdxSettings(path=tmp_path).open().train.names) == 4


def test_the_doctor_reads_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lay_out_idx(tmp_path)
    main(["doctor", "--data", str(tmp_path)])
    assert "4; 4 can be read" in capsys.readouterr().out


def test_they_are_a_value_of_data_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_out_idx(tmp_path)
    line = ["pretrain", "--data.name", "idx", "--data.path", str(tmp_path), "--out", "x", "--print-config"]
    assert main(line) == EXIT_OK
    assert "name: idx" in capsys.readouterr().out


HEADER = struct.pack(">HBB3I", 0, 8, 3, 4, 2, 2)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "it begins with , not with 00 00 08 03"),
        (b"\x89PNG" + bytes(20), "it begins with 89 50 4e 47"),
        (HEADER[:-2], "unpack requires"),
        (HEADER + bytes(15), "it announces 16 bytes and has 15"),
        (HEADER + bytes(17), "it announces 16 bytes and has more"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 28), "it announces"),
        (struct.pack(">HBB3I", 0, 8, 3, 0, 28, 28), "it announces 0 bytes"),
    ],
)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_damaged_file_is_refused_with_cause_and_remedy(
    tmp_path: Path, content: bytes, cause: str, ending: str
) -> None:
    file = tmp_path / f"train-images-idx3-ubyte{ending}"
    file.write_bytes(gzip.compress(content) if ending else content)
    with pytest.raises(DataError, match=rf"{file} is no whole IDX file: {cause}.*Fetch it again"):
        IdxSettings(path=tmp_path).open()


def test_half_a_compressed_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "train-images-idx3-ubyte.gz"
    write_idx(file, IMAGES)
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(DataError, match=r"no whole IDX file: .*Fetch it again"):
        IdxSettings(path=tmp_path).open()


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no file train-images-idx3-ubyte"):
        IdxSettings(path=tmp_path).open()
    lay_out_idx(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(3))
    with pytest.raises(DataError, match="has 3 classes, but there are 4 images beside it"):
        IdxSettings(path=tmp_path).open()
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(4))
    with pytest.raises(DataError, match="has a class 3, but the set has 2 classes"):
        read(tmp_path, ["cat", "dog"])
