from pathlib import Path
from typing import Any

import pytest

from crosscontext.errors import SettingsError
from crosscontext.methods import CGHSettings, MoCoSettings
from crosscontext.recipes import find_recipe, shipped_recipes
from crosscontext.settings import load_yaml
from crosscontext.study_plan import StudySettings, named_cells, plan_of
from small_study import SMALL, base, small_study

SHIPPED = [name for name, _ in shipped_recipes("study")]


def complaint(folder: Path, **changes: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        plan_of(small_study(folder, **changes))
    return str(caught.value)


def test_a_cell_is_the_base_with_its_own_settings_and_the_budget(tmp_path: Path) -> None:
    cells = plan_of(small_study(tmp_path, cells={"cgh": {}, "slow": {"method": {"momentum": 0.9}}})).cells
    assert isinstance(cells["slow"].method, CGHSettings)
    assert (cells["slow"].method.momentum, cells["slow"].method.memory.slots) == (0.9, 32)
    assert {(cell.steps, cell.batch_size, cell.threads) for cell in cells.values()} == {(4, 16, 1)}


def test_another_method_drops_the_fields_of_that_of_the_base(tmp_path: Path) -> None:
    cells = plan_of(small_study(tmp_path, cells={"cgh": {}, "moco": {"method": "moco"}})).cells
    assert isinstance(cells["moco"].method, MoCoSettings)
    assert cells["moco"].method.memory.slots == "auto"


def test_a_grid_names_the_product_of_its_values(tmp_path: Path) -> None:
    pairs = {"crossed": ["global->hyper", "hyper->global"], "own": ["global->global"]}
    grid = {"method.momentum": [0.9, 0.99], "method.pairs": pairs}
    cells = plan_of(small_study(tmp_path, cells={}, grid=grid)).cells
    assert list(cells) == [
        "momentum=0.9,pairs=crossed",
        "momentum=0.9,pairs=own",
        "momentum=0.99,pairs=crossed",
        "momentum=0.99,pairs=own",
    ]
    method = cells["momentum=0.99,pairs=own"].method
    assert isinstance(method, CGHSettings)
    assert (method.momentum, method.pairs) == (0.99, ("global->global",))


def test_settings_of_one_last_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    grid = {"optimizer.momentum": [0.8], "method.momentum": [0.99]}
    assert list(named_cells(small_study(tmp_path, cells={}, grid=grid))) == [
        "optimizer-momentum=0.8,method-momentum=0.99"
    ]


def test_wrong_fields_of_all_cells_are_named_with_their_cells_at_once(tmp_path: Path) -> None:
    cells = {"a": {"method": {"momentun": 0.9}}, "b": {"method": "mocco"}, "c": {"batch_size": "many"}}
    first, second, third = complaint(tmp_path, cells=cells).splitlines()
    assert first == "Unknown key 'method.momentun' in cell a: did you mean 'method.momentum'?"
    assert second.startswith("Unknown method 'mocco' in cell b; there are cgh, ")
    assert third.startswith("batch_size is 'many' in cell c; expected a whole number")


def test_what_is_wrong_in_the_base_is_said_once(tmp_path: Path) -> None:
    assert complaint(tmp_path, base=base(batch_size=0)).splitlines() == [
        "batch_size is 0 in base; expected at least 2 (Images in a step, of all processes together)."
    ]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"cells": {}}, "There is no cell. Give 'cells:'"),
        ({"cells": {"a/b": {}}}, "A cell is called 'a/b', which cannot name a folder"),
        (
            {"cells": {"momentum=0.9": {}}, "grid": {"method.momentum": [0.9]}},
            "Two cells are called momentum",
        ),
        (
            {"base": base(seed=3)},
            "'seed' in base has no place there: the seeds of all cells are the 'seeds:'",
        ),
        (
            {"cells": {"long": {"steps": 9}}},
            "'steps' in cell long has no place there: the length of all runs",
        ),
        ({"evaluate": [{"run": "x"}]}, "'run' in evaluation 1 has no place there"),
        ({"evaluate": [{"taks": ["knn"]}]}, "Unknown key 'taks' in evaluation 1: did you mean 'tasks'?"),
        ({"cells": {"one": {}, "two": {}}}, "The cells one and two have the same settings."),
        (
            {"cells": {"cgh": {}, "wide": {"backbone": {"width": 0.25}}}},
            "The cells cgh and wide differ in backbone.width (0.125, 0.25), but only method may vary.",
        ),
        ({"vary": ["method", "bachsize"]}, "vary names 'bachsize', which is no setting of pretraining"),
        ({"vary": ["method", "batch_size"]}, "The budget is in steps, but batch_size may vary"),
        ({"vary": ["method", "data"]}, "The data may vary, so evaluation 1 must say its own. Add 'data:'"),
        ({"vary": ["method", "image_size"]}, "The image size may vary, so evaluation 1 must say one."),
        ({"vary": ["method", "test_size"]}, "The image size may vary, so evaluation 1 must say one."),
        ({"cells": {"random": {}}}, "random is the name of a cell and of a reference. Rename the cell."),
        (
            {"baseline": "mocco"},
            "There is no baseline 'mocco'; there are cgh, moco, random: did you mean 'moco'?",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    assert told in complaint(tmp_path, **changes)


def test_what_the_study_says_may_vary_may_vary(tmp_path: Path) -> None:
    cells = {"cgh": {}, "wide": {"backbone": {"width": 0.25}}}
    assert list(plan_of(small_study(tmp_path, cells=cells, vary=["backbone.width"])).cells) == ["cgh", "wide"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"budget": {}}, "nothing is given; expected one of images, steps, minutes."),
        ({"budget": {"steps": 3, "minutes": 1}}, "steps 3, minutes 1.0 is given; expected one of"),
        ({"seeds": [1, 1]}, "stands twice. Give each seed once."),
        ({"jobs": 0}, "jobs is 0 in this test; expected 'auto' or at least 1"),
    ],
)
def test_budget_seeds_and_jobs_are_checked(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        small_study(tmp_path, **changes)
    assert told in str(caught.value)


def test_there_are_studies() -> None:
    assert {"cifar10_methods", "cgh_pairs", "camvid_dense", "sensitivity"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_studies_can_be_compared(name: str, tmp_path: Path) -> None:
    content = load_yaml(find_recipe("study", name))
    study = StudySettings.model_validate({**content, "out": tmp_path, "runs": tmp_path})
    assert len(plan_of(study).cells) >= 2


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_studies_say_source_command_time_and_what_is_expected(name: str) -> None:
    text = find_recipe("study", name).read_text()
    wanted = ["# source: ", "# command: ", "# time: ", "# expected: "]
    assert [start for start in wanted if f"\n{start}" not in text] == []


def test_the_small_study_of_these_tests_is_one(tmp_path: Path) -> None:
    assert list(plan_of(small_study(tmp_path)).cells) == list(SMALL["cells"])
