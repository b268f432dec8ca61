import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import crosscontext

PUBLIC = [
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


def test_the_public_names_are_frozen() -> None:
    """A change here breaks the programs of users: it needs a line in the changelog."""
    assert crosscontext.__all__ == PUBLIC
    assert dir(crosscontext) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name: str) -> None:
    assert callable(getattr(crosscontext, name))


def test_importing_the_package_does_nothing_else() -> None:
    code = "import sys; import crosscontext; print('crosscontext' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["True", "False"]


def test_submodules_do_not_hide_functions() -> None:
    import crosscontext.comparison
    import crosscontext.evaluation
    import crosscontext.page
    import crosscontext.pretraining

    assert crosscontext.pretrain is crosscontext.pretraining.pretrain
    assert crosscontext.evaluate is crosscontext.evaluation.evaluate
    assert crosscontext.compare is crosscontext.comparison.compare
    assert crosscontext.report is crosscontext.page.report


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'train'; it has .*pretrain, read_results"):
        _ = crosscontext.train


def test_an_encoder_is_used_in_two_lines(image_folder: Path, tmp_path: Path) -> None:
    usual = {"steps": 1, "batch_size": 12, "image_size": 16, "report": False, "threads": 1, "workers": 1}
    backbone = {"name": "resnet", "depth": 10, "width": 0.125}
    crosscontext.pretrain(
        crosscontext.PretrainSettings.model_validate(
            {"data": image_folder, "out": tmp_path, "backbone": backbone, **usual}
        )
    )
    image = Image.open(image_folder / "red" / "00.jpg")
    m = crosscontext.load(tmp_path)
    f = m(m.preprocess(image)[None])
    assert f.shape == (1, m.width)
