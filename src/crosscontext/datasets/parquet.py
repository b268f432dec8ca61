"""Hugging Face's parquet files: a column of encoded images, perhaps one of classes → **parquet** → images."""

import hashlib
import json
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, Final, Literal, NamedTuple

from pydantic import Field

from crosscontext.datasets.contract import Splits
from crosscontext.datasets.encoded import EncodedImages
from crosscontext.datasets.labelling import all_or_none, number_classes
from crosscontext.datasets.sources import Location, Source, open_sources, short_names
from crosscontext.errors import DataError
from crosscontext.settings import Settings

ENDING = ".parquet"
_LARGEST_GROUP: Final = 2**30  # bytes of a row group, which is read as a whole
_BYTES_KEPT: Final = 2**28  # of the row groups that were read last
_LABEL: Final = "label"
_UNLABELLED: Final = -1


class ParquetSettings(Settings):
    """Parquet files with a column of encoded images, as Hugging Face keeps data sets."""

    name: Literal["parquet"] = "parquet"
    """Parquet files with a column of images."""

    shards: tuple[Location, ...] = Field(min_length=1)
    """The files: paths or URLs, also with wildcards. To read one image, its row group is read: groups of
    some hundred rows train fast, larger ones slowly."""

    test_shards: tuple[Location, ...] = ()
    """Files of the test part; without any, the set has none."""

    image_column: str = "image"
    """Column of the images: bytes of image files, or structs with an entry `bytes`."""

    label_column: str | None = None
    """Column of the classes, numbers or texts; by default `label` where there is one."""

    def open(self) -> Splits:
        """Read what the files say of themselves, and the classes; no image is read yet.

        Raises:
            DataError: pyarrow is not installed, a file is missing or damaged, a column is missing or of
                another type, a row group is too large, or only some images have a class.
        """
        sources = [open_sources(self.shards), open_sources(self.test_shards)]
        names = iter(short_names([source for part in sources for source in part]))
        parts = [[_File(name, source, self) for source, name in zip(part, names)] for part in sources]  # noqa: B905
        image_names = [[name for file in part for name in file.names] for part in parts]
        classes = [
            all_or_none([known for file in part for known in file.class_names(self)], each, part[0].name)
            if part
            else None
            for part, each in zip(parts, image_names, strict=True)
        ]
        train, test = (
            EncodedImages(each, labels, _Rows(part).read, _fingerprint(part))
            for each, labels, part in zip(image_names, number_classes(classes), parts, strict=True)
        )
        return Splits(train, test if self.test_shards else None)


class _Group(NamedTuple):
    """A row group."""

    file: "_File"
    number: int
    num_rows: int


class _File:
    """One parquet file, of which the description is kept, and which is opened anew for each reading."""

    def __init__(self, name: str, source: Source, settings: ParquetSettings) -> None:
        self.name, self.source = name, source
        pyarrow = _pyarrow()
        with self.mending():
            with source.open() as opened:
                reader = pyarrow.parquet.ParquetFile(opened)
                self.metadata, self.schema = reader.metadata, reader.schema_arrow
            groups = [self.metadata.row_group(number) for number in range(self.metadata.num_row_groups)]
            sizes = [(group.num_rows, group.total_byte_size) for group in groups]
        num_rows = sum(rows for rows, _ in sizes)
        if not 0 < num_rows <= source.size or any(
            rows < 0 or not 0 <= size <= _LARGEST_GROUP for rows, size in sizes
        ):
            largest = max((size for _, size in sizes), default=0)
            raise DataError(
                f"{source.name!r} says that it has {num_rows} rows in groups of up to {largest} bytes, in a "
                f"file of {source.size} bytes; expected at least one row, and groups of at most "
                f"{_LARGEST_GROUP} bytes. Write it again, e.g. with row_group_size=100."
            )
        self.groups = [_Group(self, number, rows) for number, (rows, _) in enumerate(sizes)]
        self.names = [f"{name}/{row:06d}" for row in range(num_rows)]
        self.image_column = self._image_column(settings.image_column)

    def _image_column(self, name: str) -> str:
        """Settle the leaf that is read: the bytes alone, without the paths beside them."""
        types = _pyarrow().types
        kind = self.schema.field(name).type if self.schema.names.count(name) == 1 else None
        path = name
        if kind is not None and types.is_struct(kind):
            path = f"{name}.bytes"
            kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else None
        if kind is None or not (types.is_binary(kind) or types.is_large_binary(kind)):
            columns = ", ".join(f"{field.name} ({str(field.type)[:60]})" for field in self.schema)
            raise DataError(
                f"{self.source.name!r} has no column {name!r} of bytes, or of structs with bytes; there are "
                f"{columns}. Name the column of the images with --data.image-column."
            )
        return path

    def class_names(self, settings: ParquetSettings) -> list[str | None]:
        """Read the class of each row, None where it has none."""
        column = settings.label_column or _LABEL
        if column not in self.schema.names:
            if settings.label_column is not None:
                raise DataError(
                    f"{self.source.name!r} has no column {column!r}; there are "
                    f"{', '.join(self.schema.names)}. Name the column of the classes "
                    "with --data.label-column, or leave it out."
                )
            return [None] * len(self.names)
        with self.mending(), self.source.open() as opened:
            reader = _pyarrow().parquet.ParquetFile(opened, metadata=self.metadata)
            values = reader.read(columns=[column]).column(column).to_pylist()
        if len(values) != len(self.names) or not all(isinstance(value, int | str | None) for value in values):
            raise DataError(
                f"the column {column!r} of {self.source.name!r} holds more than one number or text a row. "
                "Name another one with --data.label-column."
            )
        known = self._known_classes(column)
        return [None if value in (None, _UNLABELLED) else known.get(value, str(value)) for value in values]

    def _known_classes(self, column: str) -> dict[int, str]:
        """Read the names of numbered classes off the description that Hugging Face's library leaves."""
        try:
            described = json.loads((self.schema.metadata or {})[b"huggingface"])
            names = [str(name) for name in described["info"]["features"][column]["names"]]
        except (KeyError, TypeError, ValueError, RecursionError):
            return {}
        return dict(enumerate(names)) if len(set(names)) == len(names) else {}

    def read(self, group: int) -> Any:
        """Read the images of a row group: an Arrow array."""
        with self.source.open() as opened:
            reader = _pyarrow().parquet.ParquetFile(opened, metadata=self.metadata)
            return reader.read_row_group(group, columns=[self.image_column]).column(0)

    @contextmanager
    def mending(self) -> Iterator[None]:
        """Name the file in whatever goes wrong while it is opened."""
        try:
            yield
        except Exception as cause:  # Arrow, the disk and the network raise errors of their own
            raise DataError(
                f"cannot read {self.source.name!r} as parquet: {type(cause).__name__}: {cause}. Fetch or "
                "make it again."
            ) from cause


class _Rows:
    """The images of a part, row by row; the row groups that were read last stay in memory."""

    def __init__(self, files: Sequence[_File]) -> None:
        self._groups = [group for file in files for group in file.groups if group.num_rows]
        self._ends = list(accumulate(group.num_rows for group in self._groups))
        self._kept: dict[int, Any] = {}
        self._lock = threading.Lock()  # one group at a time: what is read is large

    def read(self, index: int) -> bytes:
        """Read the bytes of one image.

        Raises:
            ValueError: there are none.
        """
        number = bisect_right(self._ends, index)
        group = self._groups[number]
        with self._lock:
            images = self._kept.pop(number, None)
            if images is None:
                images = group.file.read(group.number)
            self._kept[number] = images  # behind the others: it was asked for last
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > _BYTES_KEPT:
                del self._kept[next(iter(self._kept))]
        if len(images) != group.num_rows:
            raise ValueError(f"its row group has {len(images)} rows instead of {group.num_rows}")
        value = images[index - self._ends[number] + group.num_rows].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise ValueError("its row holds no bytes; files that are only named are not looked for")
        return content


def _fingerprint(files: Sequence[_File]) -> str:
    known = [[file.name, file.source.identity, file.image_column, len(file.names)] for file in files]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
        import pyarrow.types
    except ImportError as error:
        raise DataError(
            'Parquet files need pyarrow, which is not installed: pip install "crosscontext[parquet]".'
        ) from error
    return pyarrow
