"""Faults around a run: disk, folder, files, memory. Each is a real refusal of the system."""

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crosscontext.checkpoints import damage_of
from crosscontext.datasets import Dataset, FolderSettings
from crosscontext.errors import DataError, RunFolderError, ShortOfMemoryError, StoppedEarlyError
from crosscontext.loading import Loader
from crosscontext.pretraining import PretrainSettings, pretrain
from crosscontext.run_folder import RunFolder
from crosscontext.tracking import Silence, read_metrics
from crosscontext.verification import differences
from crosscontext.views import ViewsSettings, resolve
from tiny_run import settings, state_of

NOBODY = 65534


class At(Silence):
    """Does something after a step of a run, before its checkpoint."""

    def __init__(self, step: int, accident: Callable[[], object]):
        self._step, self._accident = step, accident

    def advance(self, step: int, scalars: Mapping[str, float]) -> None:
        if step == self._step:
            self._accident()


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """The system refuses to make any file longer than this, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def goes_on_as_if_nothing_had_happened(run: PretrainSettings, straight: Path) -> bool:
    folder = pretrain(run.model_copy(update={"resume": True}))
    return list(differences(RunFolder(straight), folder)) == []


@pytest.fixture(scope="module")
def straight(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten steps to which nothing happened."""
    out = tmp_path_factory.mktemp("straight") / "run"
    pretrain(settings(image_folder, out, checkpoint_every="2 steps"))
    return out


def test_a_full_disk_stops_with_the_checkpoint_before_and_all_metrics(
    image_folder: Path, tmp_path: Path, straight: Path
) -> None:
    run = settings(image_folder, tmp_path / "run", checkpoint_every="2 steps")
    folder = RunFolder(run.out)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    with limited_files(resource.RLIM_INFINITY):
        for number in (5, 7):  # twice
            of_session = run.model_copy(update={"resume": number > 5})
            with pytest.raises(
                RunFolderError, match=r"last\.ckpt could not be written: File too large.*Make room"
            ):
                pretrain(of_session, At(number, fill))
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert state_of(folder)["step"] == number - 1
            assert [line["step"] for line in read_metrics(folder.metrics)] == list(range(1, number + 2))
    assert goes_on_as_if_nothing_had_happened(run, straight)


def test_metrics_that_find_no_room_stop_the_run_with_a_clear_error(
    image_folder: Path, tmp_path: Path, straight: Path
) -> None:
    run = settings(image_folder, tmp_path / "run", checkpoint_every="2 steps")
    folder = RunFolder(run.out)

    def fill() -> None:
        size = folder.metrics.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    with (
        limited_files(resource.RLIM_INFINITY),
        pytest.raises(RunFolderError, match=r"metrics\.jsonl could not be written at step 6: File too large"),
    ):
        pretrain(run, At(5, fill))
    assert [line["step"] for line in read_metrics(folder.metrics)] == [1, 2, 3, 4, 5]
    assert state_of(folder)["step"] == 4
    assert goes_on_as_if_nothing_had_happened(run, straight)


@pytest.mark.parametrize("step", [4, 5])  # before a checkpoint, and before a line of metrics
def test_a_run_folder_that_was_moved_is_missed_and_goes_on_where_it_is(
    image_folder: Path, tmp_path: Path, straight: Path, step: int
) -> None:
    run = settings(image_folder, tmp_path / "run", checkpoint_every="2 steps")
    moved = tmp_path / "moved"
    with pytest.raises(RunFolderError, match=r"could not be written.*: No such file or directory"):
        pretrain(run, At(step, lambda: run.out.rename(moved)))
    assert len(read_metrics(RunFolder(moved).metrics)) == step
    assert goes_on_as_if_nothing_had_happened(run.model_copy(update={"out": moved}), straight)


def test_a_run_folder_that_was_removed_is_named(image_folder: Path, tmp_path: Path) -> None:
    run = settings(image_folder, tmp_path / "run", checkpoint_every="5 steps")
    with pytest.raises(RunFolderError, match=r"run/metrics\.jsonl could not be written at step 4"):
        pretrain(run, At(3, lambda: shutil.rmtree(run.out)))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who may not write")
def test_a_run_folder_that_may_no_longer_be_written_stops_the_run(
    image_folder: Path, tmp_path: Path, straight: Path
) -> None:
    run = settings(image_folder, tmp_path / "run", checkpoint_every="2 steps", workers=0)
    try:
        with pytest.raises(RunFolderError, match=r"could not be written.*: Permission denied"):
            pretrain(run, At(6, lambda: os.seteuid(NOBODY)))
    finally:
        os.seteuid(0)
    assert state_of(RunFolder(run.out))["step"] == 4
    assert goes_on_as_if_nothing_had_happened(run, straight)


def test_a_spoiled_checkpoint_costs_the_steps_since_the_one_before_and_nothing_else(
    image_folder: Path, tmp_path: Path, straight: Path
) -> None:
    run = settings(image_folder, tmp_path / "run", checkpoint_every="2 steps", stop_after="7 steps")
    with pytest.raises(StoppedEarlyError):
        pretrain(run)
    folder = RunFolder(run.out)
    content = bytearray(folder.checkpoint.read_bytes())
    content[len(content) // 2] ^= 4
    folder.checkpoint.write_bytes(content)
    assert damage_of(folder.checkpoint) is not None
    assert goes_on_as_if_nothing_had_happened(run.model_copy(update={"stop_after": None}), straight)
    assert folder.damaged_checkpoint.read_bytes() == content


def remove(folder: Path, number: int) -> Callable[[], None]:
    def accident() -> None:
        for file in sorted(folder.rglob("*.jpg"))[:number]:
            file.unlink()

    return accident


def test_images_removed_during_training_are_replaced_and_listed_also_after_a_resume(
    image_folder: Path, tmp_path: Path
) -> None:
    pictures = shutil.copytree(image_folder, tmp_path / "pictures")
    run = settings(pictures, tmp_path / "run", hold_gigabytes=0, stop_after="8 steps")
    with pytest.raises(StoppedEarlyError):
        pretrain(run, At(2, remove(pictures, 1)))
    pretrain(run.model_copy(update={"resume": True, "stop_after": None}))
    listed = [json.loads(line) for line in RunFolder(run.out).skipped.read_text().splitlines()]
    assert [each["name"] for each in listed] == ["blue/01.jpg"]
    assert "No such file" in listed[0]["cause"]


def test_too_many_images_removed_during_training_stop_it_with_their_names(
    image_folder: Path, tmp_path: Path
) -> None:
    pictures = shutil.copytree(image_folder, tmp_path / "pictures")
    run = settings(
        pictures, tmp_path / "run", hold_gigabytes=0, checkpoint_every="1 steps", monitor={"every": "100%"}
    )
    with pytest.raises(DataError, match=r"3 of 40 images cannot be read.*\n.*(blue|red)/\d\d\.jpg"):
        pretrain(run, At(2, remove(pictures, 40)))
    assert state_of(RunFolder(run.out))["step"] >= 2


class Greedy(Dataset):
    """Images of which one needs more memory than there is."""

    def __init__(self, images: Dataset):
        self.names, self.labels, self._images = images.names, images.labels, images

    def image(self, index: int) -> Image.Image:
        if index == 5:
            np.ones(2**50, np.uint8)
        return self._images.image(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_thread_without_memory_names_image_and_remedy(image_folder: Path, workers: int) -> None:
    views, images = resolve(ViewsSettings(), 16), FolderSettings(path=image_folder).open().train
    loader = Loader(Greedy(images), views, {"strong": 1}, 16, 12, 0, workers)
    complaint = r"1\.00 PiB.*with the image blue/11\.jpg.*fewer --workers"
    with pytest.raises(ShortOfMemoryError, match=complaint):
        list(loader.batches(0, 3 * loader.steps_per_epoch))


def test_nothing_in_a_run_depends_on_the_time_of_day() -> None:
    """So that a clock that jumps changes nothing: times are taken from clocks that do not."""
    package = Path(__file__).parents[1] / "src" / "crosscontext"
    asking = {file.name for file in package.rglob("*.py") if "datetime.now" in file.read_text()}
    assert asking == {"evaluation.py", "locking.py"}  # both for people to read
    asking = {file.name for file in package.rglob("*.py") if "time.time()" in file.read_text()}
    assert asking == {"mlflow.py"}  # whose store wants the time of each line
