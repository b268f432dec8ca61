from pathlib import Path

import pytest
import torch

from crosscontext.datasets import FolderSettings
from crosscontext.datasets.held import hold
from crosscontext.errors import DataError
from crosscontext.planning import PretrainSettings, settle
from crosscontext.speed import Speed, decode_images_per_second, measure_speed

CPU = torch.device("cpu")


def measured(
    folder: Path, batch_size: int, seconds: float, gigabytes: float = 8.0, gigabytes_held: float = 0.0
) -> Speed:
    dataset = hold(FolderSettings(path=folder).open().train, gigabytes_held)
    backbone = {"name": "resnet", "depth": 10, "width": 0.125}
    usual = {"data": folder, "out": "run", "backbone": backbone, "image_size": 32}
    settings = PretrainSettings.model_validate({**usual, "batch_size": batch_size})
    return measure_speed(settle(settings, dataset, lambda _: None), dataset, CPU, seconds, gigabytes)


def speed_of(step: float, load: float) -> Speed:
    return Speed(
        batch=8,
        step_images_per_second=step,
        load_images_per_second=load,
        fixed_bytes=10**9,
        bytes_an_image=10**8,
    )


def test_the_trial_takes_as_large_batches_as_it_may(image_folder: Path) -> None:
    assert measured(image_folder, 8, seconds=600.0).batch == 8
    assert measured(image_folder, 8, seconds=1e-6).batch == 4
    assert measured(image_folder, 8, seconds=600.0, gigabytes=0.1).batch == 4
    assert measured(image_folder, 2, seconds=1.0).batch == 2


def test_memory_grows_with_views_and_weights(image_folder: Path) -> None:
    speed = measured(image_folder, 8, seconds=1e-6)
    held = measured(image_folder, 8, seconds=1e-6, gigabytes_held=1.0)
    assert held.fixed_bytes - speed.fixed_bytes == 40 * 40 * 40 * 3
    views = 2 * 3 * 32 * 32 * 4
    assert speed.bytes_an_image > 3 * views
    assert min(speed.step_images_per_second, speed.load_images_per_second) > 0


def test_on_a_cpu_loading_takes_cores_from_the_networks() -> None:
    speed = speed_of(step=100.0, load=100.0)
    assert speed.images_per_second(workers=2, cores=2, on_cpu=False) == pytest.approx(100)
    assert speed.images_per_second(workers=2, cores=2, on_cpu=True) == pytest.approx(1 / 0.015)
    assert speed_of(100.0, 10.0).images_per_second(workers=2, cores=8, on_cpu=False) == pytest.approx(20)


def test_memory_is_that_of_libraries_weights_and_batch() -> None:
    speed = speed_of(1.0, 1.0)
    assert speed.gigabytes(20) - speed.gigabytes(10) == pytest.approx(1)
    assert speed.gigabytes(0) == pytest.approx(2)


def test_decoding_is_timed_on_what_can_be_read(image_folder: Path, tmp_path: Path) -> None:
    assert decode_images_per_second(FolderSettings(path=image_folder).open().train) > 0
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(DataError, match="can be read"):
        decode_images_per_second(FolderSettings(path=tmp_path).open().train)
