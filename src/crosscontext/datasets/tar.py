"""Tar shards in webdataset's layout, read at any place: paths or URLs → **tar** → images and labels."""

import hashlib
import json
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from crosscontext.datasets.contract import Labels, Splits
from crosscontext.datasets.decoding import LARGEST_FILE
from crosscontext.datasets.encoded import EncodedImages
from crosscontext.datasets.labelling import all_or_none, number_classes
from crosscontext.datasets.sources import Location, Source, open_sources, short_names
from crosscontext.datasets.tar_index import Sample, read_sample, samples_of
from crosscontext.settings import AbsolutePath, Settings

ENDING = ".tar"


class TarSettings(Settings):
    """Plain tar files that hold `KEY.jpg` and perhaps `KEY.cls`, as webdataset makes them."""

    name: Literal["tar"] = "tar"
    """Tar files of images."""

    shards: tuple[Location, ...] = Field(min_length=1)
    """The files: paths or URLs (s3://bucket/train-*.tar), also with wildcards. Each image is a sample; its
    class is the text of `KEY.cls`, or `label` in `KEY.json`."""

    test_shards: tuple[Location, ...] = ()
    """Files of the test part; without any, the set has none."""

    index: AbsolutePath | None = None
    """Folder that keeps what lies where in each shard, with a checksum an image: made once, which reads each
    shard as a whole. Without it headers are read at each start, and nothing is written."""

    def open(self) -> Splits:
        """Look through the shards, or through their indices; no image is decoded yet.

        Raises:
            DataError: a shard is missing, truncated, damaged, compressed, has no images, or holds links or
                names that lead out of it; only some images have a class.
        """
        sources = [open_sources(self.shards), open_sources(self.test_shards)]
        names = iter(short_names([source for part in sources for source in part]))
        parts = [
            [_Shard(name, source, samples_of(source, name, self.index)) for source, name in zip(part, names)]  # noqa: B905
            for part in sources
        ]
        classes = [_classes(part) for part in parts]
        train, test = (_dataset(*each) for each in zip(parts, number_classes(classes), strict=True))
        return Splits(train, test if self.test_shards else None)


class _Shard(NamedTuple):
    name: str
    source: Source
    samples: Sequence[Sample]


def _classes(shards: Sequence[_Shard]) -> list[str] | None:
    samples = [sample for shard in shards for sample in shard.samples]
    where = " and ".join(shard.name for shard in shards[:2]) + (", …" if len(shards) > 2 else "")
    return all_or_none([sample.class_name for sample in samples], [sample.name for sample in samples], where)


def _dataset(shards: Sequence[_Shard], labels: Labels | None) -> EncodedImages:
    places = [(shard.source, sample) for shard in shards for sample in shard.samples]
    names = [f"{shard.name}/{sample.name}" for shard in shards for sample in shard.samples]

    def read(index: int) -> bytes:
        source, sample = places[index]
        if sample.size > LARGEST_FILE:
            raise ValueError(f"it has {sample.size} bytes, more than {LARGEST_FILE}")
        return read_sample(source, sample)

    known = [
        [shard.name, shard.samples if _has_checksums(shard) else shard.source.identity] for shard in shards
    ]
    return EncodedImages(names, labels, read, hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16])


def _has_checksums(shard: _Shard) -> bool:
    return all(sample.checksum is not None for sample in shard.samples)
