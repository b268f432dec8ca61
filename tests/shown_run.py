"""A small run with scores, and the page that shows it."""

from pathlib import Path
from typing import Any

from crosscontext.evaluation import EvaluateSettings, evaluate
from crosscontext.page import ReportSettings, report
from crosscontext.pretraining import PretrainSettings, pretrain
from crosscontext.run_folder import RunFolder
from crosscontext.tracking import Progress

SETTINGS: dict[str, Any] = {
    "steps": 6,
    "batch_size": 12,
    "image_size": 16,
    "backbone": {"name": "resnet", "depth": 10, "width": 0.125},
    "method": {"name": "cgh", "memory": {"slots": 30}},
    "monitor": {"every": "1 steps", "images": 30},
    "log_every": "1 steps",
    "report": False,
    "threads": 1,
    "workers": 1,
}


def trained(data: Path | str, out: Path, progress: Progress | None = None, **changes: Any) -> RunFolder:
    """Train for a few steps."""
    return pretrain(
        PretrainSettings.model_validate({"data": data, "out": out} | SETTINGS | changes), progress
    )


def scored(run: RunFolder) -> None:
    """Add scores beside an untrained twin."""
    evaluate(
        EvaluateSettings.model_validate(
            {
                "run": run.path,
                "tasks": [{"name": "knn", "k": [20]}],
                "references": ["random"],
                "threads": 1,
                "cache": False,
            }
        )
    )


def page_of(run: RunFolder, **changes: Any) -> str:
    """Write the page, and read it."""
    usual = {"run": run.path, "threads": 1, "workers": 1}
    return report(ReportSettings.model_validate(usual | changes)).file.read_text(encoding="utf-8")
