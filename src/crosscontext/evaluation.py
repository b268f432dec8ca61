"""What an encoder is worth: a run and labelled images → **evaluation** → scores, also in `results.jsonl`.

Every task is also run on the references, under the same protocol: an encoder says nothing alone.
"""

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import Field

from crosscontext.datasets import DatasetSettings
from crosscontext.encoders import Encoder, Preprocessing, load_encoder
from crosscontext.errors import SettingsError
from crosscontext.features import FeatureModel, Features, extract
from crosscontext.layers import Layer, resolve
from crosscontext.machine import Device, choose_device, keep_memory
from crosscontext.references import Pixels, random_twin
from crosscontext.results import CONFIDENCE, RESAMPLES, Score, append_results, bootstrap_interval, digest
from crosscontext.run_folder import RunFolder
from crosscontext.settings import Settings, load_yaml
from crosscontext.splits import LabelledSplits, open_labelled
from crosscontext.tasks import KnnSettings, LinearSettings, Task, TaskSettings

Reference = Literal["pixels", "random"]


class EvaluateSettings(Settings):
    """Which encoder is scored, on which images, by which tasks."""

    run: Path
    """Run folder, or file of an encoder; scores are added to `results.jsonl` in the folder."""

    data: DatasetSettings | None = None
    """Labelled images: a folder with a sub-folder a class, or the name of a data set; by default those of the
    run."""

    test_data: DatasetSettings | None = None
    """Other labelled images that are scored; by default the test part of the data, or else a fixed fifth of
    them, chosen by a hash of the names."""

    tasks: tuple[TaskSettings, ...] = Field((KnnSettings(), LinearSettings()), min_length=1)
    """What is measured: knn, linear."""

    references: tuple[Reference, ...] = ("pixels", "random")
    """What the encoder is compared with. pixels: the images themselves. random: the same backbone, untrained
    but for BatchNorm statistics."""

    image_size: int | None = Field(None, ge=8)
    """Side of the images in pixels; by default that of the run."""

    batch_size: int = Field(256, ge=1)
    """Images loaded at once; it does not change the scores."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Decides the held-out images, the untrained weights and the resampling."""

    device: Device = "auto"
    """Where features are computed; auto: the first GPU, else the CPU."""

    threads: int | None = Field(None, ge=1)
    """CPU threads of the mathematics; by default all cores."""

    workers: int = Field(2, ge=0)
    """Threads that decode images; 0 counts as 1."""


def evaluate(settings: EvaluateSettings, notify: Callable[[str], None] = lambda _: None) -> list[Score]:
    """Score an encoder and its references.

    Args:
        settings: see there.
        notify: is told in one line each what is being done and what came out.

    Returns:
        One score for each model, task and metric. They are in `results.jsonl` already.

    Raises:
        SettingsError: there is nothing to take the data from, or a setting does not suit it.
        DataError: images or labels are missing, or the classes of the two parts differ.
        CheckpointError: there is no encoder, or it cannot be read.
        RunFolderError: the scores cannot be written.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    keep_memory()
    encoder = _encoder(settings)
    folder = RunFolder(settings.run if settings.run.is_dir() else settings.run.parent)
    data = settings.data or _data_of_run(folder, settings.run)
    splits = open_labelled(data, settings.test_data)
    notify(
        f"{len(splits.train.names)} training and {len(splits.test.names)} test images of "
        f"{len(splits.class_names)} classes (test images: {splits.test_from})"
    )
    scores: list[Score] = []
    for name, model in _models(settings, encoder, splits):
        notify(f"{name}: computing features")
        train = extract(model, splits.train, settings.batch_size, settings.workers)
        test = extract(model, splits.test, settings.batch_size, settings.workers)
        if skipped := [*train.skipped, *test.skipped]:
            notify(f"{name}: {len(skipped)} unreadable images are left out: {', '.join(skipped[:5])}")
        conditions: dict[str, object] = {
            "preprocessing": encoder.preprocessing.model_dump(mode="json"),
            "train": _identity(data, train, splits),
            "test": _identity(settings.test_data or data, test, splits),
            "test_from": splits.test_from,
            "interval": f"percentile bootstrap, {CONFIDENCE:.0%}, {RESAMPLES} resamples",
        }
        subject = _Subject(name, model.digest, train, test, conditions)
        for task in settings.tasks:
            taken = _take(task, subject, settings.seed)
            append_results(folder.results, taken)
            scores += taken
            for score in taken:
                interval = f"[{score.low:.2%}, {score.high:.2%}]"
                notify(f"{name}: {score.task} {score.metric} {score.value:.2%} {interval}")
    return scores


class _Subject(NamedTuple):
    """A model with its features."""

    name: str
    digest: str
    train: Features
    test: Features
    conditions: dict[str, object]
    """What must be equal, beside the task, for two scores to be comparable."""


def _take(task: Task, subject: _Subject, seed: int) -> list[Score]:
    """Run one task on one model."""
    started = time.perf_counter()
    measurements = list(task.measure(subject.train, subject.test, seed))
    seconds = time.perf_counter() - started
    protocol: dict[str, object] = {"task": task.model_dump(mode="json"), **subject.conditions}
    versions = {package: version(package) for package in ("crosscontext", "torch")}
    scores = []
    for measurement in measurements:
        low, high = bootstrap_interval(measurement.right, seed)
        scores.append(
            Score(
                task=task.name,
                model=subject.name,
                split="test",
                metric=measurement.metric,
                value=float(measurement.right.double().mean()),
                low=low,
                high=high,
                n=len(measurement.right),
                seed=seed,
                checkpoint_digest=subject.digest,
                protocol=protocol,
                protocol_digest=digest(protocol),
                details=measurement.details,
                versions={"python": platform.python_version(), **versions},
                seconds=seconds,
                created=datetime.now(UTC),
            )
        )
    return scores


def _models(
    settings: EvaluateSettings, encoder: Encoder, splits: LabelledSplits
) -> Iterator[tuple[str, FeatureModel]]:
    """The encoder first, then the references, each built when it is its turn."""
    yield "encoder", encoder
    for reference in settings.references:
        if reference == "pixels":
            yield reference, Pixels(encoder.preprocessing)
        else:
            yield reference, random_twin(encoder, splits.train, settings.seed, settings.workers)


def _identity(data: DatasetSettings, features: Features, splits: LabelledSplits) -> dict[str, object]:
    """Identify labelled images by settings, names and classes, wherever they lie on the disk."""
    assert features.classes is not None
    listed = json.dumps([splits.class_names, features.names, features.classes.tolist()])
    return {
        "settings": data.model_dump(mode="json", exclude={"path", "download"}),
        "images": len(features.names),
        "digest": hashlib.sha256(listed.encode()).hexdigest()[:16],
    }


def _encoder(settings: EvaluateSettings) -> Encoder:
    encoder = load_encoder(settings.run)
    if settings.image_size is not None:
        crop_fraction = Preprocessing.for_size(settings.image_size).crop_fraction
        size = {"image_size": settings.image_size, "crop_fraction": crop_fraction}
        preprocessing = encoder.preprocessing.model_copy(update=size)
        encoder = Encoder(encoder.backbone, encoder.card.model_copy(update={"preprocessing": preprocessing}))
    device = choose_device(settings.device)
    return encoder.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]


def _data_of_run(folder: RunFolder, run: Path) -> DatasetSettings:
    config = load_yaml(folder.config) if folder.config.exists() else {}
    if "data" not in config:
        raise SettingsError(
            f"{folder.config} does not say which images the run was made from. "
            "Give labelled images with --data DIR."
        )
    data = resolve(EvaluateSettings, [Layer(str(folder.config), {"run": run, "data": config["data"]})]).data
    assert data is not None
    return data
