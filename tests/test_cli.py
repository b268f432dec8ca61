import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from PIL import Image

from crosscontext.cli import main
from crosscontext.results import append_results
from crosscontext.run_folder import RunFolder
from crosscontext.settings import dump_yaml
from crosscontext.verbs import VERBS
from frozen import KINDS, OPTIONS, help_of, options, written_help
from handmade import score
from tiny_run import settings

SLOW_PACKAGES = ("torch", "torchvision", "timm", "numpy", "sklearn", "pydantic", "rich", "yaml", "jinja2")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "crosscontext", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80", **environment},
        check=False,
        timeout=60,
    )


def imported_by(arguments: Sequence[str]) -> set[str]:
    code = f"import sys; from crosscontext.cli import main; main({list(arguments)}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.splitlines()[-1].split())


def test_help_lists_the_verbs_within_80_columns() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert all(f"\n  {verb} " in done.stdout for verb in VERBS)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stderr == ""


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_fits_into_80_columns(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([verb, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: crosscontext {verb}")
    assert "options" in lines
    assert [line for line in lines if len(line) > 80] == []


def test_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert run("--version").stdout == f"crosscontext {version('crosscontext')}\n"


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(argument: str) -> None:
    assert not imported_by([argument]) & set(SLOW_PACKAGES)


def test_unknown_verb_is_answered_with_the_nearest() -> None:
    done = run("pretrian")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: Unknown verb 'pretrian'")
    assert "did you mean 'pretrain'?" in done.stderr


def test_missing_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "verb is missing" in capsys.readouterr().err


def test_traceback_is_shown_only_when_debugging() -> None:
    assert "Traceback" not in run("fly").stderr
    assert "Traceback" in run("fly", CROSSCONTEXT_DEBUG="1").stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m crosscontext --help | head -n 1 >/dev/null"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""


WAITS = """
import signal, sys, time
from crosscontext import cli

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start its background jobs deaf to it

def wait(arguments):
    print("waiting", flush=True)
    time.sleep(60)

cli.VERBS = {"wait": wait}
sys.exit(cli.main(["wait"]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_verb_with_a_line_and_their_exit_codes(number: signal.Signals, code: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    _, complaint = process.communicate(timeout=20)
    assert process.returncode == code
    assert complaint == {130: b"error: interrupted\n", 143: b"error: terminated\n"}[code]


def test_views_draws_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "views.png"
    options = ["--data", "shapes", "--data.num-train", "20", "--image-size", "32", "--num-images", "2"]
    assert main(["views", "--out", str(picture), *options]) == 0
    with Image.open(picture) as image:
        assert image.height < image.width
    assert str(picture) in capsys.readouterr().out


def test_printed_configuration_runs_the_same_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", "shapes", "--out", "run", "--epochs", "2", "--method", "ressl"]
    assert main(["pretrain", *options, "--method.momentum", "0.9", "--print-config"]) == 0
    printed = capsys.readouterr().out
    recipe = tmp_path / "again.yaml"
    recipe.write_text(printed)
    assert main(["pretrain", str(recipe), "--print-config"]) == 0
    assert capsys.readouterr().out == printed
    assert yaml.safe_load(printed)["method"]["momentum"] == 0.9


def test_help_of_a_verb_shows_the_values_of_the_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("method: {name: moco, momentum: 0.123}\n")
    assert main(["pretrain", str(recipe), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "method moco:" in shown
    assert "[0.123]" in shown


def test_a_second_positional_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["views", "shapes"]) == 2
    assert "Unexpected argument 'shapes'" in capsys.readouterr().err


def test_every_error_is_told_in_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("method: {name: moco, momentun: 0.9}\nepochs: many\n")
    assert main(["pretrain", str(recipe), "--data", "shapes", "--out", str(tmp_path / "run")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: epochs is 'many' in ")
    assert second.startswith("error: Unknown key 'method.momentun' in ")
    assert not (tmp_path / "run").exists()


def test_evaluate_with_json_writes_one_list_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    shapes = ["--data", "shapes", "--data.num-train", "64", "--data.num-test", "32"]
    network = ["--backbone", "resnet10", "--backbone.width", "0.125"]
    assert main(["pretrain", "--out", run, "--steps", "1", "--batch-size", "16", *shapes, *network]) == 0
    assert capsys.readouterr().out == f"encoder: {run}/encoder.safetensors\nreport: {run}/report.html\n"
    judge = ["evaluate", run, "--references", "pixels", "--tasks", "[{name: knn, k: [5]}]"]
    assert main([*judge, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert [(score["model"], score["metric"]) for score in scores] == [
        ("encoder", "top1_k5"),
        ("pixels", "top1_k5"),
    ]
    assert main(judge) == 0
    assert capsys.readouterr().out.rstrip().endswith(f"encoder: {run}/encoder.safetensors")


def test_evaluate_without_a_run_asks_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate"]) == 2
    assert "crosscontext evaluate RUN" in capsys.readouterr().err


def test_evaluate_takes_a_recipe_below_the_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("data: shapes\ntasks: [{name: knn, k: [3]}]\nimage_size: 24\n")
    assert main(["evaluate", "run", str(recipe), "--image-size", "16", "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["run"], printed["image_size"], printed["data"]["name"]) == ("run", 16, "shapes")
    assert printed["tasks"][0]["k"] == [3]
    assert main(["evaluate", "run", "cifar11"]) == 2
    assert "No recipe 'cifar11' for evaluate" in capsys.readouterr().err
    assert main(["evaluate", "run", str(recipe), "more"]) == 2
    assert "Unexpected argument 'more'" in capsys.readouterr().err


@pytest.fixture
def two_runs(tmp_path: Path) -> list[str]:
    for name, value in (("cgh", 0.53), ("moco", 0.52)):
        (tmp_path / name).mkdir()
        append_results(tmp_path / name / "results.jsonl", [score(value), score(0.3, model="pixels")])
        (tmp_path / name / "config.yaml").write_text(f"seed: 0\nmethod: {{name: {name}}}\n")
    return [str(tmp_path / "cgh"), str(tmp_path / "moco")]


def test_compare_prints_a_table_in_each_format(
    two_runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *two_runs]) == 0
    assert "| knn top1_k20 | 53.0 [28.0, 78.0] |" in capsys.readouterr().out
    assert main(["compare", *two_runs, "--format", "csv", "--baseline", "pixels"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("knn,top1_k20,,share,")
    assert main(["compare", "--runs", *two_runs, "--format", "json", "--labels", "a", "b"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["a", "b", "pixels"]


def test_compare_tells_what_it_leaves_out_apart_from_the_table(
    two_runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with (Path(two_runs[0]) / "results.jsonl").open("a") as file:
        file.write('{"task": "kn')
    assert main(["compare", *two_runs]) == 0
    printed = capsys.readouterr()
    assert "torn lines are left out: 3" in printed.err
    assert "torn" not in printed.out


def test_report_needs_a_run_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report"]) == 2
    assert "crosscontext report RUN" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "nowhere")]) == 1
    assert "There is no encoder" in capsys.readouterr().err


def test_compare_without_runs_asks_for_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare"]) == 2
    assert "crosscontext compare RUN..." in capsys.readouterr().err


def test_a_study_is_called_by_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("cells: {a: {}}\nbudget: {steps: 3}\nevaluate: [{tasks: [knn]}]\nbase: {data: shapes}\n")
    assert main(["study", str(path), "--seeds", "4", "5", "--budget.steps", "2", "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["out"], printed["runs"], printed["seeds"]) == ("studies/mine", "runs/mine", [4, 5])
    assert printed["budget"] == {"images": None, "steps": 2, "minutes": None}
    assert main(["study", str(path), "--base.data", "cifar10"]) == 2
    assert "--base stands in the study file alone" in capsys.readouterr().err
    assert main(["study"]) == 2
    assert "crosscontext study STUDY" in capsys.readouterr().err
    assert main(["study", "cifar10_metods"]) == 2
    assert "did you mean 'cifar10_methods'?" in capsys.readouterr().err


def test_the_limit_of_pixels_is_a_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    assert main(["--version"]) == 0
    assert Image.MAX_IMAGE_PIXELS == 7
    monkeypatch.setenv("CROSSCONTEXT_MAX_PIXELS", "200000000")
    assert main(["--version"]) == 0
    assert Image.MAX_IMAGE_PIXELS == 200_000_000
    monkeypatch.setenv("CROSSCONTEXT_MAX_PIXELS", "all")
    assert main(["--version"]) == 2
    assert "CROSSCONTEXT_MAX_PIXELS is 'all'; expected a whole number" in capsys.readouterr().err


def test_verbs_and_options_are_frozen() -> None:
    """A change here breaks the scripts of users: it needs a line in the changelog."""
    assert KINDS.keys() == VERBS.keys()
    assert options() == OPTIONS.read_text()  # if the change is wanted: python tests/frozen.py


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_that_is_shipped_is_the_one_that_settings_give(verb: str) -> None:
    assert (
        help_of(verb) == written_help(verb).read_text()
    )  # or, if the change is wanted: python tests/frozen.py


def test_help_imports_nothing_slow_unless_a_recipe_or_a_narrow_terminal_asks_for_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not imported_by(["pretrain", "--help"]) & {*SLOW_PACKAGES}
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["views", "--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


def test_a_warning_is_one_line_without_its_place_in_the_code(
    image_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--steps", "1", "--batch-size", "8", "--image-size", "16", "--backbone.width", "0.125"]
    pretrain = ["pretrain", "--data", str(image_folder), "--out", str(tmp_path / "run"), *options]
    assert main([*pretrain, "--method.memory.slots", "99"]) == 0
    warnings = [line for line in capfd.readouterr().err.splitlines() if "99 slots" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: The memory has 99 slots, but the set only 40 images")


@pytest.mark.parametrize("given", [None, "7"])
def test_threads_do_not_wait_awake_for_long_unless_the_user_says_so(given: str | None) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    program = (
        "import os; from crosscontext.cli import main; main(['--help']); print(os.environ['GOMP_SPINCOUNT'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | ({"GOMP_SPINCOUNT": given} if given else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == (given or "5000")


def test_a_stop_is_noted_and_ends_with_a_code_that_nobody_takes_for_a_failure(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun restarts what ends with another code than 0, so that under it a stop ends with 0."""
    out, recipe = RunFolder(tmp_path / "run"), tmp_path / "recipe.yaml"
    recipe.write_text(dump_yaml(settings(image_folder, out.path, steps=3)))
    assert main(["pretrain", str(recipe), "--stop-after", "1 steps"]) == 75
    note = json.loads(out.stopped.read_text())
    assert note["exit_code"] == 75
    assert note["why"].startswith("Stopped after step 1 of 3, as asked")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    assert main(["pretrain", str(recipe), "--resume", "--stop-after", "1 steps"]) == 0
    assert out.stopped.exists()
    assert main(["pretrain", str(recipe), "--resume"]) == 0
    assert not out.stopped.exists()
