"""What an encoder is worth: a run and labelled images → **evaluation** → scores, also in `results.jsonl`.

Every task is also run on the references, under the same protocol: an encoder says nothing alone.
"""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import Field

from crosscontext.confidence import CONFIDENCE, RESAMPLES, interval, resample
from crosscontext.datasets import Annotation, Dataset, DatasetSettings
from crosscontext.encoders import Encoder, Preprocessing, load_encoder
from crosscontext.errors import SettingsError
from crosscontext.feature_store import FeatureStore
from crosscontext.layers import Layer, resolve
from crosscontext.machine import Device, choose_device, keep_memory
from crosscontext.references import Pixels, Reference, build_reference, name_of
from crosscontext.results import Score, append_results, digest, pack, shown
from crosscontext.run_folder import RunFolder
from crosscontext.settings import Settings, load_yaml
from crosscontext.splits import open_parts
from crosscontext.subjects import Subject
from crosscontext.tasks import KnnSettings, LinearSettings, Task, TaskSettings

_PLACES = {"path", "images", "annotation", "test_images", "test_annotation", "download"}  # of data sets


class EvaluateSettings(Settings):
    """Which encoder is scored, on which images, by which tasks."""

    run: Path
    """Run folder, or file of an encoder; scores are added to `results.jsonl` in the folder."""

    data: DatasetSettings | None = None
    """Annotated images: a folder with a sub-folder a class, one in the layout of Pascal VOC or COCO, or the
    name of a data set; by default those of the run."""

    test_data: DatasetSettings | None = None
    """Other labelled images that are scored; by default the test part of the data, or else a fixed fifth of
    them, chosen by a hash of the names."""

    tasks: tuple[TaskSettings, ...] = Field((KnnSettings(), LinearSettings()), min_length=1)
    """What is measured. On features: knn, linear, svm, cluster, retrieve, copies, health. With the network:
    linear_sgd, semi, finetune; detect, where images have boxes; segment, where they have masks."""

    references: tuple[Reference, ...] = ("pixels", "random")
    """What the encoder is compared with. pixels: the images themselves. random: the same backbone, untrained
    but for BatchNorm statistics. start: the weights that its pretraining started from. A path: another run or
    encoder file. timm:MODEL:FILE: a model of timm, by its name there, with the weights in a file."""

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

    cache: bool = True
    """Keep the features of the networks in the folder `features` beside the results, and use those kept there
    before; it does not change the scores."""


def evaluate(settings: EvaluateSettings, notify: Callable[[str], None] = lambda _: None) -> list[Score]:
    """Score an encoder and its references.

    Args:
        settings: see there.
        notify: is told in one line each what is being done and what came out.

    Returns:
        One score for each model, task and metric. They are in `results.jsonl` already.

    Raises:
        SettingsError: there is nothing to take the data from, a setting does not suit it, or there is no such
            reference.
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
    parts = open_parts(data, settings.test_data, annotation_of(settings.tasks))
    models = _models(settings, encoder, parts.train, folder)
    store = FeatureStore(folder.features if settings.cache else None, notify)
    classes = f" of {len(parts.class_names)} classes" if parts.class_names else ""
    numbers = f"{len(parts.train.names)} training and {len(parts.test.names)} test images"
    notify(f"{numbers}{classes} (test images: {parts.test_from})")
    conditions: dict[str, object] = {
        "preprocessing": {
            "image_size": encoder.preprocessing.image_size,
            "crop_fraction": encoder.preprocessing.crop_fraction,
            "colours": "as each model expects them",
        },
        "train": _identity(data, parts.train),
        "test": _identity(settings.test_data or data, parts.test),
        "test_from": parts.test_from,
        "seed": settings.seed,
        "interval": f"percentile bootstrap over the test images, {CONFIDENCE:.0%}, {RESAMPLES} resamples",
    }
    scores: list[Score] = []
    for name, model in models.items():
        subject = Subject(
            name, model, parts, settings.seed, settings.batch_size, settings.workers, store, notify
        )
        for task in settings.tasks:
            if task.takes_network and not subject.has_network:
                notify(f"{name}: no {task.name}, which needs a network")
                continue
            taken = _take(task, subject, conditions, notify)
            append_results(folder.results, taken)
            scores += taken
            for score in taken:
                notify(f"{name}: {score.task} {score.metric} {shown(score)}")
    return scores


def _take(
    task: Task, subject: Subject, conditions: Mapping[str, object], notify: Callable[[str], None]
) -> list[Score]:
    """Run one task on one model."""
    if not task.takes_network:
        parts = [subject.train, subject.test] if task.learns else [subject.test]
        if skipped := [name for features in parts for name in features.skipped]:
            named = ", ".join(skipped[:5])
            notify(f"{subject.name}: {len(skipped)} unreadable images are left out: {named}")
    started = time.perf_counter()
    measurements = list(task.judge(subject))
    seconds = time.perf_counter() - started
    protocol: dict[str, object] = {"task": task.protocol(), **conditions}
    preprocessing = subject.model.preprocessing.model_dump(mode="json")
    versions = {package: version(package) for package in ("crosscontext", "torch")}
    scores = []
    for measurement in measurements:
        replicates = resample(measurement.statistic, subject.seed)
        low, high = interval(replicates)
        scores.append(
            Score(
                task=task.name,
                model=subject.name,
                split="test",
                metric=measurement.metric,
                unit=measurement.unit,
                value=measurement.value,
                low=low,
                high=high,
                n=measurement.statistic.n,
                replicates=pack(replicates),
                seed=subject.seed,
                checkpoint_digest=subject.model.digest,
                protocol=protocol,
                protocol_digest=digest(protocol),
                details={**measurement.details, "preprocessing": preprocessing},
                versions={"python": platform.python_version(), **versions},
                seconds=seconds,
                created=datetime.now(UTC),
            )
        )
    return scores


def _models(
    settings: EvaluateSettings, encoder: Encoder, train: Dataset, folder: RunFolder
) -> dict[str, Encoder | Pixels]:
    """The encoder first, then the references; what cannot be built is known before anything is computed."""
    models: dict[str, Encoder | Pixels] = {"encoder": encoder}
    for reference in settings.references:
        name = name_of(reference)
        if name in models:
            raise SettingsError(
                f"Two models would be called {name} in the scores, the latter being {reference}. "
                "Leave one of them out, or rename its file or folder."
            )
        started_from = _start_of_run(folder) if reference == "start" else None
        models[name] = build_reference(
            reference, encoder, train, started_from, settings.seed, settings.workers
        )
    return models


def annotation_of(tasks: Sequence[Task]) -> Annotation:
    """Find the one kind of annotation that tasks read; "none" where they read none.

    Raises:
        SettingsError: they read several kinds.
    """
    reads: dict[Annotation, str] = {task.reads: task.name for task in tasks if task.reads != "none"}
    if len(reads) > 1:
        listed = ", ".join(f"{name} reads {annotation}" for annotation, name in reads.items())
        raise SettingsError(
            f"The tasks read different kinds of annotation ({listed}). Evaluate them in one command each."
        )
    return next(iter(reads), "none")


def _identity(data: DatasetSettings, dataset: Dataset) -> dict[str, object]:
    """Identify annotated images by settings, names and annotation, wherever they lie on the disk."""
    return {
        "settings": data.model_dump(mode="json", exclude=_PLACES),
        "images": len(dataset.names),
        "digest": dataset.annotation_digest(),
    }


def _encoder(settings: EvaluateSettings) -> Encoder:
    encoder = load_encoder(settings.run)
    if settings.image_size is not None:
        encoder = encoder.seeing(Preprocessing.for_size(settings.image_size))
    device = choose_device(settings.device)
    return encoder.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]


def _data_of_run(folder: RunFolder, run: Path) -> DatasetSettings:
    config = _config(folder)
    if "data" not in config:
        raise SettingsError(
            f"{folder.config} does not say which images the run was made from. "
            "Give labelled images with --data DIR."
        )
    data = resolve(EvaluateSettings, [Layer(str(folder.config), {"run": run, "data": config["data"]})]).data
    assert data is not None
    return data


def _start_of_run(folder: RunFolder) -> Path | None:
    """Weights file that pretraining started from; None where it was random, or nothing is known."""
    backbone = _config(folder).get("backbone")
    weights = backbone.get("weights") if isinstance(backbone, Mapping) else None
    return None if weights is None else Path(str(weights))


def _config(folder: RunFolder) -> dict[str, object]:
    return load_yaml(folder.config) if folder.config.exists() else {}
