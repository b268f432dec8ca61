"""Self-supervised visual pretraining with cross-context learning.

The names below are loaded when they are first used; importing the package does nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crosscontext.comparison import CompareSettings, compare
    from crosscontext.encoders import Encoder, save_encoder
    from crosscontext.encoders import load_encoder as load
    from crosscontext.evaluation import EvaluateSettings, evaluate
    from crosscontext.features import extract
    from crosscontext.page import ReportSettings, report
    from crosscontext.planning import PretrainSettings
    from crosscontext.pretraining import pretrain
    from crosscontext.results import Score, read_results
    from crosscontext.studies import StudySettings, study

__all__ = [
    "CompareSettings",
    "Encoder",
    "EvaluateSettings",
    "PretrainSettings",
    "ReportSettings",
    "Score",
    "StudySettings",
    "compare",
    "evaluate",
    "extract",
    "load",
    "pretrain",
    "read_results",
    "report",
    "save_encoder",
    "study",
]

_HOMES = {
    "CompareSettings": "comparison:CompareSettings",
    "Encoder": "encoders:Encoder",
    "EvaluateSettings": "evaluation:EvaluateSettings",
    "PretrainSettings": "planning:PretrainSettings",
    "ReportSettings": "page:ReportSettings",
    "Score": "results:Score",
    "StudySettings": "studies:StudySettings",
    "compare": "comparison:compare",
    "evaluate": "evaluation:evaluate",
    "extract": "features:extract",
    "load": "encoders:load_encoder",
    "pretrain": "pretraining:pretrain",
    "read_results": "results:read_results",
    "report": "page:report",
    "save_encoder": "encoders:save_encoder",
    "study": "studies:study",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'crosscontext' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _HOMES[name].split(":")
    return getattr(import_module(f"crosscontext.{module}"), attribute)


def __dir__() -> list[str]:
    return __all__
