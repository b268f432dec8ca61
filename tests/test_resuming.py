import json
from collections.abc import Callable
from pathlib import Path

import pytest

from crosscontext.errors import RunFolderError, SettingsError
from crosscontext.layers import COMMAND_LINE, Layer, merge, resolve
from crosscontext.planning import PretrainSettings, settle
from crosscontext.resuming import continued, restarted, saved_layer
from crosscontext.settings import dump_yaml

GIVEN = {"data": {"name": "shapes", "num_train": 96}, "epochs": 2, "batch_size": 32}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with the settings that a run of GIVEN saves."""
    settings = resolve(PretrainSettings, [Layer("recipe.yaml", {**GIVEN, "out": str(tmp_path)})])
    settled = settle(settings, settings.data.open().train, lambda _: None)
    (tmp_path / "config.yaml").write_text(dump_yaml(settled))
    return tmp_path


def resumed(
    run: Path, values: dict[str, object], say: Callable[[str], None] = lambda _: None
) -> PretrainSettings:
    given = Layer(COMMAND_LINE, {"out": str(run), "resume": True, **values})
    saved = saved_layer([given])
    assert saved is not None
    settings = resolve(PretrainSettings, [saved, given])
    return continued(saved, settings, say)


def test_the_run_folder_alone_says_everything(run: Path) -> None:
    settings = resumed(run, {})
    assert (settings.steps, settings.batch_size, settings.image_size) == (6, 32, 32)
    assert settings.resume


def test_the_same_command_again_is_accepted(run: Path) -> None:
    resumed(run, GIVEN)
    resumed(run, {"image_size": "auto", "method": {"momentum": "auto"}})


def test_machine_and_session_may_change(run: Path) -> None:
    given = {"threads": 1, "workers": 0, "hold_gigabytes": 0.5, "stop_after": "1 epochs"}
    settings = resumed(run, given)
    assert (settings.threads, settings.workers, settings.hold_gigabytes) == (1, 0, 0.5)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"epochs": 3}, "steps"),
        ({"seed": 1}, "seed"),
        ({"method": {"momentum": 0.5}}, "method.momentum"),
        ({"method": "moco"}, "method"),
        ({"data": {"num_train": 97}}, "data.num_train"),
    ],
)
def test_another_result_is_refused_by_name(run: Path, values: dict[str, object], name: str) -> None:
    with pytest.raises(SettingsError, match=f"but {name} would differ from .*config.yaml"):
        resumed(run, values)


def test_minutes_were_settled_when_the_run_began(run: Path) -> None:
    told: list[str] = []
    settings = resumed(run, {"minutes": 9}, told.append)
    assert (settings.steps, settings.minutes) == (6, None)
    assert told == [
        "9 minutes are left out: the run's length was settled when it began, to 6 steps. --extend changes it."
    ]
    assert resumed(run, {"minutes": 9, "extend": True}).minutes == 9


def test_length_and_learning_rate_may_change_where_that_is_asked_for(run: Path) -> None:
    changes = {"epochs": 4, "optimizer": {"learning_rate": 0.01}}
    with pytest.raises(SettingsError, match=r"steps, optimizer.learning_rate would differ .* with --extend"):
        resumed(run, changes)
    assert resumed(run, {**changes, "extend": True}).optimizer.learning_rate == 0.01


@pytest.mark.parametrize("values", [{"batch_size": 16}, {"optimizer": {"weight_decay": 0.0}}, {"seed": 1}])
def test_other_changes_are_refused_in_an_extension_too(run: Path, values: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="Leave that out, or start another run"):
        resumed(run, {**values, "extend": True})


def test_an_extension_without_resume_is_refused(run: Path) -> None:
    with pytest.raises(SettingsError, match="Give --resume too"):
        resolve(PretrainSettings, [Layer(COMMAND_LINE, {**GIVEN, "out": str(run), "extend": True})])


def test_nothing_to_resume_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"There is no .*config\.yaml"):
        saved_layer([Layer(COMMAND_LINE, {"out": str(tmp_path), "resume": True})])


def test_nothing_saved_is_read_unless_resuming(tmp_path: Path) -> None:
    assert saved_layer([Layer(COMMAND_LINE, {"out": str(tmp_path)})]) is None


def test_a_run_that_torchrun_has_restarted_goes_on_by_itself(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-7")
    given = [Layer(COMMAND_LINE, {"out": str(run), "overwrite": True, "workers": 5, **GIVEN})]

    def outcome(launch: str | None) -> dict[str, object]:
        text = json.dumps({"torch": "2"} if launch is None else {"launch": launch})
        (run / "environment.json").write_text(text)
        return merge(PretrainSettings, restarted(given))

    as_given = merge(PretrainSettings, given)
    assert outcome("job-7") == as_given  # this is no restart
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert outcome("job-6") == outcome(None) == as_given  # an older run is in the way, as before
    assert outcome("job-7") == as_given | {"overwrite": True}  # without a checkpoint yet it begins again
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").touch()
    resumed = {"out": str(run), "workers": 5, "resume": True, "overwrite": False}
    assert outcome("job-7") == resumed
    (run / "checkpoints" / "last.ckpt").rename(run / "checkpoints" / "previous.ckpt")
    assert outcome("job-7") == resumed
