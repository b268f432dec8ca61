"""The doors through which foreign bytes enter, each with examples: what a fuzzer knocks at."""

import gzip
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch.optim import Optimizer

from crosscontext.backbones import ResNetSettings
from crosscontext.checkpoints import load_checkpoint, save_checkpoint
from crosscontext.commandline import Verb, parse
from crosscontext.contexts import ContextSettings
from crosscontext.datasets import (
    CocoSettings,
    IdxSettings,
    ListSettings,
    ParquetSettings,
    TarSettings,
    VocSettings,
)
from crosscontext.datasets.contract import Splits
from crosscontext.datasets.decoding import decode, decode_numbers, decode_pixels
from crosscontext.encoders import load_encoder
from crosscontext.errors import CrossContextError
from crosscontext.evaluation import EvaluateSettings
from crosscontext.layers import Layer, resolve
from crosscontext.memory import MemorySettings
from crosscontext.methods import Method, MoCoSettings
from crosscontext.optimizers import OptimizerSettings
from crosscontext.pretraining import PretrainSettings
from crosscontext.run_folder import RunFolder
from crosscontext.schedules import Plan
from crosscontext.settings import load_yaml
from crosscontext.weights import read_weights
from packed import parquet_bytes, tar_bytes

SIDE = 12


class Door(NamedTuple):
    """One way in."""

    examples: list[bytes]
    enter: Callable[[Path], object]
    """Takes what lies in a file; only errors of the package may come out."""

    file: str = "input"


def pixels(mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def encoded(format: str, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    pixels(mode).save(file, format, **options)
    return file.getvalue()


def _decode(file: Path) -> None:
    content = file.read_bytes()
    faults: list[CrossContextError] = []
    for read in (decode_pixels, decode, decode_numbers, lambda b, n: decode_pixels(b, n, lambda *_: 4)):
        try:
            found = np.asarray(read(content, "input"))
            assert found.dtype == np.uint8
            assert min(found.shape) > 0
        except CrossContextError as fault:
            faults.append(fault)
    if faults:
        raise faults[0]


def _look(splits: Splits) -> None:
    """Read the first images of a set, as training would."""
    faults: list[CrossContextError] = []
    for index in range(min(3, len(splits.train.names))):
        try:
            splits.train.pixels(index)
        except CrossContextError as fault:
            faults.append(fault)
    if faults:
        raise faults[0]


def _settings(file: Path) -> None:
    values = load_yaml(file)
    for kind in (PretrainSettings, EvaluateSettings):
        resolve(kind, [Layer(str(file), values)])


def _arguments(file: Path) -> None:
    words = file.read_bytes().decode(errors="replace").split()
    line = parse(words, Verb("", "", PretrainSettings))
    resolve(PretrainSettings, line.layers)


def _voc(file: Path) -> None:
    _look(VocSettings(path=file.parents[1]).open())


def _pytorch(content: object, **options: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def _card(weights: dict[str, torch.Tensor]) -> bytes:
    card = {
        "format_version": 1,
        "backbone": {"name": "resnet", "depth": 10, "width": 0.0625, "stem": "small"},
        "preprocessing": {"image_size": 16},
        "made_by": "a fuzzer",
        "step": 0,
    }
    return save(weights, {"crosscontext": json.dumps(card)})


def _training() -> tuple[Method, Optimizer]:
    settings = MoCoSettings(memory=MemorySettings(slots=8), contexts=ContextSettings(hidden_width=4))
    backbone = ResNetSettings(depth=10, width=0.0625, stem="small").build()
    method = settings.resolve(64).build(backbone, Plan(64, 8, total_steps=4))
    return method, OptimizerSettings().build(method.student)


def doors(folder: Path) -> dict[str, Door]:
    """Lay out a place to fuzz in, and the examples; the files of the examples have two images."""
    annotations = folder / "voc" / "Annotations"
    (folder / "voc" / "JPEGImages").mkdir(parents=True)
    annotations.mkdir()
    for name in ("idx", "idx-gz"):
        (folder / name).mkdir()
    RunFolder(folder).checkpoint.parent.mkdir()
    for name in ("a.jpg", "b.jpg"):
        pixels().save(folder / "voc" / "JPEGImages" / name)
        pixels().save(folder / name)
    other = (
        "<annotation><size><width>12</width><height>12</height></size><object><name>cat</name>"
        "<difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>10</ymax></bndbox>"
        "</object></annotation>"
    )
    (annotations / "b.xml").write_text(other)
    jpeg, png = encoded("JPEG"), encoded("PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    images = [
        jpeg, png, encoded("JPEG", progressive=True), encoded("JPEG", exif=exif), encoded("JPEG", "CMYK"),
        encoded("PNG", "P"), encoded("PNG", "LA"), encoded("PNG", "1"), encoded("WEBP"), encoded("BMP"),
        encoded("WEBP", lossless=True), encoded("TIFF"), encoded("TIFF", compression="tiff_lzw"),
        encoded("TIFF", compression="jpeg"), encoded("PPM"), encoded("PPM", "1"),
        encoded("GIF", "P", save_all=True, append_images=[pixels("L")]), encoded("TIFF", "F"),
    ]  # fmt: skip
    coco = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 12, "height": 12},
            {"id": 2, "file_name": "b.jpg", "width": 12, "height": 12},
        ],
        "annotations": [{"image_id": 1, "category_id": 5, "bbox": [1, 2, 5, 6], "iscrowd": 0}],
        "categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}],
    }
    files = {"a.jpg": jpeg, "a.cls": b"cat", "b.png": png, "b.json": b'{"label": "dog"}', "c.txt": b"hello"}
    long = {"folder/" * 30 + name: content for name, content in files.items()}
    archives = [tar_bytes(files), tar_bytes(long, 1), tar_bytes(long, 2), tar_bytes({"x/ä.jpg": jpeg}, 2)]
    rows = [{"bytes": jpeg, "path": "a"}, {"bytes": png, "path": None}]
    yaml = [
        b"data: shapes\nout: runs/x\nepochs: 3\nmethod: cgh\n",
        b"data: {name: folder, path: /nowhere}\nout: x\nsteps: 5\nmethod: {name: moco, memory: {slots: 8}}\n",
        b"run: runs/x\ndata: {name: tar, shards: [a.tar, 's3://b/*.tar']}\ntasks: [knn, {name: linear}]\n",
        b"views: {weak: {crop: [0.2, 1.0]}}\nseed: 0x1\nout: 2020-01-01\nbackbone: resnet18\nworkers: auto\n",
    ]
    arguments = [
        b"--data shapes --out x --epochs 3 --method.momentum 0.9 --backbone resnet18 --backbone.width=0.5",
        b"--data x/*.tar --data.name tar --tasks [{name: knn}] --no-compile --method cgh --method.pairs a->b",
    ]
    weights = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}
    states = [
        _pytorch(weights),
        _pytorch({"state_dict": weights, "epoch": 3}),
        _pytorch(weights, _use_new_zipfile_serialization=False),
    ]

    method, optimizer = _training()
    save_checkpoint(RunFolder(folder), method, optimizer, 3)
    checkpoint = RunFolder(folder).checkpoint

    def shards(file: Path) -> None:
        _look(TarSettings(shards=(str(file),)).open())

    def index(file: Path) -> None:
        found = TarSettings(shards=(str(folder / "kept.tar"),), index=folder / "index").open()
        _look(found)

    (folder / "kept.tar").write_bytes(archives[0])
    TarSettings(shards=(str(folder / "kept.tar"),), index=folder / "index").open()
    kept = folder / "index" / "kept.tar.index.json"

    def annotation(file: Path) -> None:
        _look(CocoSettings(images=folder, annotation=file).open())

    return {
        "settings": Door(yaml, _settings, "recipe.yaml"),
        "arguments": Door(arguments, _arguments),
        "images": Door(images, _decode),
        "tar": Door(archives, shards, "shard.tar"),
        "tar index": Door([kept.read_bytes()], index, str(kept.relative_to(folder))),
        "parquet": Door(
            [parquet_bytes(rows, [0, 1]), parquet_bytes([jpeg, png], ["x", "y"], rows=1)],
            lambda file: _look(ParquetSettings(shards=(str(file),)).open()),
            "rows.parquet",
        ),
        "list": Door(
            [b"a.jpg\tx\nb.jpg\ty\n", b"a.jpg\r\nb.jpg"], lambda f: _look(ListSettings(path=f).open())
        ),
        "idx": Door(
            [b"\0\0\x08\x03" + struct.pack(">3I", 2, 3, 3) + bytes(range(18))],
            lambda file: _look(IdxSettings(path=file.parent).open()),
            "idx/train-images-idx3-ubyte",
        ),
        "idx, compressed": Door(
            [gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 2, 3, 3) + bytes(range(18)), mtime=0)],
            lambda file: _look(IdxSettings(path=file.parent).open()),
            "idx-gz/train-images-idx3-ubyte.gz",
        ),
        "voc": Door([other.encode()], _voc, "voc/Annotations/a.xml"),
        "coco": Door([json.dumps(coco).encode()], annotation, "coco.json"),
        "pytorch": Door(states, read_weights, "weights.pth"),
        "checkpoint": Door(
            [checkpoint.read_bytes()],
            lambda _: load_checkpoint(RunFolder(folder), method, optimizer),
            str(checkpoint.relative_to(folder)),
        ),
        "safetensors": Door([save(weights)], read_weights, "weights.safetensors"),
        "encoder": Door([_card(weights)], load_encoder, "encoder.safetensors"),
    }


def bomb_of_zeros(side: int) -> bytes:
    """A small PNG of side × side pixels."""
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side + 1) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
