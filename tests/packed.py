"""The shared folder of pictures, packed: tar shards, parquet files, lists."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NUM_SHARDS = 3


def tar_bytes(files: Mapping[str, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:
    """An archive of these files."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=format) as opened:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def pictures(folder: Path) -> list[tuple[bytes, str]]:
    """Content and class of each picture, in the order of their names."""
    return [(path.read_bytes(), path.parent.name) for path in sorted(folder.glob("*/*.jpg"))]


def tar_shards(folder: Path) -> list[bytes]:
    """The pictures in shards as webdataset makes them, in order."""
    found = [
        {f"{number:03}.jpg": content, f"{number:03}.cls": class_name.encode()}
        for number, (content, class_name) in enumerate(pictures(folder))
    ]
    size = -(-len(found) // NUM_SHARDS)
    parts = [found[start : start + size] for start in range(0, len(found), size)]
    return [tar_bytes({name: file for sample in part for name, file in sample.items()}) for part in parts]


def parquet_bytes(
    images: Sequence[Any], labels: Sequence[Any] | None = None, *, rows: int = 7, described: bytes = b""
) -> bytes:
    """A parquet file with row groups of so many rows."""
    import pyarrow
    import pyarrow.parquet

    columns = {"image": list(images)} | ({} if labels is None else {"label": list(labels)})
    table = pyarrow.table(columns)
    if described:
        table = table.replace_schema_metadata({b"huggingface": described})
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, row_group_size=rows)
    return file.getvalue()


def structs(folder: Path) -> list[dict[str, object]]:
    """The pictures as Hugging Face's library stores them."""
    return [{"bytes": content, "path": f"{i}.jpg"} for i, (content, _) in enumerate(pictures(folder))]
