import importlib.util
import json
from pathlib import Path

import pytest

from crosscontext.errors import SettingsError, StoppedEarlyError
from crosscontext.loggers import OWN, find_loggers, logger_names
from crosscontext.pretraining import pretrain
from crosscontext.run_folder import RunFolder
from crosscontext.tracking import read_metrics
from several_processes import run_task
from spoken import install_diary
from tiny_run import assert_same, settings, state_of, timeless


@pytest.fixture
def diary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package that offers loggers is installed."""
    folder = tmp_path_factory.mktemp("site")
    install_diary(folder)
    monkeypatch.syspath_prepend(folder)


def in_two_sessions(data: Path, out: Path, *names: str) -> RunFolder:
    with pytest.raises(StoppedEarlyError):
        pretrain(settings(data, out, loggers=names, stop_after="5 steps"))
    return pretrain(settings(data, out, loggers=names, resume=True))


def test_auto_is_tensorboard_where_it_is_installed() -> None:
    expected = {"tensorboard"} if importlib.util.find_spec("tensorboard") else set()
    assert find_loggers(["auto"]).keys() == expected
    assert find_loggers(["none"]) == find_loggers([]) == {}


def test_an_unknown_logger_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"Unknown logger 'wandbb'.*did you mean 'wandb'\?"):
        find_loggers(["wandbb"])


@pytest.mark.parametrize("name", OWN)
def test_a_missing_package_is_told_with_the_line_that_installs_it(name: str) -> None:
    missing = [package for package in OWN[name].needs if importlib.util.find_spec(package) is None]
    if not missing:
        pytest.skip(f"all that {name} needs is installed here")
    with pytest.raises(
        SettingsError, match=rf"{name} needs {missing[0]}.*pip install \"crosscontext\[{name}\]\""
    ):
        find_loggers([name])


@pytest.mark.usefixtures("diary")
def test_loggers_of_other_packages_that_cannot_be_used_are_refused_with_the_cause() -> None:
    assert {"diary", "gone", "hungry", "stranger"} <= set(logger_names())
    with pytest.raises(SettingsError, match="hungry needs no_such_package"):
        find_loggers(["hungry"])
    with pytest.raises(SettingsError, match=r"stranger \(diary_of_runs:Stranger\) is no subclass of"):
        find_loggers(["stranger"])
    with pytest.raises(SettingsError, match=r"gone .* cannot be imported: AttributeError"):
        find_loggers(["gone"])


def test_a_logger_that_cannot_be_had_is_refused_before_a_run_is_replaced(
    image_folder: Path, tmp_path: Path
) -> None:
    pretrain(settings(image_folder, tmp_path, steps=1, loggers=["none"]))
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(SettingsError, match="Unknown logger"):
        pretrain(settings(image_folder, tmp_path, steps=2, loggers=["nowhere"], overwrite=True))
    assert (tmp_path / "config.yaml").read_bytes() == before


@pytest.mark.usefixtures("diary")
def test_a_logger_of_another_package_is_told_what_metrics_jsonl_holds(
    image_folder: Path, tmp_path: Path
) -> None:
    folder = in_two_sessions(image_folder, tmp_path / "mine", "diary")
    lines = [json.loads(line) for line in (folder.loggers / "diary" / "diary.jsonl").open()]
    told = [[line["step"], line["train/loss"]] for line in read_metrics(folder.metrics)]
    assert lines == [
        ["begins", "mine", 0, 12],
        *told[:5],
        ["ends", False],
        ["begins", "mine", 5, 12],
        *told[5:],
        ["ends", False],
    ]
    pretrain(settings(image_folder, folder.path, steps=1, loggers=["none"], overwrite=True))
    assert not folder.loggers.exists()


@pytest.mark.usefixtures("diary")
def test_loggers_change_no_bit_of_a_run(image_folder: Path, tmp_path: Path) -> None:
    alone = pretrain(settings(image_folder, tmp_path / "alone", loggers=["none"]))
    told = pretrain(settings(image_folder, tmp_path / "told", loggers=["auto", "diary"]))
    assert_same(state_of(alone), state_of(told))
    assert alone.encoder.read_bytes() == told.encoder.read_bytes()
    assert timeless(alone) == timeless(told)


def points(folder: Path, name: str) -> list[tuple[int, float]]:
    """What TensorBoard shows of a curve."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_tensorboard_shows_each_step_of_a_resumed_run_once(image_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    with pytest.raises(StoppedEarlyError):
        pretrain(settings(image_folder, tmp_path, loggers=["auto"], stop_after="5 steps"))
    folder = RunFolder(tmp_path)
    kept = {file: file.read_bytes() for file in (folder.checkpoint, folder.previous_checkpoint)}
    with pytest.raises(StoppedEarlyError):
        pretrain(settings(image_folder, tmp_path, loggers=["auto"], resume=True, stop_after="3 steps"))
    for file, content in kept.items():  # as if killed before its checkpoint was written
        file.write_bytes(content)
    pretrain(settings(image_folder, tmp_path, loggers=["auto"], resume=True))
    lines = read_metrics(folder.metrics)
    assert [line["step"] for line in lines] == list(range(1, 11))
    shown = points(folder.loggers / "tensorboard", "train/loss")
    assert [step for step, _ in shown] == list(range(1, 11))
    assert [value for _, value in shown] == pytest.approx([line["train/loss"] for line in lines])


@pytest.mark.slow
def test_of_several_processes_the_first_one_logs(image_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    run = settings(image_folder, tmp_path / "run", steps=2, loggers=["auto"]).model_dump(mode="json")
    (tmp_path / "runs.json").write_text(json.dumps([run]))
    run_task(2, "pretrain_all", str(tmp_path / "runs.json"))
    assert len(list((tmp_path / "run" / "loggers" / "tensorboard").iterdir())) == 1


def test_wandb_keeps_a_resumed_run_offline_under_one_id(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="needs wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = in_two_sessions(image_folder, tmp_path, "wandb")
    identity = (folder.loggers / "wandb" / "run-id").read_text()
    sessions = list(folder.loggers.glob("wandb/wandb/offline-run-*"))
    assert sessions
    for session in sessions:
        assert b"train/loss" in (session / f"run-{identity}.wandb").read_bytes()


@pytest.mark.slow  # it makes a database with all its migrations
def test_mlflow_goes_on_in_one_run(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in OWN["mlflow"].needs:
        pytest.importorskip(package, reason=f"needs {package}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    folder = in_two_sessions(image_folder, tmp_path / "mine", "mlflow")
    from mlflow import MlflowClient

    client = MlflowClient()
    identity = (folder.loggers / "mlflow" / "run-id").read_text()
    run = client.get_run(identity)
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    assert run.data.params["method.name"] == "cgh"
    history = client.get_metric_history(identity, "train/loss")
    told = [(line["step"], line["train/loss"]) for line in read_metrics(folder.metrics)]
    assert sorted((metric.step, metric.value) for metric in history) == told


def test_trackio_goes_on_in_one_run(
    image_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # is read at its import, here alone
    pytest.importorskip("trackio", reason="needs trackio")
    folder = in_two_sessions(image_folder, tmp_path / "mine", "trackio")
    assert capfd.readouterr().out == ""
    from trackio.sqlite_storage import SQLiteStorage

    lines = SQLiteStorage.get_logs("crosscontext", "mine")
    told = [(line["step"], line["train/loss"]) for line in read_metrics(folder.metrics)]
    assert [(line["step"], line["train/loss"]) for line in lines] == told
