import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from crosscontext.encoders import load_encoder
from crosscontext.errors import (
    CheckpointError,
    DataError,
    NonFiniteError,
    RunFolderError,
    SettingsError,
    StoppedEarlyError,
)
from crosscontext.pretraining import PretrainSettings, pretrain
from crosscontext.run_folder import RunFolder
from crosscontext.tracking import Silence, read_metrics
from crosscontext.views import draw_view
from tiny_run import TINY, assert_same, settings, state_of, timeless


@pytest.mark.parametrize("name", ["cgh", "moco", "ressl", "co2", "byol", "dino", "supervised"])
def test_ten_steps_equal_five_and_a_resume_and_five_bitwise(
    name: str, image_folder: Path, tmp_path: Path
) -> None:
    memory = {} if name in ("byol", "dino", "supervised") else {"memory": {"slots": 30}}
    changes = {"method": {"name": name, **memory}}  # an epoch has 3 steps: 5 lies inside one
    straight = pretrain(settings(image_folder, tmp_path / "straight", **changes))
    with pytest.raises(StoppedEarlyError, match="after step 5 of 10"):
        pretrain(settings(image_folder, tmp_path / "halves", stop_after="5 steps", **changes))
    halves = pretrain(settings(image_folder, tmp_path / "halves", resume=True, workers=0, **changes))
    assert_same(state_of(straight), state_of(halves))
    assert timeless(straight) == timeless(halves)
    assert straight.encoder.read_bytes() == halves.encoder.read_bytes()


def test_an_encoder_that_a_kill_has_left_behind_its_checkpoint_catches_up(
    image_folder: Path, tmp_path: Path
) -> None:
    run = settings(image_folder, tmp_path / "run")
    with pytest.raises(StoppedEarlyError):
        pretrain(run.model_copy(update={"stop_after": "5 steps"}))
    early = RunFolder(run.out).encoder.read_bytes()
    resumed = run.model_copy(update={"resume": True})
    folder = pretrain(resumed)
    done = folder.encoder.read_bytes()
    assert done != early
    folder.encoder.write_bytes(early)
    pretrain(resumed)
    assert folder.encoder.read_bytes() == done
    folder.encoder.unlink()
    pretrain(resumed)
    assert folder.encoder.read_bytes() == done


@pytest.mark.parametrize("backbone", [TINY, "vit_tiny_patch16_224"], ids=str)
def test_an_encoder_may_be_for_larger_pictures_than_it_was_trained_with(
    backbone: object, image_folder: Path, tmp_path: Path
) -> None:
    sizes = {"image_size": 32, "test_size": 48, "backbone": backbone, "steps": 4}
    straight = pretrain(settings(image_folder, tmp_path / "straight", **sizes))
    encoder = load_encoder(straight.path)
    assert encoder.preprocessing.image_size == 48
    assert encoder(torch.zeros(2, 3, 48, 48)).shape == (2, encoder.width)
    with pytest.raises(StoppedEarlyError):
        pretrain(settings(image_folder, tmp_path / "halves", stop_after="2 steps", **sizes))
    halves = pretrain(settings(image_folder, tmp_path / "halves", resume=True, **sizes))
    assert straight.encoder.read_bytes() == halves.encoder.read_bytes()


def test_training_with_labels_needs_labels(image_folder: Path, tmp_path: Path) -> None:
    unlabelled = image_folder / "red"
    with pytest.raises(SettingsError, match="have no classes"):
        pretrain(settings(unlabelled, tmp_path / "run", method="supervised"))


def test_the_seed_decides_the_result(image_folder: Path, tmp_path: Path) -> None:
    one = pretrain(settings(image_folder, tmp_path / "one", steps=2))
    other = pretrain(settings(image_folder, tmp_path / "other", steps=2, seed=1))
    assert load_encoder(one.path).digest != load_encoder(other.path).digest


def test_a_finished_run_holds_all_that_was_promised(image_folder: Path, tmp_path: Path) -> None:
    run = pretrain(settings(image_folder, tmp_path / "run"))
    assert {file.name for file in tmp_path.joinpath("run").rglob("*") if file.is_file()} == {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "encoder.safetensors",
        "last.ckpt",
        "previous.ckpt",
    }
    lines = read_metrics(run.metrics)
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert lines[-1]["images"] == 120
    for name in (
        "train/loss",
        "train/loss_hyper_from_global",
        "train/loss_global_from_hyper",
        "train/lr",
        "health/relation_entropy_global",
        "health/relation_entropy_hyper",
        "health/rankme",
        "health/feature_std",
        "time/images_per_second",
        "time/data_wait",
        "val/knn_top1",
    ):
        assert name in lines[-1]
    assert "torch" in json.loads(run.environment.read_text())


def test_labels_are_not_needed(image_folder: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in image_folder.rglob("*.jpg"):
        shutil.copy(file, flat / file.name)
    run = pretrain(settings(flat, tmp_path / "run", steps=2))
    last = read_metrics(run.metrics)[-1]
    assert "health/rankme" in last
    assert "val/knn_top1" not in last


def test_the_written_config_runs_the_same_job_again(image_folder: Path, tmp_path: Path) -> None:
    from crosscontext.settings import load_yaml

    first = pretrain(settings(image_folder, tmp_path / "first", steps=2))
    again = PretrainSettings.model_validate(load_yaml(first.config) | {"out": tmp_path / "again"})
    assert_same(state_of(first), state_of(pretrain(again)))


def test_the_written_config_means_the_same_from_every_folder(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crosscontext.cli import main

    first = pretrain(settings(image_folder, tmp_path / "first", steps=1))
    monkeypatch.chdir(image_folder.parent)
    weights = os.path.relpath(first.encoder)
    start = settings(
        image_folder.name, tmp_path / "run", stop_after="1 steps", backbone=TINY | {"weights": weights}
    )
    with pytest.raises(StoppedEarlyError):
        pretrain(start)
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", "--out", "run", "--resume"]) == 0
    assert state_of(RunFolder(Path("run")))["step"] == 10


def test_epochs_images_and_minutes_become_steps(image_folder: Path, tmp_path: Path) -> None:
    def start(**budget: float) -> None:
        run = tmp_path / "-".join(budget)
        pretrain(settings(image_folder, run, steps=None, stop_after="1 steps", **budget))

    for budget, expected in (({"epochs": 4}, 12), ({"images": 600}, 50)):
        with pytest.raises(StoppedEarlyError, match=f"of {expected},"):
            start(**budget)
    with pytest.raises(StoppedEarlyError, match=r"of \d{2,},"):  # how many depends on the machine
        start(minutes=0.5)


def test_a_run_that_ends_in_its_warmup_says_so(image_folder: Path, tmp_path: Path) -> None:
    said = []

    class Listener(Silence):
        def say(self, line: str) -> None:
            said.append(line)

    pretrain(settings(image_folder, tmp_path / "run", steps=2), Listener())
    assert [
        line
        for line in said
        if line.startswith("method.warmup is 5 epochs, 15 steps, but the run has only 2")
    ]


def test_two_lengths_are_refused(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"given 2 times: epochs 1\.0, steps 10"):
        pretrain(settings(image_folder, tmp_path / "run", epochs=1))


def test_unreadable_images_are_named_and_training_goes_on(image_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(image_folder, tmp_path / "pictures")
    (folder / "red" / "00.jpg").write_bytes(b"")
    blue = folder / "blue" / "01.jpg"
    blue.write_bytes(blue.read_bytes()[:200])
    run = pretrain(settings(folder, tmp_path / "run", steps=4))
    skipped = [json.loads(line) for line in run.skipped.read_text().splitlines()]
    assert [each["name"] for each in skipped] == ["blue/01.jpg", "red/00.jpg"]
    assert all(each["cause"] for each in skipped)


def test_more_than_five_per_cent_unreadable_stops_with_the_list(image_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(image_folder, tmp_path / "pictures")
    for name in ("red/00.jpg", "red/02.jpg", "red/04.jpg"):
        (folder / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"3 of 40 images.*\n.*red/0"):
        pretrain(settings(folder, tmp_path / "run", steps=4))


def test_a_batch_larger_than_the_set_is_refused(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"batch_size is 64, but there are only 40"):
        pretrain(settings(image_folder, tmp_path / "run", batch_size=64))


def test_a_memory_larger_than_the_set_is_a_warning(image_folder: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="50 slots, but the set only 40 images"):
        pretrain(
            settings(image_folder, tmp_path / "run", steps=1, method={"name": "cgh", "memory": {"slots": 50}})
        )


def test_a_run_folder_is_not_written_over(image_folder: Path, tmp_path: Path) -> None:
    first = pretrain(settings(image_folder, tmp_path / "run", steps=2))
    before = first.encoder.read_bytes()
    with pytest.raises(RunFolderError, match=r"--resume.*--overwrite"):
        pretrain(settings(image_folder, tmp_path / "run", steps=2, seed=1))
    assert first.encoder.read_bytes() == before
    pretrain(settings(image_folder, tmp_path / "run", steps=2, seed=1, overwrite=True))
    assert first.encoder.read_bytes() != before


def test_a_mistake_in_the_new_settings_does_not_cost_the_old_run(image_folder: Path, tmp_path: Path) -> None:
    first = pretrain(settings(image_folder, tmp_path / "run", steps=2))
    before = {file: file.read_bytes() for file in first.path.rglob("*") if file.is_file()}
    for data, mistake in (
        (image_folder, {"batch_size": 64}),
        (image_folder, {"epochs": 1}),
        (tmp_path / "no", {}),
    ):
        with pytest.raises((SettingsError, DataError)):
            pretrain(settings(data, first.path, overwrite=True, **mistake))
    assert {file: file.read_bytes() for file in first.path.rglob("*") if file.is_file()} == before


def test_resuming_nothing_is_refused(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no checkpoint"):
        pretrain(settings(image_folder, tmp_path / "run", resume=True))


def test_a_checkpoint_of_another_architecture_lists_the_keys(image_folder: Path, tmp_path: Path) -> None:
    pretrain(settings(image_folder, tmp_path / "run", steps=2))
    other = settings(image_folder, tmp_path / "run", resume=True, backbone=TINY | {"depth": 18})
    with pytest.raises(CheckpointError, match=r"missing: student\.backbone\.model\.layer1\.1"):
        pretrain(other)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(
    image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(StoppedEarlyError):
        pretrain(settings(image_folder, out, stop_after="3 steps"))
    good = state_of(RunFolder(out))
    wild = settings(
        image_folder,
        out,
        resume=True,
        optimizer={"learning_rate": 1e9},
        checkpoint_every="1 steps",
        monitor={"every": "100%"},
    )
    with pytest.raises(NonFiniteError, match=r"not finite.*The batch is kept in .*nonfinite/step-\d\."):
        pretrain(wild)
    kept = state_of(RunFolder(out))
    assert 3 <= kept["step"] < 10
    assert all(torch.isfinite(value).all() for value in kept["method"].values() if torch.is_tensor(value))
    assert good["step"] == 3


def test_sigterm_ends_with_a_checkpoint_and_the_run_goes_on_exactly(
    image_folder: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    options = ["--steps", "60", "--batch-size", "12", "--image-size", "16", "--threads", "1"]
    options += ["--backbone.depth", "10", "--backbone.width", "0.125", "--log-every", "1 steps"]
    options += ["--method.memory.slots", "30", "--monitor.every", "1000 steps"]
    command = [sys.executable, "-m", "crosscontext", "pretrain", "--data", str(image_folder), *options]
    process = subprocess.Popen([*command, "--out", str(run.path)], stderr=subprocess.PIPE, text=True)
    while not run.metrics.exists() or len(read_metrics(run.metrics)) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Interrupted by SIGTERM" in errors
    assert state_of(run)["step"] < 60
    resumed = subprocess.run(
        [sys.executable, "-m", "crosscontext", "pretrain", "--out", str(run.path), "--resume"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        timeout=60,
        capture_output=True,
    )
    assert resumed.returncode == 0
    straight = RunFolder(tmp_path / "straight")
    subprocess.run([*command, "--out", str(straight.path)], check=True, timeout=60, capture_output=True)
    assert_same(state_of(straight), state_of(run))


def test_any_view_of_the_training_can_be_drawn_again(image_folder: Path, tmp_path: Path) -> None:
    from crosscontext.datasets import FolderSettings
    from crosscontext.loading import Loader
    from crosscontext.views import ViewsSettings, resolve

    dataset, views = FolderSettings(path=image_folder).open().train, resolve(ViewsSettings(), 16)
    loader = Loader(dataset, views, {"strong": 1}, 16, 12, seed=7, workers=0, device=torch.device("cpu"))
    batch = next(loader.batches(4, 5))
    seen = batch.views["strong"][0]
    again = draw_view(dataset, int(batch.indices[3]), views, 16, ("strong", 0), (7, batch.epoch))
    torch.testing.assert_close(again, seen[3], atol=1e-6, rtol=0)


GOLDEN = Path(__file__).parent / "reference" / "golden_curve.json"


def test_a_refactoring_does_not_move_the_curve(image_folder: Path, tmp_path: Path) -> None:
    run = pretrain(settings(image_folder, tmp_path / "run", steps=30))
    losses = [line["train/loss"] for line in read_metrics(run.metrics)]
    assert losses == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-3)
