import json
import re
from pathlib import Path

import pytest

import crosscontext
from crosscontext.accelerators import known_machines
from crosscontext.cli import main
from crosscontext.errors import SettingsError
from crosscontext.forecast_text import plan_text
from crosscontext.forecasting import PlanReport, PlanSettings, plan
from crosscontext.settings import dump_yaml
from test_workload import small

DOCUMENT = Path(__file__).parents[1] / "docs" / "scaling.md"


def of(**changes: object) -> PlanSettings:
    return PlanSettings.model_validate(
        {**small("cgh").model_dump(mode="json", exclude={"data", "out"}), "num_images": 1000, **changes}
    )


def test_a_plan_has_a_column_for_each_number_of_processes() -> None:
    report = plan(of(processes=[1, 4, 3], price_per_hour=2.0))
    assert [each.processes for each in report.forecasts] == [1, 4, 3]
    assert report.forecasts[0].scaling_efficiency == pytest.approx(1)
    assert report.traffic_of == 4
    assert sum(each.sent_bytes for each in report.traffic) == report.forecasts[1].sent_bytes
    text = plan_text(report)
    assert re.search(r"^\| processes +\| 1 +\| 4 +\| 3 +\|$", text, flags=re.MULTILINE)
    assert re.search(r"^\| batch +\| 8 +\| 8 +\| 8 +\|$", text, flags=re.MULTILINE)
    assert re.search(r"^\| cost +\| \S+ +\| \S+ +\| – +\|$", text, flags=re.MULTILINE)
    assert "8 images cannot be shared equally by 3" in text
    assert "assumed: efficiency 0.5" in text


def test_a_batch_that_grows_keeps_the_images_that_are_seen() -> None:
    report = plan(of(processes=[1, 4], batch_per_process=2))
    assert [each.batch_size for each in report.forecasts] == [2, 8]
    one, four = report.forecasts
    assert one.hours is not None
    assert four.hours is not None
    assert one.step_seconds is not None
    assert four.step_seconds is not None
    assert four.hours / one.hours == pytest.approx(four.step_seconds / one.step_seconds / 4)


def test_the_data_are_counted_where_they_are_named(image_folder: Path) -> None:
    moco = {"name": "moco", "memory": {"slots": 16}}
    report = plan(of(processes=[1], data=str(image_folder), image_size="auto", method=moco))
    assert "32 px, 100 steps of 8 of 40 images" in report.run
    assert "of 1000 images" in plan(of(processes=[1])).run


def test_minutes_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"shall last 5 minutes.*--epochs"):
        plan(of(steps=None, minutes=5))


def test_the_verb_prints_text_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, machine = tmp_path / "recipe.yaml", tmp_path / "machine.yaml"
    recipe.write_text(dump_yaml(small("cgh")))
    machine.write_text(dump_yaml(known_machines()["h100"].model_copy(update={"title": "my own"})))
    arguments = ["plan", str(recipe), "--machine", str(machine), "--processes", "2", "--num-images", "1000"]
    arguments += ["--data.num-train", "100"]
    assert main(arguments) == 0
    assert "my own" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    report = PlanReport.model_validate(json.loads(capsys.readouterr().out))
    assert [each.processes for each in report.forecasts] == [2]


@pytest.mark.slow
def test_this_machine_is_timed() -> None:
    told: list[str] = []
    report = crosscontext.plan(of(machine="here", threads=1), told.append)
    assert len(told) == 3
    assert [each.processes for each in report.forecasts] == [1, 2]
    assert "efficiency" in report.machine.measured
    assert all(each.step_seconds is not None and each.step_seconds > 0 for each in report.forecasts)


@pytest.mark.slow
def test_the_document_says_what_the_commands_print(capsys: pytest.CaptureFixture[str]) -> None:
    """Each block below a line `$ crosscontext plan …` is its output."""
    blocks = re.findall(
        r"```\n\$ crosscontext (plan [^\n]*)\n\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL
    )
    assert len(blocks) >= 3
    for command, printed in blocks:
        assert main(command.split()) == 0
        assert capsys.readouterr().out == printed
