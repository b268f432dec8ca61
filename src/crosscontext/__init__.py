"""Self-supervised visual pretraining with cross-context learning.

The names below are loaded when they are first used; importing the package does nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crosscontext.comparison import CompareSettings, compare
    from crosscontext.conversion import ConvertSettings, convert
    from crosscontext.duplicates import DedupeSettings, dedupe
    from crosscontext.embedding import EmbedSettings, embed
    from crosscontext.encoders import Encoder, save_encoder
    from crosscontext.encoders import load_encoder as load
    from crosscontext.estimator import CrossContextEncoder
    from crosscontext.evaluation import EvaluateSettings, evaluate
    from crosscontext.examination import DoctorSettings, Examination, doctor
    from crosscontext.exporting import ExportSettings, export
    from crosscontext.features import extract
    from crosscontext.forecasting import PlanSettings, plan
    from crosscontext.image_index import open_index
    from crosscontext.labelling import LabelSettings, label
    from crosscontext.outlying import OutliersSettings, outliers
    from crosscontext.page import ReportSettings, report
    from crosscontext.planning import PretrainSettings
    from crosscontext.pretraining import pretrain
    from crosscontext.results import Score, read_results
    from crosscontext.searching import SearchSettings, search
    from crosscontext.studies import StudySettings, study
    from crosscontext.submission import SubmitSettings, submit

__all__ = [
    "CompareSettings",
    "ConvertSettings",
    "CrossContextEncoder",
    "DedupeSettings",
    "DoctorSettings",
    "EmbedSettings",
    "Encoder",
    "EvaluateSettings",
    "Examination",
    "ExportSettings",
    "LabelSettings",
    "OutliersSettings",
    "PlanSettings",
    "PretrainSettings",
    "ReportSettings",
    "Score",
    "SearchSettings",
    "StudySettings",
    "SubmitSettings",
    "compare",
    "convert",
    "dedupe",
    "doctor",
    "embed",
    "evaluate",
    "export",
    "extract",
    "label",
    "load",
    "open_index",
    "outliers",
    "plan",
    "pretrain",
    "read_results",
    "report",
    "save_encoder",
    "search",
    "study",
    "submit",
]

_HOMES = {
    "CompareSettings": "comparison:CompareSettings",
    "ConvertSettings": "conversion:ConvertSettings",
    "CrossContextEncoder": "estimator:CrossContextEncoder",
    "DedupeSettings": "duplicates:DedupeSettings",
    "DoctorSettings": "examination:DoctorSettings",
    "EmbedSettings": "embedding:EmbedSettings",
    "Encoder": "encoders:Encoder",
    "EvaluateSettings": "evaluation:EvaluateSettings",
    "Examination": "examination:Examination",
    "ExportSettings": "exporting:ExportSettings",
    "LabelSettings": "labelling:LabelSettings",
    "OutliersSettings": "outlying:OutliersSettings",
    "PlanSettings": "forecasting:PlanSettings",
    "PretrainSettings": "planning:PretrainSettings",
    "ReportSettings": "page:ReportSettings",
    "Score": "results:Score",
    "SearchSettings": "searching:SearchSettings",
    "StudySettings": "studies:StudySettings",
    "SubmitSettings": "submission:SubmitSettings",
    "compare": "comparison:compare",
    "convert": "conversion:convert",
    "dedupe": "duplicates:dedupe",
    "doctor": "examination:doctor",
    "embed": "embedding:embed",
    "evaluate": "evaluation:evaluate",
    "export": "exporting:export",
    "extract": "features:extract",
    "label": "labelling:label",
    "load": "encoders:load_encoder",
    "open_index": "image_index:open_index",
    "outliers": "outlying:outliers",
    "plan": "forecasting:plan",
    "pretrain": "pretraining:pretrain",
    "read_results": "results:read_results",
    "report": "page:report",
    "save_encoder": "encoders:save_encoder",
    "search": "searching:search",
    "study": "studies:study",
    "submit": "submission:submit",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'crosscontext' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _HOMES[name].split(":")
    return getattr(import_module(f"crosscontext.{module}"), attribute)


def __dir__() -> list[str]:
    return __all__
