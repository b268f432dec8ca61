import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from crosscontext.errors import SettingsError
from crosscontext.index_formats import FORMATS, Format, require_pyarrow
from small_index import content

HELD = content([[1.0, 2.0], [3.0, 4.0], [5.0, -6.0]], ["a b/ü.jpg", 'quote".png', "line\nbreak.png"])


@pytest.mark.parametrize("form", list(FORMATS))
def test_what_was_written_is_read(tmp_path: Path, form: Format) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    files = FORMATS[form].write(tmp_path, "0123abcd", HELD, "ffff")
    assert sorted(files.values()) == sorted(file.name for file in tmp_path.iterdir())
    found = FORMATS[form].read(tmp_path, files)
    assert found.images == HELD.images
    assert found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors, HELD.vectors)


def test_npy_and_lines_are_read_without_the_library(tmp_path: Path) -> None:
    files = FORMATS["npy"].write(tmp_path, "0123abcd", HELD, "ffff")
    np.testing.assert_array_equal(np.load(tmp_path / files["vectors"]), HELD.vectors)
    lines = (tmp_path / files["images"]).read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["a b/ü.jpg", 'quote".png', "line\nbreak.png"]
    assert json.loads(lines[0]).keys() == {"path", "sha256", "size", "modified_ns"}


def test_safetensors_are_read_without_the_library(tmp_path: Path) -> None:
    files = FORMATS["safetensors"].write(tmp_path, "0123abcd", HELD, "ffff")
    np.testing.assert_array_equal(load_file(tmp_path / files["vectors"])["vectors"], HELD.vectors)


def test_parquet_is_one_table_with_the_digest_of_the_model(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (file,) = FORMATS["parquet"].write(tmp_path, "0123abcd", HELD, "ffff").values()
    table = parquet.read_table(tmp_path / file)
    assert table.column_names == ["path", "sha256", "size", "modified_ns", "vector"]
    assert table.column("vector").to_pylist()[2] == [5.0, -6.0]
    assert table.schema.metadata[b"model_digest"] == b"ffff"


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SettingsError, match=r'pip install "crosscontext\[parquet\]"'):
        require_pyarrow()
