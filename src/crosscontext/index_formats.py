"""How the vectors of an index lie in files: images, vectors ↔ **index formats** ↔ a folder.

All of them can be read without this library; docs/image-index.md shows how. To add one: a class with `write`
and `read`, and its name in `Format` and `FORMATS`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from crosscontext.errors import SettingsError
from crosscontext.run_folder import write_atomically
from crosscontext.shapes import Float32

Format = Literal["npy", "safetensors", "parquet"]

UNREADABLE = (OSError, ValueError, TypeError, KeyError, SafetensorError)
"""What reading raises where files are missing, damaged or foreign."""

_VECTORS = "vectors"


class IndexedImage(NamedTuple):
    """One image of an index; its row is that of its vector."""

    path: str
    """Below the root of the index, with slashes."""

    sha256: str
    """Of the content of the file, 64 hexadecimal digits."""

    size: int
    """Of the file, in bytes."""

    modified_ns: int
    """Time of the last change of the file, in nanoseconds since 1970."""


class Content(NamedTuple):
    """What the files of an index hold."""

    images: tuple[IndexedImage, ...]

    vectors: Float32[np.ndarray, "N D"]


class FileFormat(Protocol):
    """One way to lay an index out in files."""

    def write(self, folder: Path, generation: str, content: Content, model_digest: str) -> dict[str, str]:
        """Write files whose names bear the generation; return what they hold → their names."""

    def read(self, folder: Path, files: Mapping[str, str]) -> Content:
        """Read them; whatever is wrong with them raises one of `UNREADABLE`."""


class Npy:
    """`vectors-….npy` of NumPy, and beside it `images-….jsonl`, one JSON object a row."""

    def write(self, folder: Path, generation: str, content: Content, model_digest: str) -> dict[str, str]:  # noqa: ARG002 (such files have no place for it)
        """Write both files; the digest stands in `index.json` alone."""
        file = f"vectors-{generation}.npy"
        write_atomically(folder / file, lambda opened: np.save(opened, content.vectors, allow_pickle=False))
        return {"images": _write_lines(folder, generation, content.images), "vectors": file}

    def read(self, folder: Path, files: Mapping[str, str]) -> Content:
        """Map the vectors into memory, so that only what is used of them is read."""
        vectors = np.load(folder / files["vectors"], mmap_mode="r", allow_pickle=False)
        return Content(_read_lines(folder / files["images"]), vectors)


class Safetensors:
    """`vectors-….safetensors` with the tensor `vectors`, and beside it `images-….jsonl`."""

    def write(self, folder: Path, generation: str, content: Content, model_digest: str) -> dict[str, str]:
        """Write both files; the digest also stands in the metadata of the tensor file."""
        file = f"vectors-{generation}.safetensors"
        whole = save({_VECTORS: np.ascontiguousarray(content.vectors)}, {"model_digest": model_digest})
        write_atomically(folder / file, lambda opened: opened.write(whole))
        return {"images": _write_lines(folder, generation, content.images), "vectors": file}

    def read(self, folder: Path, files: Mapping[str, str]) -> Content:
        """Read all vectors into memory."""
        with safe_open(folder / files["vectors"], "np") as opened:
            return Content(_read_lines(folder / files["images"]), opened.get_tensor(_VECTORS))


class Parquet:
    """One file `images-….parquet` with the columns path, sha256, size, modified_ns and vector."""

    def write(self, folder: Path, generation: str, content: Content, model_digest: str) -> dict[str, str]:
        """Write the table; the digest also stands in the metadata of its schema."""
        pa, parquet = require_pyarrow()
        file = f"images-{generation}.parquet"
        columns = {key: [getattr(image, key) for image in content.images] for key in IndexedImage._fields}
        values = pa.array(np.ascontiguousarray(content.vectors).ravel())
        columns["vector"] = pa.FixedSizeListArray.from_arrays(values, content.vectors.shape[1])
        table = pa.table(columns).replace_schema_metadata({"model_digest": model_digest})
        write_atomically(folder / file, lambda opened: parquet.write_table(table, opened))
        return {"images": file}

    def read(self, folder: Path, files: Mapping[str, str]) -> Content:
        """Read the whole table into memory."""
        _, parquet = require_pyarrow()
        table = parquet.read_table(folder / files["images"], partitioning=None)
        rows = zip(*(table.column(key).to_pylist() for key in IndexedImage._fields), strict=True)
        vectors = table.column("vector").combine_chunks()
        flat = vectors.flatten().to_numpy(zero_copy_only=False)
        return Content(tuple(IndexedImage(*row) for row in rows), flat.reshape(len(table), -1))


FORMATS: Mapping[Format, FileFormat] = {"npy": Npy(), "safetensors": Safetensors(), "parquet": Parquet()}


def require_pyarrow() -> tuple[Any, Any]:
    """Import what reads and writes Parquet, before anything is computed in vain.

    Returns:
        The modules `pyarrow` and `pyarrow.parquet`.

    Raises:
        SettingsError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SettingsError(
            "An index in the format parquet needs pyarrow, which is not installed: "
            'pip install "crosscontext[parquet]", or take --format npy.'
        ) from error
    return pyarrow, pyarrow.parquet


def _write_lines(folder: Path, generation: str, images: Sequence[IndexedImage]) -> str:
    file = f"images-{generation}.jsonl"
    lines = (json.dumps(image._asdict()).encode() + b"\n" for image in images)
    write_atomically(folder / file, lambda opened: opened.writelines(lines))
    return file


def _read_lines(file: Path) -> tuple[IndexedImage, ...]:
    with file.open(encoding="utf-8") as lines:
        return tuple(IndexedImage(**json.loads(line)) for line in lines)
