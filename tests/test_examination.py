import json
import shlex
from pathlib import Path

import pytest
import torch
import torchvision

import crosscontext
from crosscontext.cli import main
from crosscontext.commandline import Verb, parse
from crosscontext.errors import DataError, SettingsError
from crosscontext.examination import DoctorSettings, doctor
from crosscontext.examination_text import examination_text
from crosscontext.layers import resolve
from crosscontext.planning import PretrainSettings
from crosscontext.recipes import recipe_layers
from planted import planted, snapshot

QUICK = ["--processes", "1", "--no-trial"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted(tmp_path_factory.mktemp("planted"))


def examined(data: object = None, **changes: object) -> crosscontext.Examination:
    quick = {"processes": 1, "trial": False}
    return doctor(DoctorSettings.model_validate({"data": data, **quick, **changes}))


def test_without_data_the_machine_alone_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    found = examined()
    assert found.ready
    assert (found.scan, found.proposal, found.speed) == (None, None, None)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("machine\n")
    assert "crosscontext doctor --data DIR" in shown
    assert "\nimages\n" not in shown


def test_each_planted_fault_is_told(folder: Path) -> None:
    found = examined(folder)
    told = {finding.name: finding.count for finding in found.findings}
    expected = {"unreadable": 3, "identical": 1, "alike": 3, "dark": 1, "blank": 1, "tiny": 1, "deep": 2}
    assert expected | {"elongated": 1, "animated": 1, "too_few": None} == {
        name: told.get(name) for name in (*expected, "elongated", "animated", "too_few")
    }
    assert found.ready
    assert found.decode_images_per_second is not None


def test_nothing_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(folder)
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--data", str(folder), "--processes", "2", "--no-trial"]) == 0
    assert list(tmp_path.iterdir()) == []
    assert snapshot(folder) == before


def test_the_report_fits_80_columns_but_for_paths(folder: Path) -> None:
    found = examined(folder)
    lines = examination_text(found).splitlines()
    long = [line for line in lines if len(line) > 80]
    assert all("red/" in line or "blue/" in line or str(folder) in line for line in long)
    for word in ("machine", "images", "speed", "proposal", "findings", "A training can begin:"):
        assert word in lines


def test_the_command_can_be_pasted_as_it_is_shown(folder: Path) -> None:
    found = examined(folder, out="runs/a b")
    assert found.proposal is not None
    shown = examination_text(found).partition("A training can begin:\n")[2]
    assert shlex.split(shown.replace("\\\n", " ")) == shlex.split(found.proposal.command)


def test_json_is_the_result(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--data", str(folder), *QUICK, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert list(content) == [
        *("ready", "findings", "environment", "scan", "decode_images_per_second", "speed", "proposal")
    ]
    assert crosscontext.Examination.model_validate(content).scan == examined(folder).scan
    assert content["scan"]["identical"] == [["red/000.jpg", "red/same.jpg"]]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "holds no files at all"),
        (
            {"notes.txt": b"text", "list.csv": b"a,b"},
            "2 files but no image; endings seen: .csv (1), .txt (1)",
        ),
    ],
    ids=["empty", "no images"],
)
def test_a_folder_without_images_is_answered(
    files: dict[str, bytes], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert main(["doctor", "--data", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert said in printed.err.replace("[", "").replace("]", "") or said in printed.err
    assert printed.out == ""


def test_wrong_usage_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--data", str(tmp_path / "nowhere")]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert main(["doctor", str(tmp_path)]) == 2
    assert "Unexpected argument" in capsys.readouterr().err
    assert main(["doctor", "--processes", "0"]) == 2
    assert main(["doctor", "--hours", "0"]) == 2


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_images_that_cannot_be_trained_on_end_in_exit_code_1_after_the_report(
    form: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").touch()
    assert main(["doctor", "--data", str(tmp_path), *QUICK, *form]) == 1
    printed = capsys.readouterr()
    assert "3 of 3 images cannot be read" in printed.err
    assert "0.jpg: the file is empty" in printed.out
    if form:
        assert json.loads(printed.out)["ready"] is False
    else:
        assert "STOP: 3 of 3 images cannot be read" in printed.out


def test_a_gallery_shows_the_copies_and_the_odd_ones(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    found = examined(folder, gallery=page)
    assert found.scan is not None
    text = page.read_text()
    for heading in ("Unreadable", "Blank", "Dark", "Tiny", "Identical 1: 2 images", "Alike 1: 4 images"):
        assert heading in text
    assert "the file is empty" in text


def test_a_gallery_of_a_set_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="A gallery shows image files"):
        examined({"name": "shapes", "num_train": 20, "num_test": 2}, gallery=tmp_path / "page.html")


def test_a_missing_set_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        examined(tmp_path / "nowhere")


@pytest.mark.parametrize(("hours", "recipe"), [(1e9, "folder_small"), (1e-6, "folder_quick")])
def test_the_remedy_for_a_small_set_can_be_added_to_the_command(
    hours: float, recipe: str, image_folder: Path, tmp_path: Path
) -> None:
    found = examined(image_folder, hours=hours, seconds=1e-6, trial=True)
    assert found.proposal is not None
    assert found.proposal.recipe == recipe
    (remedy,) = (finding.remedy for finding in found.findings if finding.name == "too_few")
    words = remedy.partition(": ")[2].partition(" (")[0]
    options = shlex.split(words.replace("FILE", str(tmp_path / "resnet18.pth")))
    theirs = torchvision.models.resnet18().state_dict()
    torch.save(theirs, tmp_path / "resnet18.pth")
    line = parse(shlex.split(found.proposal.command)[2:] + options, Verb("", "", PretrainSettings))
    settings = resolve(PretrainSettings, (*recipe_layers("pretrain", line.positionals), *line.layers))
    ours = settings.backbone.build().state_dict()
    assert torch.equal(ours["model.layer4.1.conv2.weight"], theirs["layer4.1.conv2.weight"])


@pytest.mark.slow
def test_the_proposed_command_runs(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    trial = ["--processes", "1", "--seconds", "0.001", "--hours", "1000"]
    assert main(["doctor", "--data", str(image_folder), "--out", str(out), *trial, "--json"]) == 0
    printed = capsys.readouterr()
    assert "trying folder_small" in printed.err
    proposal = json.loads(printed.out)["proposal"]
    assert proposal["hours"] > 0
    program, *arguments = shlex.split(proposal["command"])
    assert program == "crosscontext"
    assert main([*arguments, "--steps", "2", "--no-report", "--threads", "1"]) == 0
    assert (out / "encoder.safetensors").is_file()


def test_help_says_what_the_exit_codes_mean_within_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["doctor", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: crosscontext doctor [--data DIR]")
    assert "Exit code 0: a training can begin; 1:" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


def test_function_and_verb_share_their_name() -> None:
    assert crosscontext.doctor is doctor
