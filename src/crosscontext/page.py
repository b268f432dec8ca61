"""A run on one page that needs nothing else: run folder, images → **page** → report.html.

Everything on it is a function of the files of the run, the images and the seed.
"""

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import jinja2
import torch
from pydantic import Field

from crosscontext.datasets import Dataset, DatasetSettings
from crosscontext.encoders import Encoder, load_encoder
from crosscontext.errors import CrossContextError, SettingsError
from crosscontext.floors import Level
from crosscontext.inspection import FEWEST_IMAGES, look_at
from crosscontext.layers import Layer, resolve
from crosscontext.machine import Device, choose_device, keep_memory
from crosscontext.methods.momentum import MomentumSettings
from crosscontext.page_parts import Metrics, contests_of, curves_of, facts_of, last_of, rise_of, score_rows
from crosscontext.page_pictures import DrawnViews, pictures_of
from crosscontext.planning import PretrainSettings
from crosscontext.preview import SHOWN_COPIES, copies
from crosscontext.results import Score, read_results
from crosscontext.run_folder import RunFolder, write_atomically
from crosscontext.settings import Settings, load_yaml
from crosscontext.tracking import read_metrics
from crosscontext.verdict import Evidence, judge
from crosscontext.views import ViewsSettings
from crosscontext.views import resolve as resolve_views

_ASSETS = Path(__file__).with_name("assets")
_AUTO_SECONDS, _AUTO_IMAGES, _UNTIMED_IMAGES = 10, (64, 1000), 256
_USUAL_STAGES = (-2, -1)
_SPEED = "time/images_per_second"


class ReportSettings(Settings):
    """Which run is shown, and with which images."""

    run: Path
    """Run folder that pretrain wrote."""

    data: DatasetSettings | None = None
    """Images to show, e.g. if those of the run have moved; their training part is taken."""

    out: Path | None = None
    """File to write; by default report.html in the run folder."""

    images: Literal["auto"] | Annotated[int, Field(ge=FEWEST_IMAGES, le=2000)] = "auto"
    """Images on the map, from 20 to 2000; auto: as many as the run saw in ten seconds, from 64 to 1000."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Decides which images are shown, and the weights of the untrained twin."""

    device: Device = "auto"
    """Where features are computed; auto: the first GPU, else the CPU."""

    threads: int | None = Field(None, ge=1)
    """CPU threads of the mathematics; by default all cores."""

    workers: int = Field(2, ge=0)
    """Threads that decode images; 0 counts as 1."""


class Report(Settings):
    """What stands at the top of a page."""

    file: Path
    """The page."""

    verdict: Level
    headline: str
    action: str
    """What to do next."""

    checks: tuple[dict[str, str], ...]
    """The rules one by one: name, level, found, action."""

    def __str__(self) -> str:
        """Say it in two lines."""
        return f"verdict: {self.verdict}. {self.headline} Next: {self.action}\nreport: {self.file}"


def report(settings: ReportSettings, notify: Callable[[str], None] = lambda _: None) -> Report:
    """Write the page of a run.

    Without the images there is a page without pictures, and a remark on it.

    Args:
        settings: see there.
        notify: is told in one line each what is being done, and what is missing.

    Raises:
        CheckpointError: there is no encoder, or it cannot be read.
        RunFolderError: the page cannot be written, or a line of results.jsonl is no score.
        SettingsError: the device is not there.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    keep_memory()
    folder = RunFolder(settings.run)
    device = choose_device(settings.device)
    encoder: Encoder = load_encoder(settings.run).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    metrics = read_metrics(folder.metrics)
    remarks: list[str] = []

    def remark(text: str) -> None:
        remarks.append(text)
        notify(text)

    saved = _saved(folder, remark)
    scores = _scores(folder, encoder, remark)
    dataset = _dataset(settings, saved, remark)
    views = _views(saved, encoder)
    stages = _stages(saved, encoder)
    found = None
    if dataset is not None:
        number = auto_images(metrics) if settings.images == "auto" else settings.images
        notify(f"looking at {min(number, len(dataset.names))} of {len(dataset.names)} images")
        try:
            found = look_at(encoder, dataset, views.settings, stages, number, settings.seed, settings.workers)
        except CrossContextError as error:
            remark(f"There are no pictures: {error}")
    skipped = len(folder.skipped.read_bytes().splitlines()) if folder.skipped.is_file() else 0
    monitored = min(saved.monitor.images, encoder.width) if saved is not None else encoder.width
    verdict = judge(
        Evidence(
            step=int(metrics[-1]["step"]) if metrics else encoder.card.step,
            total_steps=None if saved is None else saved.steps,
            images_seen=int(metrics[-1]["images"]) if metrics else None,
            spread=found.spread if found else last_of(metrics, "health/feature_std"),
            rankme=found.rankme if found else last_of(metrics, "health/rankme"),
            largest_rank=found.largest_rank if found else monitored,
            contests=[*contests_of(scores, "random"), *(found.contests if found else ())],
            pixels=next(
                iter([*contests_of(scores, "pixels"), *(found.against_pixels if found else ())]), None
            ),
            rise=rise_of(metrics),
            unreadable=skipped / len(dataset.names) if dataset is not None else 0.0,
        )
    )
    out = folder.report if settings.out is None else settings.out
    html = _render(
        title=folder.path.resolve().name,
        verdict=verdict,
        remarks=remarks,
        facts=facts_of(saved, encoder, metrics, folder),
        config=folder.config.read_text(encoding="utf-8") if folder.config.is_file() else "",
        curves=curves_of(metrics),
        score_rows=score_rows(scores),
        **({"found": None} if found is None else pictures_of(found, encoder, views, stages, settings.seed)),
    )
    write_atomically(out, lambda file: file.write(html.encode()))
    return Report(
        file=out,
        verdict=verdict.level,
        headline=verdict.headline,
        action=verdict.action,
        checks=tuple(check._asdict() for check in verdict.checks),
    )


def report_at_the_end(folder: RunFolder, device: Device, workers: int, say: Callable[[str], None]) -> None:
    """Write the page of a run that has just ended well; whatever goes wrong costs a line, not the run."""
    try:
        report(ReportSettings(run=folder.path, device=device, workers=workers))
    except Exception as error:
        cause = str(error).partition("\n")[0] or type(error).__name__
        say(f"The run is complete, but without report.html: {cause} Try: crosscontext report {folder.path}")


def auto_images(metrics: Metrics) -> int:
    """Choose how many images are looked at: as many as the run saw in ten seconds, from 64 to 1000."""
    speeds = [line[_SPEED] for line in metrics if _SPEED in line]
    if not speeds:
        return _UNTIMED_IMAGES
    fewest, most = _AUTO_IMAGES
    return min(max(round(_AUTO_SECONDS * median(speeds)), fewest), most)


def _saved(folder: RunFolder, remark: Callable[[str], None]) -> PretrainSettings | None:
    if not folder.config.is_file():
        remark(f"There is no {folder.config.name} in the run folder, so its settings are not known.")
        return None
    try:
        return resolve(PretrainSettings, [Layer(str(folder.config), load_yaml(folder.config))])
    except SettingsError as error:
        remark(f"The settings of the run cannot be read: {error}")
        return None


def _scores(folder: RunFolder, encoder: Encoder, remark: Callable[[str], None]) -> list[Score]:
    """Read the scores of these very weights, and of what they were compared with."""
    if not folder.results.is_file():
        return []
    scores, torn = read_results(folder.results)
    if torn:
        remark(f"Torn lines of {folder.results.name} are left out: {', '.join(map(str, torn))}.")
    digest = encoder.digest
    kept = [score for score in scores if score.model != "encoder" or score.checkpoint_digest == digest]
    if len(kept) < len(scores):
        remark(f"{len(scores) - len(kept)} scores of other weights than these are left out.")
    return kept


def _dataset(
    settings: ReportSettings, saved: PretrainSettings | None, remark: Callable[[str], None]
) -> Dataset | None:
    data = settings.data or (saved.data if saved is not None else None)
    if data is None:
        remark("There are no pictures: it is not known which images the run was made from. Give --data DIR.")
        return None
    try:
        return data.open().train
    except CrossContextError as error:
        remark(f"There are no pictures: {error} Say where the images are with --data DIR.")
        return None


def _views(saved: PretrainSettings | None, encoder: Encoder) -> DrawnViews:
    """Settle which views are shown, and how: as the run drew them, or one with this encoder would."""
    if saved is None:
        side = encoder.preprocessing.image_size
        shown = {name: SHOWN_COPIES[name] for name in ("weak", "strong")}
        return DrawnViews(resolve_views(ViewsSettings(), side), copies(shown), side)
    assert isinstance(saved.image_size, int), "the settings of a run are resolved"
    shown = {name: SHOWN_COPIES[name] for name, count in saved.method.view_counts.items() if count}
    return DrawnViews(saved.views, copies(shown), saved.image_size)


def _stages(saved: PretrainSettings | None, encoder: Encoder) -> tuple[int, ...]:
    """Stages of the hypercolumn: those of the method if it has one, else the last two."""
    if saved is not None and isinstance(saved.method, MomentumSettings):
        return saved.method.contexts.hyper_stages
    return _USUAL_STAGES[-len(encoder.backbone.stages) :]


def _render(**parts: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(parts)
