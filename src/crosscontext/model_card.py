"""What a stranger must know of an encoder: run folder, proof → **model card** → README.md."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import yaml

from crosscontext.backbones import described
from crosscontext.datasets import Dataset, DatasetSettings
from crosscontext.encoders import Encoder
from crosscontext.errors import CrossContextError, SettingsError
from crosscontext.formats import Manual
from crosscontext.layers import Layer, resolve
from crosscontext.parity import Parity
from crosscontext.planning import SESSION_FIELDS, PretrainSettings
from crosscontext.results import Score, read_results, shown
from crosscontext.run_folder import RunFolder
from crosscontext.settings import load_yaml
from crosscontext.tracking import read_metrics

CARD = "README.md"
"""File of the card."""

_ASSETS = Path(__file__).with_name("assets")
_UNSTATED = "not stated"


class Origin(NamedTuple):
    """Where an encoder comes from, as far as it is known."""

    title: str

    settings: PretrainSettings | None
    """Of the run."""

    images: Dataset | None
    """Training images, if they are still there."""

    images_seen: int | None
    """By the training; one that was seen twice counts twice."""

    unreadable: int
    """Training images that could not be decoded."""

    environment: Mapping[str, Any]
    """Versions and machine."""

    scores: Sequence[Score]
    """Of these very weights, the last one of each protocol and metric."""


def origin_of(run: Path, encoder: Encoder, notify: Callable[[str], None]) -> Origin:
    """Look up where an encoder comes from.

    Args:
        run: run folder, or file of an encoder, of which nothing is known.
        encoder: that lies there.
        notify: is told what is missing.

    Raises:
        RunFolderError: a line of results.jsonl is no score.
    """
    if not run.is_dir():
        return Origin(run.name.split(".")[0], None, None, None, 0, {}, ())
    folder = RunFolder(run)
    settings = _settings(folder, notify)
    metrics = read_metrics(folder.metrics)
    return Origin(
        title=run.resolve().name,
        settings=settings,
        images=None if settings is None else _images(settings, notify),
        images_seen=int(metrics[-1]["images"]) if metrics else None,
        unreadable=len(folder.skipped.read_bytes().splitlines()) if folder.skipped.is_file() else 0,
        environment=json.loads(folder.environment.read_text("utf-8")) if folder.environment.is_file() else {},
        scores=_scores(folder, encoder.digest),
    )


def told(data: DatasetSettings) -> str:
    """Name a data set in a few words, without telling where it lies."""
    named = data.model_dump(mode="json")
    if "dataset" in named:
        return str(named["dataset"])
    place = named.get("path") or named.get("shards") or named.get("images") or ""
    places = [Path(each).name for each in ([place] if isinstance(place, str) else place)]
    return " ".join([named["name"], *filter(None, places)])


def model_card(encoder: Encoder, origin: Origin, manual: Manual, parity: Parity, licence: str) -> str:
    """Write the card, in Markdown with the front matter of the Hugging Face Hub.

    Args:
        encoder: that was exported.
        origin: of it.
        manual: how the export is loaded.
        parity: the proof.
        licence: of the weights, or "not stated".
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_ASSETS),
        autoescape=False,  # Markdown; cells of tables go through the filter
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    return environment.get_template("model_card.md").render(
        front=_front_matter(origin, manual, licence),
        title=_cell(origin.title),
        encoder=encoder,
        backbone=described(encoder.backbone_settings),
        million_weights=sum(weight.numel() for weight in encoder.backbone.parameters()) / 1e6,
        origin=origin,
        data=None if origin.settings is None else told(origin.settings.data),
        recipe=None if origin.settings is None else _recipe(origin.settings),
        scores=[(score, shown(score), _images_of(score)) for score in origin.scores],
        manual=manual,
        parity=parity,
        licence=licence,
    )


def _settings(folder: RunFolder, notify: Callable[[str], None]) -> PretrainSettings | None:
    try:
        return resolve(PretrainSettings, [Layer(str(folder.config), load_yaml(folder.config))])
    except SettingsError as error:
        notify(f"the card does not tell the recipe: {error}")
        return None


def _images(settings: PretrainSettings, notify: Callable[[str], None]) -> Dataset | None:
    try:
        return settings.data.open().train
    except CrossContextError as error:
        notify(f"the card does not tell the number of training images: {error}")
        return None


def _scores(folder: RunFolder, digest: str) -> list[Score]:
    if not folder.results.is_file():
        return []
    own = [score for score in read_results(folder.results).scores if score.checkpoint_digest == digest]
    last = {(score.task, score.metric, score.split, score.protocol_digest): score for score in own}
    return list(last.values())


def _front_matter(origin: Origin, manual: Manual, licence: str) -> str:
    tags = ["self-supervised", "crosscontext"]
    if origin.settings is not None:
        tags.append(origin.settings.method.name)
    content = {
        **({} if licence == _UNSTATED else {"license": licence}),
        "library_name": manual.library,
        "pipeline_tag": "image-feature-extraction",
        "tags": tags,
    }
    if any(score.metric.startswith("top1") for score in origin.scores):
        content["metrics"] = ["accuracy"]  # as the hub spells it
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _recipe(settings: PretrainSettings) -> str:
    """Write the settings that decide the weights, without paths of the machine."""
    content = settings.model_dump(mode="json", exclude=set(SESSION_FIELDS))
    return yaml.safe_dump(_without_places(content), sort_keys=False, allow_unicode=True)


def _without_places(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_places(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_places(inner) for inner in value]
    is_place = isinstance(value, str) and (Path(value).is_absolute() or "://" in value)
    return Path(str(value)).name if is_place else value


def _images_of(score: Score) -> str:
    """Name the images that a score is about."""
    test = score.protocol.get("test")
    named = test.get("settings") if isinstance(test, dict) else None
    return str(named.get("dataset") or named.get("name")) if isinstance(named, dict) else ""


def _cell(text: object) -> str:
    """Keep text within one cell of a table, or within one line."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")
